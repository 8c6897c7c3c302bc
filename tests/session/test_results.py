"""The answers of the SDK and the tools: what is left out, how times are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_mcp.meshresults import PeerRow
from claudemesh_mcp.results import InboxMessage, InboxResult, RecipientStatus, rfc3339

MESSAGE = {
    "id": "msg_1",
    "from": "p_1",
    "handle": "ada",
    "member": "ada",
    "text": "hello",
    "priority": "next",
    "sent_at": rfc3339(0),
    "thread": None,
    "reply_to": None,
    "trust": "own",
    "e2e": True,
    "via": None,
}
ROW = {
    "handle": "ada",
    "peer": "p_1",
    "member": "ada",
    "type": "claude",
    "status": "idle",
    "summary": "",
    "project": "shop",
    "locality": "here",
    "groups": [],
    "last_seen": rfc3339(0),
}


def test_a_key_that_is_only_sometimes_there_is_left_out_and_the_others_are_null() -> None:
    shown = InboxMessage.model_validate(MESSAGE).model_dump(by_alias=True)
    assert shown == MESSAGE


def test_a_key_that_is_sometimes_there_is_shown_when_it_says_something() -> None:
    more = {"stripped": 3, "more_bytes": 9, "redelivered": True}
    shown = InboxMessage.model_validate({**MESSAGE, **more}).model_dump(by_alias=True)
    assert shown == {**MESSAGE, **more}


def test_answers_inside_answers_leave_out_their_own_keys() -> None:
    message = InboxMessage.model_validate(MESSAGE)
    shown = InboxResult(messages=[message], unread=0).model_dump(by_alias=True, mode="json")
    assert shown["messages"] == [MESSAGE]
    assert shown["notice"]


def test_only_one_s_own_row_says_so() -> None:
    own = PeerRow.model_validate({**ROW, "self": True}).model_dump(by_alias=True)
    assert own == {**ROW, "self": True}
    assert PeerRow.model_validate(ROW).model_dump(by_alias=True) == ROW


def test_a_receipt_that_is_not_proved_says_so_and_one_that_needs_no_proof_is_silent() -> None:
    told = {"peer": "p_1", "handle": "ada", "status": "seen", "accepted_at": None}
    assert RecipientStatus.model_validate(told).model_dump() == told
    shown = RecipientStatus.model_validate({**told, "proved": False}).model_dump()
    assert shown == {**told, "proved": False}


@pytest.mark.parametrize(
    ("at_ms", "written"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_790_000_000_007, "2026-09-21T14:13:20.007Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_rfc_3339_utc_with_milliseconds(at_ms: int, written: str) -> None:
    assert rfc3339(at_ms) == written


@given(st.integers(-(2**53), 2**53))
def test_every_number_that_a_broker_may_claim_is_written_as_a_time(at_ms: int) -> None:
    assert len(rfc3339(at_ms)) == len("1970-01-01T00:00:00.000Z")


@given(st.integers(0, 253_402_300_799_998))
def test_written_times_sort_as_the_times_do(at_ms: int) -> None:
    assert rfc3339(at_ms) < rfc3339(at_ms + 1)
