"""Receipts at the broker: what a recipient says is kept, told to the sender, and answered."""

from pathlib import Path

import pytest

from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Mode
from claudemesh_wire.keys import make_id
from claudemesh_wire.messages import Deliver
from claudemesh_wire.receipts import (
    AskStatus,
    BrokerNews,
    ReceiptNews,
    ReceiptStatus,
    RecipientReceipts,
    Report,
    SignedReceipts,
    are_receipts_signed,
)
from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import NOW, Device, Mesh, Person
from tests.support.rawpeer import RawPeer, Wish, join

DELIVERED, SEEN, WITHHELD, DECLINED = (
    ReceiptStatus.DELIVERED,
    ReceiptStatus.SEEN,
    ReceiptStatus.WITHHELD,
    ReceiptStatus.DECLINED,
)


async def status_of(peer: RawPeer, message: str) -> RecipientReceipts:
    (found,) = (await peer.call(AskStatus(id=message))).recipients
    return found


async def refused(peer: RawPeer, batch: SignedReceipts) -> str:
    with pytest.raises(MeshError) as caught:
        await peer.call(Report(batches=[batch]))
    return caught.value.code


async def test_a_receipt_empties_the_queue_and_reaches_the_sender(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    accepted = await ada.send("bob")
    (delivery,) = await bob.receive(1)
    assert (await bob.ack(delivery)).taken == 1
    await ada.until(lambda: bool(ada.of(ReceiptNews)))
    (news,) = ada.of(ReceiptNews)
    assert [item.id for item in news.batches[0].items] == [accepted.id]
    assert news.certificates == [bob.certificate.blob]
    assert are_receipts_signed(bob.device.mesh.id, news.batches[0], bob.certificate)
    assert await broker.sql("SELECT messages, bytes FROM queues WHERE peer = ?", bob.peer) == [
        (0, 0)
    ]
    assert await broker.sql("SELECT * FROM envelopes") == []
    assert await broker.sql("SELECT slot FROM deliveries") == [(None,)]


async def test_a_recipients_certificate_is_sent_to_the_sender_once(
    ada: RawPeer, bob: RawPeer
) -> None:
    for count in (1, 2):
        await ada.send("bob")
        await bob.ack((await bob.receive(count))[-1])
    await ada.until(lambda: len(ada.of(ReceiptNews)) == 2)
    assert [len(news.certificates) for news in ada.of(ReceiptNews)] == [1, 0]


async def test_a_status_only_moves_forward(ada: RawPeer, bob: RawPeer) -> None:
    accepted = await ada.send("bob")
    (delivery,) = await bob.receive(1)
    steps = [(DELIVERED, 1), (DELIVERED, 0), (SEEN, 1), (DELIVERED, 0), (DECLINED, 0), (SEEN, 0)]
    for status, taken in steps:
        assert (await bob.ack(delivery, status=status)).taken == taken
    found = await status_of(ada, accepted.id)
    assert found.status == SEEN
    assert found.declined is None


async def test_a_declined_message_stays_declined(ada: RawPeer, bob: RawPeer) -> None:
    accepted = await ada.send("bob")
    (delivery,) = await bob.receive(1)
    assert (await bob.ack(delivery, status=DECLINED)).taken == 1
    assert (await bob.ack(delivery, status=SEEN)).taken == 0
    assert (await status_of(ada, accepted.id)).status == DECLINED


async def test_what_was_withheld_may_turn_out_to_have_been_seen_and_nothing_else(
    ada: RawPeer, bob: RawPeer
) -> None:
    accepted = await ada.send("bob")
    (delivery,) = await bob.receive(1)
    steps = [(DELIVERED, 1), (WITHHELD, 1), (WITHHELD, 0), (DELIVERED, 0), (DECLINED, 0)]
    for status, taken in steps:
        assert (await bob.ack(delivery, status=status)).taken == taken
    found = await status_of(ada, accepted.id)
    assert (found.status, found.declined) == (WITHHELD, None)
    assert found.withheld is not None
    assert (await bob.ack(delivery, status=SEEN)).taken == 1
    found = await status_of(ada, accepted.id)
    assert found.status == SEEN
    assert found.withheld is not None


async def test_what_is_withheld_has_left_the_queue(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await ada.send("bob")
    await bob.ack(*await bob.receive(1), status=WITHHELD)
    assert await broker.sql("SELECT messages FROM queues WHERE peer = ?", bob.peer) == [(0,)]
    assert await broker.sql("SELECT * FROM envelopes") == []


async def test_seen_may_come_without_delivered(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    accepted = await ada.send("bob")
    assert (await bob.ack(*await bob.receive(1), status=SEEN)).taken == 1
    found = await status_of(ada, accepted.id)
    assert (found.status, found.delivered) == (SEEN, None)
    assert found.seen is not None
    assert await broker.sql("SELECT pending FROM messages") == [(0,)]


async def test_both_receipts_may_come_in_one_report(ada: RawPeer, bob: RawPeer) -> None:
    accepted = await ada.send("bob")
    got = await bob.receive(1)
    batches = [bob.receipts(got), bob.receipts(got, SEEN)]
    assert (await bob.call(Report(batches=batches))).taken == 2
    found = await status_of(ada, accepted.id)
    assert found.delivered == batches[0]
    assert found.seen == batches[1]


async def test_one_signature_over_many_messages_is_kept_once(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    sent = [(await ada.send("bob")).id for _ in range(3)]
    batch = bob.receipts(await bob.receive(3))
    assert (await bob.call(Report(batches=[batch]))).taken == 3
    assert await broker.sql("SELECT count(*) FROM receipts") == [(1,)]
    assert [(await status_of(ada, one)).delivered for one in sent] == [batch] * 3
    assert (await bob.call(Report(batches=[batch]))).taken == 0
    assert await broker.sql("SELECT count(*) FROM receipts") == [(1,)]


async def test_a_message_of_two_readers_keeps_its_body_until_both_have_it(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    carol = await join(broker, Device(ada.device.mesh, ada.device.owner, "carol"))
    await ada.send("bob", "carol")
    await bob.ack(*await bob.receive(1))
    assert len(await broker.sql("SELECT * FROM envelopes")) == 1
    await carol.ack(*await carol.receive(1))
    assert await broker.sql("SELECT * FROM envelopes") == []


async def test_a_receipt_for_what_one_did_not_get_counts_nothing(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    carol = await join(broker, Device(ada.device.mesh, ada.device.owner, "carol"))
    await ada.send("bob")
    stolen = await bob.receive(1)
    assert (await carol.call(Report(batches=[carol.receipts(stolen)]))).taken == 0
    wrong = bob.receipts(stolen)
    item = wrong.items[0].model_copy(update={"header_hash": bytes(32)})
    other = wrong.model_copy(update={"items": [item]})
    assert (await bob.call(Report(batches=[other]))).taken == 0
    unknown = wrong.items[0].model_copy(update={"id": make_id("msg_", bytes(16))})
    other = wrong.model_copy(update={"items": [unknown]})
    assert (await bob.call(Report(batches=[other]))).taken == 0
    assert await broker.sql("SELECT * FROM receipts") == []


async def test_only_the_recipient_gives_receipts(ada: RawPeer, bob: RawPeer) -> None:
    await ada.send("bob")
    batch = bob.receipts(await bob.receive(1))
    assert await refused(ada, batch) == "wrong_recipient"


async def test_a_recipient_does_not_speak_for_the_broker(ada: RawPeer, bob: RawPeer) -> None:
    await ada.send("bob")
    batch = bob.receipts(await bob.receive(1), ReceiptStatus.EXPIRED)
    assert await refused(bob, batch) == "malformed"


async def test_a_receipt_names_a_certificate_of_its_own(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await ada.send("bob")
    batch = bob.receipts(await bob.receive(1))
    for name in (bytes(32), ada.certificate.hash):
        named = batch.model_copy(update={"certificate": name})
        assert await refused(bob, named) == "unknown_certificate"
    assert await broker.sql("SELECT status FROM deliveries") == [("queued",)]


async def test_all_of_a_report_is_taken_or_nothing(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await ada.send("bob")
    batch = bob.receipts(await bob.receive(1))
    wrong = batch.model_copy(update={"certificate": bytes(32)})
    with pytest.raises(MeshError):
        await bob.call(Report(batches=[batch, wrong]))
    assert await broker.sql("SELECT status FROM deliveries") == [("queued",)]


async def test_receipts_wait_in_the_store_for_a_sender_who_is_away(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    accepted = await ada.send("bob")
    await bob.receive(1)
    await ada.leave()
    batch = bob.receipts(bob.delivered())
    await bob.call(Report(batches=[batch]))
    back = await join(broker, ada.device)
    answer = await back.call(AskStatus(id=accepted.id))
    assert answer.recipients[0].delivered == batch
    assert answer.certificates == [bob.certificate.blob]


async def test_a_status_tells_accepted_from_queued(ada: RawPeer, bob: RawPeer) -> None:
    here = await ada.send("bob")
    found = await status_of(ada, here.id)
    assert (found.status, found.accepted_ms, found.queued_ms) == ("accepted", NOW, None)
    await bob.leave()
    found = await status_of(ada, here.id)
    assert (found.status, found.queued_ms) == ("queued", NOW + 1)
    away = await ada.send("bob")
    found = await status_of(ada, away.id)
    assert (found.status, found.queued_ms, found.handle) == ("queued", NOW, "bob")


async def test_only_the_sender_may_ask(ada: RawPeer, bob: RawPeer) -> None:
    accepted = await ada.send("bob")
    assert (await bob.refused(AskStatus(id=accepted.id))).code == "unknown_message"


async def test_an_expired_message_tells_its_sender(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.leave()
    accepted = await ada.send("bob", exp=NOW + 60_000)
    broker.clock.pass_ms(59_999)
    await broker.run_due()
    assert ada.of(BrokerNews) == []
    broker.clock.pass_ms(1)
    await broker.run_due()
    await ada.until(lambda: bool(ada.of(BrokerNews)))
    (news,) = ada.of(BrokerNews)
    assert (news.id, news.recipient, news.status) == (accepted.id, bob.peer, "expired")
    found = await status_of(ada, accepted.id)
    assert (found.status, found.expired_ms) == ("expired", NOW + 60_000)
    assert (await join(broker, bob.device)).facts.queued == 0
    assert await broker.sql("SELECT * FROM envelopes") == []


async def test_a_signed_word_outweighs_that_it_expired(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    accepted = await ada.send("bob", exp=NOW + 60_000)
    got = await bob.receive(1)
    broker.clock.pass_ms(60_000)
    await broker.run_due()
    assert (await bob.call(Report(batches=[bob.receipts(got)]))).taken == 1
    found = await status_of(ada, accepted.id)
    assert found.status == DELIVERED
    assert await broker.sql("SELECT messages FROM queues WHERE peer = ?", bob.peer) == [(0,)]


async def test_the_soonest_of_many_expires_first(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.leave()
    for lives_ms in (3000, 1000, 2000):
        await ada.send("bob", exp=NOW + lives_ms)
    for expired in range(1, 4):
        broker.clock.pass_ms(1000)
        await broker.run_due()
        gone = await broker.sql("SELECT count(*) FROM deliveries WHERE status = 'expired'")
        assert gone == [(expired,)]


async def test_a_message_is_remembered_for_a_day_after_it_expired(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.leave()
    accepted = await ada.send("bob", exp=NOW + 60_000)
    for _ in range(25):
        assert (await status_of(ada, accepted.id)).status
        broker.clock.pass_ms(3600 * 1000)
        await broker.run_due()
    for table in ("messages", "deliveries"):
        assert await broker.sql(f"SELECT * FROM {table}") == []  # noqa: S608 - ours
    assert (await ada.refused(AskStatus(id=accepted.id))).code == "unknown_message"


async def test_proofs_that_fit_into_no_frame_are_left_out(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.leave()
    accepted = await ada.send("bob")
    blob = bob_receipts_of_size(bob, accepted.id, 700_000)

    def put(sql: object) -> None:
        run = sql.execute  # type: ignore[attr-defined]
        run("INSERT INTO receipts (mesh, peer, made_ms, blob) VALUES ('', '', 0, ?)", blob)
        run("UPDATE deliveries SET status = 'seen', seen_receipt = 1")

    await broker.parts.store.write(put)
    found = await status_of(ada, accepted.id)
    assert (found.status, found.seen) == (SEEN, None)


def bob_receipts_of_size(bob: RawPeer, message: str, size: int) -> bytes:
    batch = {
        "sender": bob.peer,
        "recipient": bob.peer,
        "certificate": "A" * 44,
        "signature": "A" * size,
        "items": [{"id": message, "header_hash": "A" * 43 + "=", "status": "seen", "at_ms": 1}],
    }
    return SignedReceipts.model_validate(batch).model_dump_json().encode()


async def test_a_report_over_a_call_frees_the_attached_connections_credit(
    tmp_path: Path,
) -> None:
    async with a_broker(tmp_path, window_messages=1) as broker:
        mesh = Mesh(Person("ada"))
        ada = await join(broker, Device(mesh, mesh.founder, "ada"))
        bob = await join(broker, Device(mesh, mesh.founder, "bob"))
        call = await join(broker, bob.device, "bob", Wish(mode=Mode.CALL))
        for _ in range(3):
            await ada.send("bob")
        for count in range(1, 4):
            got = await bob.receive(count)
            assert len(got) == count
            assert (await call.ack(got[-1])).taken == 1
        assert all(len(notice.deliveries) == 1 for notice in bob.of(Deliver))
