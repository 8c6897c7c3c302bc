"""Any history of arrivals, offers, kills and evidence leaves the inbox as its model says."""

import sqlite3
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from claudemesh_mcp import openrows, peerfile, reports
from claudemesh_mcp.openrows import LEASE_MS
from tests.support.letters import message_id, sealed, take, unread
from tests.wire.world import ADAS, CLEOS, DAY, NOW

HOLDERS = ("attached:one", "attached:two", "call:three")
SENDERS = {"ada": ADAS, "cleo": CLEOS}


@dataclass
class Message:
    """A message as the model has it."""

    sender: str
    seq: int
    state: str = "waiting"
    offers: int = 0
    holder: str = ""
    lease_until_ms: int = 0

    def is_open(self, now_ms: int) -> bool:
        """Tell whether it may be offered now."""
        return self.state == "waiting" or (self.state == "handed" and self.lease_until_ms <= now_ms)


class InboxMachine(RuleBasedStateMachine):
    """The inbox beside its model; rows are numbered from 1 in the order they came."""

    def __init__(self) -> None:
        super().__init__()
        self.sql = sqlite3.connect(":memory:", isolation_level=None)
        self.sql.row_factory = sqlite3.Row
        peerfile._migrate(self.sql)
        self.model: dict[int, Message] = {}
        self.last = {"ada": 0, "cleo": 0}
        self.now_ms = NOW
        self.seen: list[int] = []

    def teardown(self) -> None:
        self.sql.close()

    @rule(sender=st.sampled_from(["ada", "cleo"]), skipped=st.integers(0, 2))
    def a_message_comes(self, sender: str, skipped: int) -> None:
        self.last[sender] += 1 + skipped
        self.arrive(sender, self.last[sender], fresh=True, missed=skipped)
        self.model[len(self.model) + 1] = Message(sender, self.last[sender])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def a_message_comes_again(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(list(self.model.values())))
        self.arrive(message.sender, message.seq, fresh=False, missed=0)

    def arrive(self, sender: str, seq: int, *, fresh: bool, missed: int) -> None:
        envelope = sealed(f"{sender} {seq}", sender=SENDERS[sender], seq=seq)
        taken = take(self.sql, envelope, self.now_ms)
        assert (taken.fresh, taken.refusal, taken.missed) == (fresh, None, missed)

    @rule(holder=st.sampled_from(HOLDERS), limit=st.integers(0, 4))
    def rows_are_handed_out(self, holder: str, limit: int) -> None:
        expected = [row for row, one in self.model.items() if one.is_open(self.now_ms)][:limit]
        given = openrows.hand_out(self.sql, limit, None, holder, self.now_ms)
        assert sorted(row["row"] for row in given) == expected
        for row in expected:
            message = self.model[row]
            message.state, message.holder = "handed", holder
            message.offers += 1
            message.lease_until_ms = self.now_ms + LEASE_MS
        for shown in given:
            assert shown["offers"] == self.model[shown["row"]].offers
        for sender in SENDERS:
            numbers = [row["seq"] for row in given if row["handle"] == sender]
            assert numbers == sorted(numbers)

    @rule(holder=st.sampled_from(HOLDERS))
    def an_offer_is_given_back(self, holder: str) -> None:
        openrows.give_back(self.sql, holder)
        for message in self.model.values():
            if message.state == "handed" and message.holder == holder:
                message.state, message.offers = "waiting", message.offers - 1

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def evidence_comes(self, data: st.DataObject) -> None:
        rows: list[int] = data.draw(st.lists(st.sampled_from(list(self.model)), max_size=3))
        fresh = {row for row in rows if self.model[row].state != "seen"}
        assert openrows.mark_seen(self.sql, rows, "tool", self.now_ms) == len(fresh)
        for row in fresh:
            self.model[row].state = "seen"
        self.seen += sorted(fresh)

    @rule(holder=st.sampled_from(HOLDERS[:2]))
    def an_attached_process_starts(self, holder: str) -> None:
        openrows.release_orphans(self.sql, holder)
        for message in self.model.values():
            orphaned = message.holder.startswith("attached:") and message.holder != holder
            if message.state == "handed" and orphaned:
                message.lease_until_ms = 0

    @rule(passed=st.sampled_from([1, LEASE_MS // 2, LEASE_MS]))
    def time_passes(self, passed: int) -> None:
        self.now_ms = min(self.now_ms + passed, NOW + DAY)

    @rule()
    def receipts_are_reported(self) -> None:
        for group in reports.due(self.sql).values():
            reports.reported(self.sql, [row for row, _ in group])

    @invariant()
    def every_row_is_where_the_model_has_it(self) -> None:
        rows = self.sql.execute("SELECT row, state, offers FROM inbox ORDER BY row").fetchall()
        assert [tuple(row) for row in rows] == [
            (row, one.state, one.offers) for row, one in self.model.items()
        ]

    @invariant()
    def what_is_counted_is_what_can_be_handed_out(self) -> None:
        open_rows = [one for one in self.model.values() if one.is_open(self.now_ms)]
        assert unread(self.sql, self.now_ms) == len(open_rows)
        assert len(openrows.peek(self.sql, 999, None, self.now_ms)) == len(open_rows)

    @invariant()
    def no_receipt_says_seen_of_what_was_not(self) -> None:
        seen = {
            message_id(f"{one.sender} {one.seq}") for one in map(self.model.get, self.seen) if one
        }
        due: list[Any] = [item for group in reports.due(self.sql).values() for _, item in group]
        assert {item.id for item in due if item.status == "seen"} <= seen


InboxMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestInbox = InboxMachine.TestCase
