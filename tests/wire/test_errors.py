"""Errors: what each surface shows of them, and how they cross the wire."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_wire.errors import (
    CLASSES,
    Invalid,
    MeshError,
    ProtocolError,
    TooMuch,
    Unavailable,
)
from claudemesh_wire.message import Refused
from tests.wire.world import code_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
DETAILS = st.dictionaries(TEXT, st.none() | st.booleans() | TEXT | st.lists(TEXT, max_size=3))


@given(
    st.sampled_from(list(CLASSES.values())),
    st.tuples(TEXT, TEXT, st.none() | TEXT.filter(bool)),
    st.none() | st.floats(0, 1e6),
    DETAILS,
)
def test_every_error_crosses_the_wire_whole(
    kind: type[MeshError],
    texts: tuple[str, str, str | None],
    retry_after_s: float | None,
    details: dict[str, Any],
) -> None:
    reason, hint, code = texts
    error = kind(reason, hint, code=code, retry_after_s=retry_after_s, details=details)
    body = Refused.of(error).model_dump_json(exclude_none=True)
    received = Refused.from_json(body).error()
    assert type(received) is kind
    assert received.as_dict() == error.as_dict()
    assert (received.code, received.status) == (error.code, error.status)


def test_the_eight_classes_have_their_names_and_numbers() -> None:
    assert {name: kind.status for name, kind in CLASSES.items()} == {
        "invalid": 400,
        "unauthenticated": 401,
        "forbidden": 403,
        "not_found": 404,
        "conflict": 409,
        "too_much": 429,
        "unavailable": 503,
        "protocol_error": 500,
    }
    assert all(kind("x").code == name for name, kind in CLASSES.items())


def test_an_error_of_a_later_version_is_the_other_sides() -> None:
    refused = Refused(category="teapot", code="short_and_stout", reason="No coffee.")
    error = refused.error()
    assert isinstance(error, ProtocolError)
    assert (error.code, error.remote) == ("short_and_stout", True)


def test_our_own_mistake_is_said_to_be_ours() -> None:
    assert not ProtocolError("x", remote=False).remote


def test_an_error_reads_as_fact_and_remedy() -> None:
    assert str(Invalid("It is so.", "Do that.")) == "It is so. Do that."
    assert str(Invalid("It is so.")) == "It is so."


def test_what_is_shown_says_no_more_than_there_is() -> None:
    assert Invalid("r").as_dict() == {"code": "invalid", "message": "r", "hint": ""}
    shown = TooMuch("r", "h", code="rate", retry_after_s=2.5, details={"a": 1}).as_dict()
    assert shown == {
        "code": "rate",
        "message": "r",
        "hint": "h",
        "retry_after_s": 2.5,
        "details": {"a": 1},
    }
    assert json.loads(json.dumps(shown)) == shown


@pytest.mark.parametrize("seconds", ["-1", "NaN", "Infinity", "1e999", '"soon"'])
def test_nobody_waits_for_a_time_that_is_none(seconds: str) -> None:
    body = f'{{"category":"unavailable","code":"x","reason":"r","retry_after_s":{seconds}}}'
    assert code_of(lambda: Refused.from_json(body)) == "invalid"


def test_details_are_each_errors_own() -> None:
    one, two = Unavailable("x"), Unavailable("x")
    one.details["a"] = 1
    assert two.details == {}
    assert Refused.of(two).details == {}
