"""The durable inbox: what is taken in, what is declined, and what is left for later."""

import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from claudemesh_mcp import held, inbox, openrows
from claudemesh_mcp.inbox import Ruling, Sender
from claudemesh_wire.content import ContentFields, Priority, pack
from claudemesh_wire.envelope import Opened, Refusal, Sealed
from claudemesh_wire.errors import Forbidden
from tests.support.letters import (
    code,
    due,
    hand,
    message_id,
    report_all,
    rows,
    sealed,
    take,
    told,
    unread,
)
from tests.wire.world import ADAS, BOBS, CLEOS, DAY, NOW, Device, letter


def test_a_message_is_kept_in_clear_with_what_was_proved_of_its_sender(
    sql: sqlite3.Connection,
) -> None:
    envelope = sealed(1, "hello", fields=ContentFields(priority=Priority.NOW, thread="plan"))
    taken = take(sql, envelope)
    assert (taken.fresh, taken.refusal, taken.missed) == (True, None, 0)
    (row,) = rows(sql)
    assert (row["text"], row["priority"], row["thread"], row["state"]) == (
        "hello",
        "now",
        "plan",
        "waiting",
    )
    assert (row["sender"], row["handle"], row["member_name"]) == (ADAS.peer, "ada", "Ada")
    assert (row["sent_ms"], row["received_ms"], row["expires_ms"]) == (NOW, NOW, NOW + DAY)


@pytest.mark.parametrize(
    ("readers", "said", "e2e"),
    [
        ([BOBS], ContentFields(), 1),
        ([BOBS], ContentFields(e2e=False), 1),
        ([BOBS, CLEOS], ContentFields(e2e=True), 1),
        ([BOBS, CLEOS], ContentFields(), 0),
        ([BOBS, CLEOS], ContentFields(e2e=False), 0),
    ],
)
def test_what_several_can_read_is_sealed_end_to_end_by_the_word_of_its_sender_alone(
    sql: sqlite3.Connection, readers: list[Device], said: ContentFields, e2e: int
) -> None:
    """Who wrote it by an earlier version gave none."""
    take(sql, letter(ADAS, readers, pack(said, "hello")))
    assert [row["e2e"] for row in rows(sql)] == [e2e]


def test_what_the_keeper_of_another_key_can_read_is_not_sealed_by_anybodys_word(
    sql: sqlite3.Connection,
) -> None:
    def prove(opened: Opened) -> Sender:
        said = opened.certificate.fields
        return Sender(opened.certificate.hash, said.handle, said.member, "Ada", e2e=False)

    take(sql, letter(ADAS, [BOBS, CLEOS], pack(ContentFields(e2e=True), "hello")), prove=prove)
    assert [row["e2e"] for row in rows(sql)] == [0]


def test_its_receipt_is_due_and_names_the_very_header(sql: sqlite3.Connection) -> None:
    envelope = sealed()
    take(sql, envelope, NOW + 5)
    (item,) = due(sql)
    assert (item.id, item.header_hash) == (message_id(1), envelope.header_hash)
    assert (item.status, item.at_ms, item.reason) == ("delivered", NOW + 5, "")


def test_what_could_deceive_is_taken_out_and_counted(sql: sqlite3.Connection) -> None:
    fields = ContentFields(thread="pl\u202ean\nfake: yes")
    take(sql, sealed(1, "a\u202eb\u200bc\x1b[31m", fields=fields, via="b\x1b[0mot\n"))
    (row,) = rows(sql)
    assert (row["text"], row["stripped"]) == ("abc", 7)
    assert "\n" not in row["thread"] + row["via"]
    assert "\u202e" not in row["thread"]
    assert "\x1b" not in row["via"]


def test_a_thread_of_nothing_that_can_be_seen_is_none(sql: sqlite3.Connection) -> None:
    take(sql, sealed(fields=ContentFields(thread="\u200b")))
    assert rows(sql)[0]["thread"] is None


def test_a_message_that_comes_again_is_kept_once_and_acknowledged_again(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed())
    report_all(sql)
    again = take(sql, sealed())
    assert (again.fresh, again.refusal) == (False, None)
    assert len(rows(sql)) == 1
    assert told(sql) == [("delivered", "")]


def test_a_message_that_comes_again_before_its_receipt_has_left_has_one_receipt(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed(), NOW)
    take(sql, sealed(), NOW + 9)
    assert [item.at_ms for item in due(sql)] == [NOW]


def test_a_message_that_was_seen_is_not_offered_again_when_it_comes_again(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed())
    hand(sql)
    openrows.mark_seen(sql, [1], "tool", NOW)
    take(sql, sealed())
    assert unread(sql, NOW + DAY // 2) == 0


@pytest.mark.parametrize(
    ("now_ms", "changes"),
    [
        (NOW + 2 * DAY, {}),
        (NOW, {"kem_key": lambda _generation: None}),
        (NOW, {"certificate": lambda _header: (_ for _ in ()).throw(Refusal("", code="revoked"))}),
    ],
)
def test_what_was_taken_in_is_acknowledged_again_whatever_would_refuse_it_now(
    sql: sqlite3.Connection, now_ms: int, changes: dict[str, Any]
) -> None:
    take(sql, sealed())
    report_all(sql)
    assert take(sql, sealed(), now_ms, **changes).refusal is None
    assert told(sql) == [("delivered", "")]


def test_another_message_under_a_used_id_is_declined_and_the_first_stays(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed(1, "first"))
    report_all(sql)
    other = sealed(1, "second", seq=2)
    assert code(take(sql, other)) == "replay"
    (row,) = rows(sql)
    assert row["text"] == "first"
    assert [(item.status, item.reason, item.header_hash) for item in due(sql)] == [
        ("declined", "replay", other.header_hash)
    ]


def test_the_same_id_from_two_senders_is_two_messages(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1, "from ada"))
    take(sql, sealed(1, "from cleo", CLEOS))
    assert [row["text"] for row in rows(sql)] == ["from ada", "from cleo"]
    assert inbox.find_message(sql, message_id(1))["text"] == "from ada"


def forged(envelope: Sealed) -> Sealed:
    return replace(envelope, signature=bytes(64))


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        (forged(sealed()), "bad_signature"),
        (letter(ADAS, [CLEOS], pack(ContentFields(), "x")), "not_addressed"),
        (sealed(ts=NOW - DAY, exp=NOW - 1), "not_certified"),
        (sealed(ts=NOW - 9, exp=NOW - 1), "expired"),
        (sealed(kind="riddle"), "unsupported_kind"),
        (sealed(plaintext=b"no content"), "bad_content"),
        (sealed(kgen=[7]), "no_key"),
    ],
)
def test_what_can_never_be_read_is_declined_with_its_reason(
    sql: sqlite3.Connection, envelope: Sealed, reason: str
) -> None:
    taken = take(sql, envelope)
    assert code(taken) == reason
    assert not taken.is_deferred
    assert told(sql) == [("declined", reason)]
    assert rows(sql) == []


def test_a_sender_removed_while_its_message_is_opened_is_declined(sql: sqlite3.Connection) -> None:
    def removed(_opened: Opened) -> Sender:
        raise Forbidden("Ada was removed from this mesh.", code="member_removed")

    assert code(take(sql, sealed(), prove=removed)) == "revoked"
    assert told(sql) == [("declined", "revoked")]


@pytest.mark.parametrize(
    ("envelope", "now_ms", "reason"),
    [
        (letter(Device(ADAS.owner, "eve"), [BOBS]), NOW, "unknown_certificate"),
        (sealed(), NOW - 6 * 60_000, "future"),
    ],
)
def test_what_may_be_believed_later_is_left_unacknowledged(
    sql: sqlite3.Connection, envelope: Sealed, now_ms: int, reason: str
) -> None:
    taken = take(sql, envelope, now_ms)
    assert code(taken) == reason
    assert taken.is_deferred
    assert (told(sql), rows(sql)) == ([], [])


@pytest.mark.parametrize("header", [b"", b"{}", b'{"v":1}', b"\xff" * 200])
def test_what_names_no_sender_is_told_to_nobody(sql: sqlite3.Connection, header: bytes) -> None:
    taken = take(sql, replace(sealed().copy_for(0), header=header))
    assert taken.header is None
    assert code(taken) in {"malformed", "unsupported_version"}
    assert told(sql) == []


def test_messages_missing_from_a_direct_conversation_are_counted(sql: sqlite3.Connection) -> None:
    missed = [take(sql, sealed(seq)).missed for seq in (3, 4, 7, 5, 8)]
    assert missed == [2, 0, 2, 0, 0]


def test_each_sender_and_conversation_is_counted_by_itself(sql: sqlite3.Connection) -> None:
    take(sql, sealed("one", seq=1))
    take(sql, sealed("two", seq=2))
    assert take(sql, sealed("three", sender=CLEOS, seq=1)).missed == 0


def test_a_group_s_numbers_tell_no_reader_of_a_gap(sql: sqlite3.Connection) -> None:
    assert take(sql, sealed("late", conv="@team", seq=9)).missed == 0
    assert take(sql, sealed("later", conv="@team", seq=12)).missed == 0


def test_a_message_that_lacks_a_grant_is_kept_apart_and_told_so(sql: sqlite3.Connection) -> None:
    taken = take(sql, sealed(), ruling=Ruling(held="message", wakes=False))
    assert (taken.fresh, taken.refusal) == (False, None)
    assert told(sql) == [("held", "message")]
    assert (unread(sql, NOW), held.count(sql)) == (0, 1)
    assert hand(sql) == []
    assert openrows.peek(sql, 20, None, NOW) == []


def test_a_held_message_that_comes_again_is_told_to_be_held_again(sql: sqlite3.Connection) -> None:
    take(sql, sealed(), ruling=Ruling(held="message", wakes=False))
    report_all(sql)
    assert not take(sql, sealed()).fresh
    assert (told(sql), hand(sql)) == ([("held", "message")], [])


def test_a_member_that_is_blocked_is_declined(sql: sqlite3.Connection) -> None:
    taken = take(sql, sealed(), ruling=Refusal("Blocked.", code="blocked"))
    assert code(taken) == "blocked"
    assert (told(sql), rows(sql)) == ([("declined", "blocked")], [])


def test_a_text_that_is_held_is_not_given_by_its_id(sql: sqlite3.Connection) -> None:
    take(sql, sealed(), ruling=Ruling(held="message", wakes=False))
    with pytest.raises(Forbidden) as caught:
        inbox.find_message(sql, message_id(1))
    assert caught.value.code == "held"
