"""Signed JSON: read in one way or not at all."""

import json
from contextlib import suppress
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field

from claudemesh_wire import canonical
from claudemesh_wire.errors import Invalid
from tests.wire.world import code_of


class Note(canonical.Signed):
    """A signed thing with a version and one field under another name."""

    model_config = ConfigDict(populate_by_name=True)

    v: int = 1
    text: str = ""
    count: int = 0
    sender: Annotated[str, Field(alias="from")] = ""
    inner: dict[str, Any] | None = None


def read(payload: bytes) -> Note:
    return canonical.decode(payload, Note, "note")


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**53) + 1, 2**53 - 1))
def test_what_was_written_is_read(text: str, count: int) -> None:
    note = read(canonical.encode(Note(text=text, count=count)))
    assert (note.text, note.count) == (text, count)


def test_what_is_none_is_left_out() -> None:
    assert b"inner" not in canonical.encode(Note())


def test_fields_that_a_later_version_adds_are_ignored() -> None:
    assert read(b'{"v":1,"text":"x","later":[1.5,{"a":null}]}').text == "x"


@given(st.binary(max_size=60))
def test_no_bytes_escape_as_another_error(payload: bytes) -> None:
    with suppress(Invalid):
        read(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'"v"',
        b"1",
        b"null",
        b"{",
        b'{"v":1}{}',
        b'{"v":1,"text":"a","text":"b"}',
        b'{"v":1,"inner":{"a":1,"a":1}}',
        b'{"v":1,"inner":{"a":[{"b":1,"b":2}]}}',
        b'{"v":1,"count":1.0}',
        b'{"v":1,"count":1e3}',
        b'{"v":1,"count":true}',
        b'{"v":1,"count":"1"}',
        b'{"v":1,"count":null}',
        b'{"v":1,"text":7}',
        b'{"v":1,"inner":{"a":NaN}}',
        b'{"v":1,"inner":{"a":-Infinity}}',
        b'{"v":1,"count":9007199254740992}',
        b'{"v":1,"count":-9007199254740992}',
        b'{"v":1,"inner":{"a":' + b"9" * 5000 + b"}}",
        b'{"v":1,"text":"\\ud800"}',
        b'{"v":1,"inner":{"\\udfff":1}}',
        b'{"v":1,"text":"\xed\xa0\x80"}',
        b'{"v":1,"text":"\xff"}',
        b'\xef\xbb\xbf{"v":1}',
        '{"v":1}'.encode("utf-16"),
        '{"v":1}'.encode("utf-16-le"),
        '{"v":1}'.encode("utf-32"),
        b'{"v":1,"inner":' + b'{"a":' * 60_000 + b"1" + b"}" * 60_001,
        b'{"v":1,"inner":' + b"[" * 60_000,
    ],
    ids=lambda payload: payload[:40].decode("latin-1"),
)
def test_what_two_parsers_may_read_differently_is_refused(payload: bytes) -> None:
    assert code_of(lambda: read(payload)) == "malformed"


def test_a_pair_of_escapes_is_one_character() -> None:
    assert read(b'{"v":1,"text":"\\ud83d\\ude00"}').text == "\U0001f600"


@pytest.mark.parametrize("version", [b"", b'"v":2,', b'"v":0,', b'"v":"1",', b'"v":null,'])
def test_another_version_is_named_before_its_fields_are_read(version: bytes) -> None:
    payload = b"{" + version + b'"text":["of another type"]}'
    assert code_of(lambda: read(payload)) == "unsupported_version"


def test_a_version_is_a_whole_number() -> None:
    assert code_of(lambda: read(b'{"v":true}')) == "malformed"


def test_a_field_has_one_name_only() -> None:
    assert read(b'{"v":1,"from":"ada"}').sender == "ada"
    assert read(b'{"v":1,"sender":"bob"}').sender == ""
    assert read(b'{"v":1,"from":"ada","sender":"bob"}').sender == "ada"


def test_half_a_surrogate_pair_is_refused_by_who_writes_it() -> None:
    assert code_of(lambda: canonical.encode(Note(text="\ud800"))) == "malformed"


def test_plain_fields_are_written_as_models_are() -> None:
    assert canonical.encode({"b": 1, "a": None, "ä": "ö"}) == '{"b":1,"ä":"ö"}'.encode()
    assert json.loads(canonical.encode(Note(text="x"))) == {
        "count": 0,
        "sender": "",
        "text": "x",
        "v": 1,
    }


def test_an_error_names_the_field_and_not_what_was_in_it() -> None:
    with pytest.raises(Invalid) as caught:
        read(json.dumps({"v": 1, "inner": "secret"}).encode())
    assert "inner" in caught.value.reason
    assert "secret" not in caught.value.reason
