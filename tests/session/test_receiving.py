"""Taking in what a broker hands over: what is fetched first, kept, declined, left, and reported."""

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import inbox, openrows, reports
from claudemesh_mcp.inbox import Taken
from claudemesh_mcp.receiving import Receiving
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.content import ContentFields, pack
from claudemesh_wire.envelope import MembershipHead
from claudemesh_wire.errors import Unavailable
from claudemesh_wire.exchange import Asked
from claudemesh_wire.keys import b64, make_id
from claudemesh_wire.meshes import LogEntries, ReadLog
from claudemesh_wire.messages import Delivery
from claudemesh_wire.presence import CertificatesFound, FetchCertificates
from claudemesh_wire.receipts import Report, Reported, are_receipts_signed
from tests.support.scripted import LIMIT_S, Pair, a_pair, running
from tests.wire.world import ADA, ADAS, BOB, BOBS, CLEO, CLEOS, NOW, Device, Log, letter, seed

KNOWN = Log().bring(BOB)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncGenerator[Pair]:
    """Ada's client; she knows that she founded the mesh and added bob."""
    async with a_pair(tmp_path) as made:
        made.peer.renew("ada")
        yield made


class Answering:
    """A broker that serves certificates, the log, and takes receipts; it counts the questions."""

    def __init__(self, pair: Pair, log: Log, *certificates: Certificate) -> None:
        self.pair = pair
        self.log = log
        self.certificates = certificates
        self.asked: list[str] = []
        self.reports: list[Report] = []
        self.refusals: list[Unavailable] = []

    async def run(self) -> None:
        while True:
            event = await self.pair.broker.hear()
            assert isinstance(event, Asked)
            self.asked.append(event.request.kind)
            await self.pair.broker.answer(event.number, self.answer(event.request))

    def answer(self, request: Any) -> Any:
        match request:
            case FetchCertificates(hashes=hashes):
                found = [one.blob for one in self.certificates if one.hash in hashes]
                return CertificatesFound(certificates=found)
            case ReadLog(after_seq=after):
                head = self.log.chain.head
                return LogEntries(entries=self.log.blobs[after:], head_seq=head.seq, head=head.hash)
            case Report() if self.refusals:
                return self.refusals.pop()
            case _:
                assert isinstance(request, Report)
                self.reports.append(request)
                return Reported(taken=1)


def delivery(
    pair: Pair, seq: int = 1, sender: Device = BOBS, log: Log = KNOWN, **changes: Any
) -> Delivery:
    """A copy for ada, as the broker hands it over."""
    head = log.chain.head
    said: dict[str, Any] = {
        "id": make_id("msg_", seed(f"{sender.handle} {seq}")),
        "seq": seq,
        "mh": MembershipHead(seq=head.seq, head=b64(head.hash)),
        "to": [pair.peer.id],
        "conv": "@team",
        "kgen": [1],
    }
    text = pack(ContentFields(), f"{sender.handle} {seq}")
    reader = _AdasKeys(pair)
    sealed = letter(sender, [reader], text, **{**said, **changes})  # type: ignore[list-item]
    return Delivery(row=seq, envelope=sealed.copy_for(0).to_bytes(), queued_ms=NOW)


class _AdasKeys:
    """What ``letter`` wants to know of a reader."""

    def __init__(self, pair: Pair) -> None:
        self.peer = pair.peer.id
        self.kem = pair.peer.device.current.key
        self.generation = 1


async def texts(pair: Pair) -> list[str]:
    rows = await pair.peer.file.write(
        lambda sql: sql.execute("SELECT text FROM inbox ORDER BY row").fetchall()
    )
    return [row["text"] for row in rows]


async def told(pair: Pair) -> list[tuple[str, str]]:
    due = await pair.peer.file.write(reports.due)
    return [(item.status.value, item.reason) for group in due.values() for _, item in group]


def codes(pair: Pair) -> list[str]:
    return [problem.code for problem in pair.peer.problems]


async def take(
    pair: Pair, broker: Answering, *deliveries: Delivery, certificates: Any = ()
) -> Receiving:
    """Take deliveries in with the help of this broker."""
    receiving = Receiving(pair.peer)
    await take_with(receiving, pair, broker, *deliveries, certificates=certificates)
    return receiving


async def take_with(
    receiving: Receiving,
    pair: Pair,
    broker: Answering,
    *deliveries: Delivery,
    certificates: Any = (),
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(broker.run)
        await receiving.take(pair.client, deliveries, certificates)
        tasks.cancel_scope.cancel()


async def test_a_copy_with_its_certificate_is_kept_without_a_question(pair: Pair) -> None:
    async with running(pair):
        broker = Answering(pair, KNOWN)
        await take(pair, broker, delivery(pair), certificates=[BOBS.certificate().blob])
        assert (await texts(pair), broker.asked) == (["bob 1"], [])
        assert await told(pair) == [("delivered", "")]


async def test_a_certificate_that_is_lacking_is_fetched_once_for_many(pair: Pair) -> None:
    async with running(pair):
        broker = Answering(pair, KNOWN, BOBS.certificate())
        await take(pair, broker, *(delivery(pair, seq) for seq in range(1, 9)))
        assert await texts(pair) == [f"bob {seq}" for seq in range(1, 9)]
        assert broker.asked == [FetchCertificates.kind]
        assert codes(pair) == []


async def test_a_sender_that_knows_more_of_the_log_has_it_fetched_first(pair: Pair) -> None:
    longer = Log().bring(BOB).bring(CLEO)
    async with running(pair):
        broker = Answering(pair, longer, BOBS.certificate(), CLEOS.certificate())
        await take(pair, broker, delivery(pair), delivery(pair, sender=CLEOS, log=longer))
        assert await texts(pair) == ["bob 1", "cleo 1"]
        assert pair.peer.trust.head == longer.chain.head
        assert codes(pair) == []


async def test_entries_that_the_broker_hides_are_named_and_the_message_waits_for_them(
    pair: Pair,
) -> None:
    longer = Log().bring(BOB).bring(CLEO)
    async with running(pair):
        hiding = Answering(pair, KNOWN, CLEOS.certificate())
        waiting = delivery(pair, sender=CLEOS, log=longer)
        receiving = await take(pair, hiding, waiting)
        assert "membership_hidden" in codes(pair)
        assert (await texts(pair), await told(pair)) == ([], [])
        showing = Answering(pair, longer, CLEOS.certificate())
        await take_with(receiving, pair, showing)
        assert await texts(pair) == ["cleo 1"]


async def test_a_sender_removed_meanwhile_is_declined_and_told(pair: Pair) -> None:
    shorter = Log().bring(BOB).add("remove", ADA, member=BOB.id)
    async with running(pair):
        pair.peer.trust.extend(shorter.blobs)
        await take(pair, Answering(pair, shorter, BOBS.certificate()), delivery(pair))
        assert await told(pair) == [("declined", "revoked")]
        assert "revoked" in codes(pair)
        assert await texts(pair) == []


async def test_a_broker_without_the_certificate_leaves_the_message_unacknowledged(
    pair: Pair,
) -> None:
    async with running(pair):
        receiving = await take(pair, Answering(pair, KNOWN), delivery(pair))
        assert (await texts(pair), await told(pair)) == ([], [])
        assert codes(pair) == ["unknown_certificate"]
        await take_with(receiving, pair, Answering(pair, KNOWN, BOBS.certificate()))
        assert await texts(pair) == ["bob 1"]


async def test_no_more_is_kept_waiting_than_there_is_room_for(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudemesh_mcp.receiving._MOST_DEFERRED", 2)
    async with running(pair):
        many = [delivery(pair, seq) for seq in range(1, 5)]
        receiving = await take(pair, Answering(pair, KNOWN), *many)
        await take_with(receiving, pair, Answering(pair, KNOWN, BOBS.certificate()))
        assert await texts(pair) == ["bob 1", "bob 2"]


@pytest.mark.parametrize("junk", [b"", b"junk", bytes(200)])
async def test_junk_is_named_and_the_others_are_kept(pair: Pair, junk: bytes) -> None:
    async with running(pair):
        broken = Delivery(row=1, envelope=junk, queued_ms=NOW)
        certificates = [b"junk", BOBS.certificate().blob]
        broker = Answering(pair, KNOWN)
        await take(pair, broker, broken, delivery(pair), certificates=certificates)
        assert await texts(pair) == ["bob 1"]
        assert "malformed_delivery" in codes(pair)


async def test_one_that_hits_a_mistake_of_ours_keeps_no_other_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    take_in: Callable[..., Taken] = inbox.take_in

    def mistaken(sql: Any, copy: Any, *rest: Any) -> Taken:
        if copy.fields.seq == 2:
            raise ZeroDivisionError
        return take_in(sql, copy, *rest)

    monkeypatch.setattr(inbox, "take_in", mistaken)
    async with running(pair):
        many = [delivery(pair, seq) for seq in (1, 2, 3)]
        broker = Answering(pair, KNOWN, BOBS.certificate())
        await take(pair, broker, *many)
        assert await texts(pair) == ["bob 1", "bob 3"]
    assert any(record.exc_info for record in caplog.records)


async def test_an_arrival_wakes_whoever_waits_for_one(pair: Pair) -> None:
    async with running(pair):
        receiving = Receiving(pair.peer)
        arrival = receiving.arrival()
        broker = Answering(pair, KNOWN, BOBS.certificate())
        await take_with(receiving, pair, broker, delivery(pair))
        assert arrival.is_set()
        again = receiving.arrival()
        await take_with(receiving, pair, broker, delivery(pair))
        assert not again.is_set()


async def test_receipts_are_signed_reported_and_then_not_due_any_more(pair: Pair) -> None:
    async with running(pair):
        broker = Answering(pair, KNOWN, BOBS.certificate(), ADAS.certificate())
        receiving = await take(pair, broker, delivery(pair, 1), delivery(pair, 2))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broker.run)
            await receiving.flush_reports(pair.client)
            tasks.cancel_scope.cancel()
        (batch,) = broker.reports[0].batches
        assert (batch.sender, len(batch.items)) == (BOBS.peer, 2)
        assert are_receipts_signed(pair.peer.trust.mesh, batch, pair.peer.certified())
        assert await told(pair) == []


async def test_the_reporter_reports_what_comes_due_and_repeats_what_was_refused(
    pair: Pair,
) -> None:
    async with running(pair):
        broker = Answering(pair, KNOWN, BOBS.certificate())
        broker.refusals.append(Unavailable("Not now.", retry_after_s=0.01))
        receiving = Receiving(pair.peer)
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(broker.run)
                tasks.start_soon(receiving.report, pair.client)
                await receiving.take(pair.client, [delivery(pair)], [])
                while not broker.reports:
                    await anyio.lowlevel.checkpoint()
                await pair.peer.file.write(lambda sql: openrows.mark_seen(sql, [1], "tool", NOW))
                receiving.reports_are_due()
                while len(broker.reports) < 2:
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        statuses = [item.status for one in broker.reports for item in one.batches[0].items]
        assert statuses == ["delivered", "seen"]


async def test_a_reporter_whose_connection_ends_leaves_what_is_due(pair: Pair) -> None:
    receiving = Receiving(pair.peer)
    async with running(pair):
        broker = Answering(pair, KNOWN, BOBS.certificate())
        await take_with(receiving, pair, broker, delivery(pair))
    with anyio.fail_after(LIMIT_S):
        await receiving.report(pair.client)
    assert await told(pair) == [("delivered", "")]
