"""The durable outbox: numbers, byte-for-byte rows, idempotency, and what an answer leaves."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudemesh_mcp import outbox, peerfile
from claudemesh_mcp.outbox import KEPT_MS, Audience, Draft
from claudemesh_wire.content import ContentFields, pack, unpack
from claudemesh_wire.envelope import Sealed, parse_header
from claudemesh_wire.errors import Conflict, NotFound
from claudemesh_wire.keys import make_id
from claudemesh_wire.messages import Accepted, RecipientState
from tests.wire.world import ADAS, BOBS, CLEOS, DAY, NOW, header, letter, seed

PAIR = header(ADAS, [BOBS]).conv
TRIO = header(ADAS, [BOBS, CLEOS]).conv


def draft(label: object = 1, text: bytes = b"hello", conv: str = PAIR) -> Draft:
    readers = [BOBS] if conv == PAIR else [BOBS, CLEOS]
    addresses = tuple(one.handle for one in readers)
    return Draft(
        id=make_id("msg_", seed(f"{label}")),
        conv=conv,
        request_hash=outbox.request_hash(addresses, text, None),
        addresses=addresses,
        audience=tuple(Audience(one.peer, one.handle, one.owner.name, e2e=True) for one in readers),
        plaintext=text,
        resolved_ms=NOW,
        ttl_ms=DAY,
    )


def seal(said: Draft, seq: int) -> Sealed:
    readers = [BOBS] if said.conv == PAIR else [BOBS, CLEOS]
    return letter(ADAS, readers, said.plaintext, id=said.id, conv=said.conv, seq=seq)


def seal_later(said: Draft, seq: int) -> Sealed:
    return letter(ADAS, [BOBS], said.plaintext, id=said.id, seq=seq, ts=NOW + 1)


def compose(sql: sqlite3.Connection, label: object = 1, conv: str = PAIR) -> outbox.Row:
    return outbox.compose(sql, draft(label, conv=conv), seal, NOW)


def accepted(message: str) -> Accepted:
    state = RecipientState(peer=BOBS.peer, status="accepted", at_ms=NOW)
    return Accepted(id=message, accepted_ms=NOW, expires_ms=NOW + DAY, recipients=[state])


def test_a_message_is_numbered_sealed_and_kept_as_it_will_be_sent(sql: sqlite3.Connection) -> None:
    row = compose(sql)
    said = parse_header(Sealed.parse(row.sealed).header)
    assert (said.id, said.seq, said.conv) == (row.draft.id, 1, PAIR)
    assert row.header_hash == Sealed.parse(row.sealed).header_hash
    assert (row.draft, row.seq, row.is_waiting, row.sealings) == (draft(), 1, True, 1)
    assert row.expires_ms == NOW + DAY
    assert row.accepted() is None


@settings(deadline=None)  # Each run makes a file's tables anew.
@given(st.lists(st.sampled_from([PAIR, TRIO, "@team"]), max_size=20))
def test_each_conversation_is_numbered_from_one_without_a_gap(convs: list[str]) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        sql.row_factory = sqlite3.Row
        peerfile._migrate(sql)
        rows = [compose(sql, number, conv) for number, conv in enumerate(convs)]
        for conv in convs:
            numbers = [row.seq for row in rows if row.draft.conv == conv]
            assert numbers == list(range(1, len(numbers) + 1))


def test_a_row_that_waits_is_the_same_to_the_byte_after_a_restart(path: Path) -> None:
    with closing(peerfile._connect(path)) as first:
        kept = compose(first)
    with closing(peerfile._connect(path)) as second:
        assert outbox.waiting_conversations(second) == [PAIR]
        assert outbox.next_waiting(second, PAIR) == kept


def test_numbers_go_on_after_a_restart(path: Path) -> None:
    for number in (1, 2, 3):
        with closing(peerfile._connect(path)) as sql:
            row = compose(sql, number)
            assert row.seq == number
            outbox.answered(sql, row, accepted(row.draft.id))


def test_a_repeat_is_the_first_row_whatever_became_of_it(sql: sqlite3.Connection) -> None:
    first = compose(sql)
    assert compose(sql) == first
    outbox.answered(sql, first, accepted(first.draft.id))
    again = compose(sql)
    assert (again.state, again.seq) == ("accepted", 1)
    assert compose(sql, 2).seq == 2


@pytest.mark.parametrize(
    "other",
    [
        outbox.request_hash(("bob",), b"goodbye", None),
        outbox.request_hash(("cleo",), b"hello", None),
        outbox.request_hash(("bob",), b"hello", "msg_1"),
    ],
)
def test_another_message_under_the_same_key_is_a_conflict(
    sql: sqlite3.Connection, other: bytes
) -> None:
    compose(sql)
    with pytest.raises(Conflict) as caught:
        outbox.compose(sql, replace(draft(), request_hash=other), seal, NOW)
    assert (caught.value.code, bool(caught.value.hint)) == ("idempotency_conflict", True)
    assert compose(sql, 2).seq == 2


def test_a_request_is_summed_up_so_that_no_two_lists_are_one() -> None:
    hashes = {
        outbox.request_hash(addresses, b"x", None)
        for addresses in [("a", "b"), ("a,b",), ('a", "b',), ("b", "a"), ("a",), ()]
    }
    assert len(hashes) == 6


def test_a_key_of_a_peer_names_one_message_and_no_key_names_none() -> None:
    assert outbox.message_id("p_1", bytes(16), "key") == outbox.message_id("p_1", b"x" * 16, "key")
    assert outbox.message_id("p_1", bytes(16), "key") != outbox.message_id("p_2", bytes(16), "key")
    assert outbox.message_id("p_1", bytes(16), "key") != outbox.message_id("p_1", bytes(16), "k")
    assert outbox.message_id("p_1", bytes(16), None) == make_id("msg_", bytes(16))


def test_several_readers_are_told_that_each_of_them_holds_its_own_key() -> None:
    plain = pack(ContentFields(thread="plan"), "hello")
    alone, several = draft(text=plain), draft(text=plain, conv=TRIO)
    assert (alone.is_e2e, alone.sealed_text()) == (True, plain)
    fields, text = unpack(several.sealed_text())
    assert (fields, text) == (ContentFields(thread="plan", e2e=True), "hello")
    bob, cleo = several.audience
    kept_by_others = replace(several, audience=(bob, replace(cleo, e2e=False)))
    assert (kept_by_others.is_e2e, kept_by_others.sealed_text()) == (False, plain)


def test_a_sealing_that_fails_takes_no_number(sql: sqlite3.Connection) -> None:
    def fail(_said: Draft, _seq: int) -> Sealed:
        raise Conflict("The message is too large.")

    sql.execute("SAVEPOINT change")
    with pytest.raises(Conflict):
        outbox.compose(sql, draft(), fail, NOW)
    sql.execute("ROLLBACK TO change")
    assert compose(sql).seq == 1


def test_rows_wait_in_their_order_and_conversations_apart(sql: sqlite3.Connection) -> None:
    one, two, other = compose(sql, 1), compose(sql, 2), compose(sql, 3, TRIO)
    assert outbox.next_waiting(sql, PAIR) == one
    assert outbox.next_waiting(sql, TRIO) == other
    outbox.answered(sql, one, accepted(one.draft.id))
    assert outbox.next_waiting(sql, PAIR) == two
    assert outbox.next_waiting(sql, "@nobody") is None
    assert (sorted(outbox.waiting_conversations(sql)), outbox.count_waiting(sql)) == (
        sorted([PAIR, TRIO]),
        2,
    )


def test_an_answer_clears_the_envelope_and_keeps_text_and_what_receipts_are_checked_against(
    sql: sqlite3.Connection,
) -> None:
    row = compose(sql)
    outbox.answered(sql, row, accepted(row.draft.id))
    kept = outbox.get(sql, row.draft.id)
    assert (kept.sealed, kept.draft.plaintext, kept.state) == (b"", b"hello", "accepted")
    assert (kept.header_hash, kept.draft.audience) == (row.header_hash, row.draft.audience)
    assert kept.accepted() == accepted(row.draft.id)


def test_a_text_that_was_forgotten_is_nowhere_in_the_file(path: Path) -> None:
    secret = b"the secret of the sea " * 3
    with closing(peerfile._connect(path)) as sql:
        row = outbox.compose(sql, draft(text=secret), seal, NOW)
        outbox.answered(sql, row, accepted(row.draft.id))
    assert path.read_bytes().count(secret) == 1
    with closing(peerfile._connect(path)) as sql:
        outbox.forget_old(sql, NOW + KEPT_MS + 1)
    assert path.read_bytes().count(secret) == 0


def test_a_refusal_clears_the_envelope_too_and_is_kept(sql: sqlite3.Connection) -> None:
    row = compose(sql)
    outbox.refused(sql, row.draft.id, row.header_hash, {"code": "queue_full"})
    kept = outbox.get(sql, row.draft.id)
    assert (kept.state, kept.answer, kept.sealed) == ("refused", {"code": "queue_full"}, b"")
    assert kept.accepted() is None
    assert outbox.count_waiting(sql) == 0


def test_the_first_answer_stands(sql: sqlite3.Connection) -> None:
    row = compose(sql)
    outbox.answered(sql, row, accepted(row.draft.id))
    outbox.refused(sql, row.draft.id, row.header_hash, {"code": "conflict"})
    assert outbox.get(sql, row.draft.id).state == "accepted"


def test_sealed_anew_a_message_keeps_id_number_and_lifetime(sql: sqlite3.Connection) -> None:
    row = compose(sql)
    later = replace(draft(), resolved_ms=NOW + 9, ttl_ms=5, audience=draft(conv=TRIO).audience)
    again = outbox.seal_again(sql, later, seal_later, row.header_hash)
    assert (again.draft.id, again.seq, again.sealings) == (row.draft.id, row.seq, 2)
    assert (again.draft.resolved_ms, again.draft.audience) == (NOW + 9, later.audience)
    assert again.sealed != row.sealed
    assert again.header_hash == Sealed.parse(again.sealed).header_hash
    assert again.expires_ms == row.expires_ms
    assert outbox.next_waiting(sql, PAIR) == again


def test_sealed_anew_for_another_conversation_a_message_takes_its_next_number(
    sql: sqlite3.Connection,
) -> None:
    row = compose(sql)
    compose(sql, 2, TRIO)
    moved = outbox.seal_again(sql, replace(draft(), conv=TRIO), seal, row.header_hash)
    assert (moved.draft.conv, moved.seq) == (TRIO, 2)
    assert outbox.next_waiting(sql, PAIR) is None


def test_what_another_process_has_sealed_anew_meanwhile_is_left_as_it_is(
    sql: sqlite3.Connection,
) -> None:
    row = compose(sql)
    theirs = outbox.seal_again(sql, draft(), seal_later, row.header_hash)
    assert theirs.header_hash != row.header_hash
    assert outbox.seal_again(sql, draft(), seal, row.header_hash) == theirs
    outbox.refused(sql, row.draft.id, row.header_hash, {"code": "conflict"})
    assert outbox.get(sql, row.draft.id) == theirs


def test_what_was_answered_meanwhile_is_not_sealed_anew(sql: sqlite3.Connection) -> None:
    row = compose(sql)
    outbox.answered(sql, row, accepted(row.draft.id))
    assert outbox.seal_again(sql, draft(), seal, row.header_hash).state == "accepted"


def test_a_message_one_never_sent_is_an_error_with_a_hint(sql: sqlite3.Connection) -> None:
    assert outbox.find(sql, "msg_nothing") is None
    with pytest.raises(NotFound) as caught:
        outbox.get(sql, "msg_nothing")
    assert caught.value.hint


def test_what_was_answered_is_forgotten_after_thirty_days_and_what_waits_is_not(
    sql: sqlite3.Connection,
) -> None:
    row, waiting = compose(sql, 1), compose(sql, 2)
    outbox.answered(sql, row, accepted(row.draft.id))
    outbox.forget_old(sql, NOW + KEPT_MS)
    assert outbox.find(sql, row.draft.id) is not None
    outbox.forget_old(sql, NOW + KEPT_MS + 1)
    assert outbox.find(sql, row.draft.id) is None
    assert outbox.find(sql, waiting.draft.id) == waiting
    assert compose(sql, 3).seq == 3


def test_a_message_to_the_same_readers_can_be_superseded(sql: sqlite3.Connection) -> None:
    earlier = compose(sql).draft
    outbox.check_earlier(sql, earlier.id, PAIR, ("other words for them",))
    # Another peer under the same name: who began anew, and has what waited for the one before.
    outbox.check_earlier(sql, earlier.id, TRIO, earlier.addresses)


def test_what_others_have_what_nobody_has_and_what_never_was_can_not_be_superseded(
    sql: sqlite3.Connection,
) -> None:
    earlier, lost = compose(sql), compose(sql, "lost")
    outbox.refused(sql, lost.draft.id, lost.header_hash, {"code": "expired"})
    unknown = make_id("msg_", seed("unknown"))
    for message, conv, kind, code in (
        (earlier.draft.id, TRIO, Conflict, "other_audience"),
        (lost.draft.id, PAIR, Conflict, "was_refused"),
        (unknown, PAIR, NotFound, "not_found"),
    ):
        with pytest.raises(kind) as caught:
            outbox.check_earlier(sql, message, conv, ("cleo",))
        assert caught.value.code == code
        assert caught.value.hint
