"""The queue against a model of it: any order of sends, attaches, acks, expiry and restarts.

The model knows what each peer is owed. After every step each attached peer has been handed exactly
that, in order and once per connection, as far as its credit goes; and the rows say the same.
"""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from claudemesh_wire.handshake import Mode
from claudemesh_wire.messages import Accepted, Fetch, Send
from claudemesh_wire.receipts import ReceiptStatus
from tests.support.broker import LIMIT_S, MemoryBroker, StandingClock, a_broker
from tests.support.people import Device, Mesh, Person
from tests.support.rawpeer import RawPeer, Wish, header_of, join

NAMES = ("ada", "bob", "cleo")
CREDIT = 4
LIVES_MS = 5 * 60_000
ACKS = ["delivered", "seen", "withheld", "declined"]
PEERS = st.integers(0, len(NAMES) - 1)


@dataclass
class Sent:
    """A message that was accepted, and who has not yet taken it."""

    send: Send
    answer: Accepted
    sender: int
    expires_ms: int
    owed: set[int]


@dataclass
class Seat:
    """A peer: its keys, its connection while it has one, what it acked on it."""

    device: Device
    connection: RawPeer | None = None
    acked: set[str] = field(default_factory=set[str])


class QueueModel(RuleBasedStateMachine):
    """What anybody may do, and what must hold then."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.portal: BlockingPortal = self.stack.enter_context(start_blocking_portal())
        self.clock = StandingClock()
        self.mesh = Mesh(Person("ada"))
        self.seats = [Seat(Device(self.mesh, self.mesh.founder, name)) for name in NAMES]
        self.sent: list[Sent] = []
        self.broker: MemoryBroker
        self.running: AbstractContextManager[Any]
        self._start()
        for number in range(len(NAMES)):
            self._attach(number)

    def teardown(self) -> None:
        """Stop everything."""
        self.running.__exit__(None, None, None)
        self.stack.close()

    def _start(self) -> None:
        opening = a_broker(self.folder, self.clock, window_messages=CREDIT)
        self.running = self.portal.wrap_async_context_manager(opening)
        self.broker = self.running.__enter__()

    def _attach(self, number: int) -> None:
        seat = self.seats[number]
        seat.connection = self.portal.call(join, self.broker, seat.device)
        seat.acked = set()

    def _detach(self, number: int) -> None:
        seat = self.seats[number]
        if seat.connection is not None:
            self.portal.call(seat.connection.leave)
            seat.connection = None

    @contextmanager
    def _speaking(self, number: int) -> Iterator[RawPeer]:
        """Give a connection of a peer, one that only calls if it is not attached."""
        seat = self.seats[number]
        if seat.connection is not None:
            yield seat.connection
            return
        calling = Wish(mode=Mode.CALL)
        caller = self.portal.call(join, self.broker, seat.device, "", calling)
        yield caller
        self.portal.call(caller.leave)

    @rule(sender=PEERS, readers=st.sets(PEERS, min_size=1))
    def send(self, sender: int, readers: set[int]) -> None:
        """Send a message."""
        readers -= {sender}
        if not readers:
            return
        with self._speaking(sender) as peer:
            send = self.portal.call(self._seal, peer, sorted(readers))
            answer = self.portal.call(peer.call, send)
        expires_ms = self.clock.now_ms + LIVES_MS
        self.sent.append(Sent(send, answer, sender, expires_ms, set(readers)))
        for number, one in zip(sorted(readers), answer.recipients, strict=True):
            is_here = self.seats[number].connection is not None
            assert one.status == ("accepted" if is_here else "queued")

    async def _seal(self, peer: RawPeer, readers: list[int]) -> Send:
        resolved = await peer.resolve(*(NAMES[number] for number in readers))
        return await peer.seal(resolved, secrets.token_bytes(8), exp=self.clock.now_ms + LIVES_MS)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        """Send the same bytes again: the answer is the first one, and nothing else happens."""
        one = data.draw(st.sampled_from(self.sent))
        with self._speaking(one.sender) as peer:
            assert self.portal.call(peer.call, one.send) == one.answer

    @rule(number=PEERS)
    def attach(self, number: int) -> None:
        """Attach, perhaps in the place of an older connection."""
        self._attach(number)

    @rule(number=PEERS)
    def detach(self, number: int) -> None:
        """Lose the connection."""
        self._detach(number)

    @rule(number=PEERS, data=st.data(), status=st.sampled_from(ACKS))
    def ack(self, number: int, data: st.DataObject, status: str) -> None:
        """Ack some of what was handed over, once or twice."""
        seat = self.seats[number]
        if seat.connection is None or not seat.connection.delivered():
            return
        chosen = data.draw(st.lists(st.sampled_from(seat.connection.delivered()), max_size=4))
        for delivery in chosen:
            said = ReceiptStatus(status)
            self.portal.call(self._ack, seat.connection, delivery, said)
            self._taken(number, header_of(delivery).id)

    async def _ack(self, peer: RawPeer, delivery: Any, status: ReceiptStatus) -> None:
        await peer.ack(delivery, status=status)

    def _taken(self, number: int, message: str) -> None:
        self.seats[number].acked.add(message)
        for one in self.sent:
            if one.answer.id == message:
                one.owed.discard(number)

    @rule(number=PEERS)
    def fetch_and_ack(self, number: int) -> None:
        """Take the oldest that waits over a connection that only calls."""
        seat = self.seats[number]
        wish = Wish(mode=Mode.CALL)
        caller = self.portal.call(join, self.broker, seat.device, "", wish)
        found = self.portal.call(caller.call, Fetch(limit=1))
        for delivery in found.deliveries:
            self.portal.call(self._ack, caller, delivery, ReceiptStatus.DELIVERED)
            self._taken(number, header_of(delivery).id)
        self.portal.call(caller.leave)

    @rule(milliseconds=st.sampled_from([1, 60_000, LIVES_MS]))
    def let_time_pass(self, milliseconds: int) -> None:
        """Let some expire."""
        self.clock.pass_ms(milliseconds)
        self.portal.call(self.broker.run_due)
        for one in self.sent:
            if one.expires_ms <= self.clock.now_ms:
                one.owed.clear()

    @rule()
    def restart(self) -> None:
        """Stop the broker and start it on what it left."""
        self.running.__exit__(None, None, None)
        for seat in self.seats:
            seat.connection = None
        self._start()

    @invariant()
    def everybody_was_handed_what_is_owed(self) -> None:
        """Each attached peer has it all, in order and once, as far as its credit goes."""
        for number, seat in enumerate(self.seats):
            if seat.connection is not None:
                self.portal.call(self._settled, number, seat.connection)

    async def _settled(self, number: int, peer: RawPeer) -> None:
        owed = [one.answer.id for one in self.sent if number in one.owed]
        acked = self.seats[number].acked

        def is_settled() -> bool:
            got = [header_of(one).id for one in peer.delivered()]
            lacking = [one for one in owed if one not in got]
            unacked = [one for one in got if one not in acked and one in owed]
            return not lacking or len(unacked) * 2 > CREDIT

        with anyio.fail_after(LIMIT_S):
            await peer.until(is_settled)
        rows = [one.row for one in peer.delivered()]
        assert rows == sorted(set(rows))

    @invariant()
    def the_rows_say_the_same(self) -> None:
        """What waits, how much of it, and that nothing else is kept."""
        waiting = self.portal.call(
            self.broker.sql,
            "SELECT m.id, d.recipient FROM deliveries AS d JOIN messages AS m ON m.seq = d.seq"
            " WHERE d.status = 'queued'",
        )
        owed = {
            (one.answer.id, self.seats[who].device.peer) for one in self.sent for who in one.owed
        }
        assert set(waiting) == owed
        counted = self.portal.call(self.broker.sql, "SELECT sum(messages) FROM queues")
        assert (counted[0][0] or 0) == len(owed)
        sizes = self.portal.call(
            self.broker.sql,
            "SELECT (SELECT coalesce(sum(bytes), 0) FROM queues) = (SELECT coalesce("
            " sum(size_bytes * pending), 0) FROM messages), (SELECT count(*) FROM envelopes)",
        )
        assert sizes == [(1, sum(bool(one.owed) for one in self.sent))]


TestQueueModel = QueueModel.TestCase
TestQueueModel.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
