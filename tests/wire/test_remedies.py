"""Remedies: what an error says to do that is made without a hint of its own."""

import pytest

from claudemesh_wire.errors import CLASSES, Conflict, Invalid, ProtocolError
from claudemesh_wire.message import Refused
from claudemesh_wire.remedies import REMEDIES
from tests.support.checkout import BROKER, SESSION, WIRE, python_files
from tests.support.refusals import errors_made


@pytest.mark.parametrize("code", REMEDIES)
def test_an_error_without_a_hint_has_the_one_of_its_code(code: str) -> None:
    assert Invalid("r", code=code).hint == REMEDIES[code]


def test_every_remedy_is_a_sentence() -> None:
    assert REMEDIES
    assert [one for one in REMEDIES.values() if not (one[0].isupper() and one.endswith("."))] == []


def test_a_hint_that_is_given_wins() -> None:
    assert Conflict("r", "Do that.", code="membership_fork").hint == "Do that."
    assert ProtocolError("r", "Do that.", remote=False).hint == "Do that."


def test_what_broke_the_protocol_has_a_hint_whatever_its_code() -> None:
    general = REMEDIES["protocol_error"]
    assert ProtocolError("r").hint == general
    assert ProtocolError("r", code="short_and_stout").hint == general
    assert ProtocolError("r", code="malformed").hint == REMEDIES["malformed"]


def test_no_other_class_has_a_hint_without_a_code() -> None:
    others = {kind for kind in CLASSES.values() if kind is not ProtocolError}
    assert {kind("r").hint for kind in others} == {""}


def test_what_the_other_side_says_is_kept() -> None:
    refused = Refused(category="invalid", code="malformed", reason="r", hint="Do that.")
    assert refused.error().hint == "Do that."
    silent = Refused(category="invalid", code="malformed", reason="r")
    assert silent.error().hint == REMEDIES["malformed"]


def test_each_remedy_is_that_of_an_error_which_is_made_without_a_hint() -> None:
    left = {
        code
        for path in python_files(SESSION, BROKER, WIRE)
        for made in errors_made(path)
        if not made.has_hint
        for code in (made.code or made.category,)
    }
    assert set(REMEDIES) - left == set()
