"""The durable inbox: offers and their leases, evidence, receipts that are due, forgetting."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from claudemesh_mcp import inbox, openrows, reports
from claudemesh_mcp.openrows import LEASE_MS
from claudemesh_wire.content import ContentFields
from claudemesh_wire.errors import NotFound
from claudemesh_wire.receipts import MAX_BATCH
from tests.support.letters import (
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
from tests.wire.world import ADAS, CLEOS, DAY, NOW


def test_offering_needs_the_standard_library_alone() -> None:
    # -I and -S: no folder of installed packages, as for a program that has to start at once.
    program = "import sys; sys.path[0:0] = [sys.argv[1]]; import claudemesh_mcp.openrows"
    root = str(Path(openrows.__file__).parent.parent)
    subprocess.run([sys.executable, "-I", "-S", "-c", program, root], check=True, timeout=60)


def test_a_row_is_offered_to_one_route_at_a_time(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1))
    take(sql, sealed(2))
    assert hand(sql, 1, "a:1") == [1]
    assert hand(sql, 20, "b:1") == [2]
    assert hand(sql, 20, "c:1") == []


def test_an_offer_without_evidence_ends_with_its_lease_and_is_made_again_marked(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed())
    hand(sql)
    assert hand(sql, now=NOW + LEASE_MS - 1) == []
    (row,) = openrows.hand_out(sql, 20, None, "b:1", NOW + LEASE_MS)
    assert (row["offers"], row["holder"]) == (2, "b:1")
    assert row["lease_until_ms"] == NOW + 2 * LEASE_MS


def test_a_row_given_back_waits_as_if_it_had_never_been_offered(sql: sqlite3.Connection) -> None:
    take(sql, sealed())
    hand(sql, holder="a:1")
    openrows.give_back(sql, "a:1")
    (row,) = openrows.hand_out(sql, 20, None, "a:2", NOW)
    assert row["offers"] == 1


def test_a_row_offered_again_and_given_back_stays_marked(sql: sqlite3.Connection) -> None:
    take(sql, sealed())
    hand(sql, holder="a:1")
    hand(sql, holder="a:2", now=NOW + LEASE_MS)
    openrows.give_back(sql, "a:2")
    (row,) = openrows.hand_out(sql, 20, None, "a:3", NOW + LEASE_MS)
    assert row["offers"] == 2


def test_only_what_the_holder_holds_is_given_back(sql: sqlite3.Connection) -> None:
    for seq in (1, 2, 3, 4):
        take(sql, sealed(seq))
    hand(sql, 1, "a:1")
    hand(sql, 1, "a:2")
    hand(sql, 2, "b:1")
    openrows.give_back(sql, "a:1")
    assert hand(sql, holder="a:3") == [1]
    openrows.give_back(sql, "b", rows=[3])
    assert hand(sql, holder="c:1") == [3]
    openrows.mark_seen(sql, [2], "tool", NOW)
    openrows.give_back(sql, "a")
    assert hand(sql) == [1]


def test_evidence_makes_a_row_seen_once_and_its_receipt_due(sql: sqlite3.Connection) -> None:
    take(sql, sealed())
    report_all(sql)
    hand(sql)
    assert openrows.mark_seen(sql, [1, 99], "tool", NOW + 7) == 1
    assert openrows.mark_seen(sql, [1], "hook", NOW + 9) == 0
    (item,) = due(sql)
    assert (item.status, item.route, item.at_ms) == ("seen", "tool", NOW + 7)
    assert hand(sql, now=NOW + DAY) == []


def test_evidence_counts_after_the_lease_and_from_whomever_it_comes(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed())
    hand(sql, holder="a:1")
    hand(sql, holder="b:1", now=NOW + LEASE_MS)
    assert openrows.mark_seen(sql, [1], "tool", NOW + LEASE_MS + 1) == 1
    assert hand(sql, now=NOW + DAY) == []


def test_delivered_is_told_before_seen(sql: sqlite3.Connection) -> None:
    take(sql, sealed())
    openrows.mark_seen(sql, [1], "tool", NOW)
    assert [status for status, _ in told(sql)] == ["delivered", "seen"]


def test_what_a_dead_process_held_is_offered_at_once_and_marked(sql: sqlite3.Connection) -> None:
    dead, mine = openrows.attached_holder("dead"), openrows.attached_holder("mine")
    for seq in (1, 2, 3):
        take(sql, sealed(seq))
    hand(sql, 1, f"{dead}:1")
    hand(sql, 1, f"{mine}:1")
    hand(sql, 1, "call:other")
    openrows.release_orphans(sql, mine)
    assert [(row["seq"], row["offers"]) for row in openrows.hand_out(sql, 9, None, mine, NOW)] == [
        (1, 2)
    ]


def test_a_sender_s_messages_come_in_its_order_and_senders_do_not_wait_for_each_other(
    sql: sqlite3.Connection,
) -> None:
    arrivals = [(ADAS, 2), (CLEOS, 5), (ADAS, 1), (CLEOS, 6), (ADAS, 3)]
    for sender, seq in arrivals:
        take(sql, sealed(f"{sender.handle} {seq}", sender=sender, seq=seq))
    given = [(row["handle"], row["seq"]) for row in openrows.hand_out(sql, 9, None, "a:1", NOW)]
    assert given == [("ada", 1), ("cleo", 5), ("ada", 2), ("cleo", 6), ("ada", 3)]


def test_looking_takes_nothing(sql: sqlite3.Connection) -> None:
    take(sql, sealed())
    assert [row["seq"] for row in openrows.peek(sql, 9, None, NOW)] == [1]
    assert unread(sql, NOW) == 1
    (row,) = openrows.hand_out(sql, 9, None, "a:1", NOW)
    assert row["offers"] == 1


def test_a_thread_is_handed_out_and_counted_by_itself(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1, fields=ContentFields(thread="plan")))
    take(sql, sealed(2))
    assert (unread(sql, NOW, "plan"), unread(sql, NOW)) == (1, 2)
    assert [row["seq"] for row in openrows.hand_out(sql, 9, "plan", "a:1", NOW)] == [1]
    assert hand(sql) == [2]


def test_no_rows_are_handed_out_of_an_empty_inbox(sql: sqlite3.Connection) -> None:
    assert hand(sql) == hand(sql, 0) == []
    assert unread(sql, NOW) == 0


def test_any_number_of_rows_can_be_asked_for(sql: sqlite3.Connection) -> None:
    sql.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)"
        " INSERT INTO inbox (sender, id, header_hash, certificate, conv, seq, handle, member,"
        " member_name, text, stripped, priority, e2e, sent_ms, received_ms, expires_ms)"
        " SELECT 's', 'm' || i, x'', x'', 'c', i, 'h', 'm', 'm', 't', 0, 'next', 1, 0, 0, 0 FROM n"
    )
    sql.execute("BEGIN")
    assert hand(sql, 40_000) == list(range(1, 40_001))
    sql.execute("COMMIT")


def test_a_message_that_is_not_there_is_an_error_with_a_hint(sql: sqlite3.Connection) -> None:
    with pytest.raises(NotFound) as caught:
        inbox.find_message(sql, "msg_nothing")
    assert caught.value.hint


def test_receipts_are_grouped_by_sender_one_signature_long(sql: sqlite3.Connection) -> None:
    for number in range(300):
        reports.enter(sql, ("p_ada", f"{message_id(number)}", bytes(32), "seen", "", "", 0))
    reports.enter(sql, ("p_bob", message_id(0), bytes(32), "seen", "", "", 0))
    groups = reports.due(sql)
    assert {sender: len(group) for sender, group in groups.items()} == {
        "p_ada": MAX_BATCH,
        "p_bob": 1,
    }
    report_all(sql)
    assert len(due(sql)) == 300 - MAX_BATCH
    report_all(sql)
    assert due(sql) == []


def test_what_was_seen_is_forgotten_after_thirty_days_and_what_was_not_stays(
    sql: sqlite3.Connection,
) -> None:
    take(sql, sealed(1))
    take(sql, sealed(2))
    openrows.mark_seen(sql, [1], "tool", NOW)
    inbox.forget_old(sql, NOW + inbox.KEPT_MS)
    assert len(rows(sql)) == 2
    inbox.forget_old(sql, NOW + inbox.KEPT_MS + 1)
    assert [row["seq"] for row in rows(sql)] == [2]


def test_what_could_still_be_replayed_is_remembered(sql: sqlite3.Connection) -> None:
    take(sql, sealed(1))
    openrows.mark_seen(sql, [1], "tool", NOW)
    sql.execute("UPDATE inbox SET received_ms = 0")
    inbox.forget_old(sql, NOW + DAY + inbox.REPLAY_MEMORY_MS)
    assert len(rows(sql)) == 1


def test_looking_for_what_is_not_seen_does_not_read_the_whole_history(
    sql: sqlite3.Connection,
) -> None:
    asked: list[str] = []
    sql.set_trace_callback(asked.append)
    unread(sql, NOW)
    openrows.peek(sql, 5, None, NOW)
    openrows.give_back(sql, "a:1")
    openrows.release_orphans(sql, "a:1")
    sql.set_trace_callback(None)
    plans = [sql.execute(f"EXPLAIN QUERY PLAN {one}").fetchone()["detail"] for one in asked]
    assert len(plans) == 5
    indexes = [plan.partition("USING INDEX ")[2] for plan in plans]
    assert sorted(indexes) == ["inbox_conditional", *["inbox_open"] * 4]
