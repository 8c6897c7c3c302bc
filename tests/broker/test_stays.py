"""What is counted of a peer, and what others hear when it is back."""

from pathlib import Path

from claudemesh_wire.handshake import Mode
from claudemesh_wire.messages import Delivery
from claudemesh_wire.presence import Depart, PresenceChanged, Stats
from claudemesh_wire.receipts import ReceiptStatus
from claudemesh_wire.search import SearchPeers
from claudemesh_wire.succession import FetchInheritance
from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import NOW, Device, Mesh
from tests.support.rawpeer import RawPeer, Wish, join

LEASE_MS = 90_000
HOUR = 3600 * 1000


async def stats(asker: RawPeer, of: RawPeer) -> Stats:
    (card,) = (await asker.call(SearchPeers(query=of.peer))).peers
    return card.stats


async def test_messages_are_counted_at_once_and_outlast_the_connection(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    for _ in range(3):
        await ada.send("bob")
    first, second, third = await bob.receive(3)
    await bob.ack(first, second)
    await bob.ack(first, second)
    await bob.ack(second, status=ReceiptStatus.SEEN)
    await bob.ack(third, status=ReceiptStatus.DECLINED)
    for _ in range(2):
        assert (await stats(ada, ada)).sent == 3
        assert (await stats(ada, bob)).received == 2
        await bob.leave()
    await ada.leave()
    eve = await join(broker, Device(ada.device.mesh, ada.device.owner, "eve"))
    assert (await stats(eve, ada)).sent == 3
    assert (await stats(eve, bob)).received == 2


async def test_a_repeated_send_counts_once(ada: RawPeer, bob: RawPeer) -> None:
    assert bob
    sealed = await ada.seal(await ada.resolve("bob"))
    await ada.call(sealed)
    await ada.call(sealed)
    assert (await stats(ada, ada)).sent == 1


async def test_what_a_call_sends_counts(broker: MemoryBroker, mesh: Mesh, bob: RawPeer) -> None:
    device = Device(mesh, mesh.founder, "cli")
    cli = await join(broker, device, wish=Wish(mode=Mode.CALL))
    await cli.send("bob")
    await cli.leave()
    told = await stats(bob, cli)
    assert (told.sent, told.sessions) == (1, 0)


async def test_a_message_in_two_queues_of_one_reader_counts_once(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.call(Depart())
    await bob.leave()
    device = Device(bob.device.mesh, bob.device.owner, "next")
    heir = await join(broker, device, "bob")
    await ada.send(bob.peer, heir.peer)
    (own,) = await heir.receive(1)
    assert (await heir.ack(own)).taken == 2
    await ada.send(bob.peer)
    (left,) = (await heir.call(FetchInheritance())).messages
    await heir.ack(Delivery(row=left.row, envelope=left.envelope, queued_ms=left.queued_ms))
    assert (await stats(ada, heir)).received == 2


async def test_what_one_did_that_has_departed_is_its_heirs_though_its_line_is_open(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await ada.send("bob")
    await bob.ack(*await bob.receive(1))
    await bob.send("ada")
    await bob.call(Depart())
    device = Device(bob.device.mesh, bob.device.owner, "next")
    heir = await join(broker, device, "bob")
    await bob.send("ada")
    await bob.leave()
    told = await stats(ada, heir)
    assert (told.sessions, told.sent, told.received) == (2, 2, 1)
    left = await broker.sql("SELECT sent, received FROM peers WHERE peer = ?", bob.peer)
    assert left == [(0, 0)]


async def test_counts_that_the_disk_does_not_take_are_written_later(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await ada.send("bob")
    await run(broker, *FILL)
    assert (await ada.refused(Depart())).code == "storage_full"
    await ada.leave()
    await run(broker, *CLEAR)
    assert (await stats(bob, ada)).sent == 1
    again = await join(broker, ada.device)
    await again.leave()
    assert await broker.sql("SELECT sent FROM peers WHERE peer = ?", ada.peer) == [(1,)]


async def test_counts_outlast_a_departure_that_fails_by_a_mistake(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await ada.send("bob")
    await run(broker, BREAK)
    assert (await ada.refused(Depart())).code == "internal"
    await run(broker, "DROP TRIGGER mistake")
    assert (await stats(bob, ada)).sent == 1
    await ada.call(Depart())
    assert await broker.sql("SELECT sent FROM peers WHERE peer = ?", ada.peer) == [(1,)]


BREAK = "CREATE TRIGGER mistake BEFORE UPDATE ON peers BEGIN SELECT RAISE(ABORT, 'on purpose'); END"
FILL = (
    "CREATE TABLE ballast (bytes)",
    "CREATE TRIGGER f AFTER UPDATE ON peers BEGIN INSERT INTO ballast VALUES (zeroblob(9999)); END",
    "PRAGMA max_page_count = 1",
)
"""Whoever writes down counts finds the disk full."""
CLEAR = ("PRAGMA max_page_count = 1000000", "DROP TRIGGER f")


async def run(broker: MemoryBroker, *statements: str) -> None:
    for statement in statements:
        await broker.parts.store.write(lambda sql, one=statement: sql.execute(one))


async def test_a_stay_lasts_from_attach_to_the_end_of_the_socket(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    broker.clock.pass_ms(HOUR)
    assert await stats(bob, ada) == Stats(sessions=1, online_ms=HOUR)
    await ada.leave()
    broker.clock.pass_ms(LEASE_MS - 1)
    ada = await join(broker, ada.device)
    broker.clock.pass_ms(HOUR)
    # One stay, though its line was down for a moment.
    assert await stats(bob, ada) == Stats(sessions=1, online_ms=2 * HOUR)
    await ada.call(Depart())
    await ada.leave()
    broker.clock.pass_ms(HOUR)
    ada = await join(broker, ada.device)
    assert await stats(bob, ada) == Stats(sessions=2, online_ms=2 * HOUR)


async def test_a_replaced_connection_counts_until_it_is_replaced(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    broker.clock.pass_ms(HOUR)
    again = await join(broker, ada.device)
    broker.clock.pass_ms(HOUR)
    assert await stats(bob, again) == Stats(sessions=1, online_ms=2 * HOUR)


async def test_a_stay_that_a_killed_broker_left_open_is_not_made_up(
    tmp_path: Path, mesh: Mesh
) -> None:
    device = Device(mesh, mesh.founder, "ada")
    async with a_broker(tmp_path) as broker:
        await join(broker, device)
    async with a_broker(tmp_path) as broker:
        await broker.parts.store.write(
            lambda sql: sql.execute(
                "UPDATE peers SET attached = 1, node = 'local', attached_ms = ?", NOW - HOUR
            )
        )
    async with a_broker(tmp_path) as broker:
        broker.clock.pass_ms(LEASE_MS)
        await broker.run_due()
        ada = await join(broker, device)
        assert (await stats(ada, ada)).online_ms == 0


# Welcome back.


def joined(peer: RawPeer) -> list[tuple[str, int | None]]:
    news = [one for one in peer.of(PresenceChanged) if one.change == "joined"]
    return [(one.card.handle, one.away_since_ms) for one in news]


async def test_others_hear_since_when_one_that_is_back_was_away(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    broker.clock.pass_ms(HOUR)
    await bob.leave()
    broker.clock.pass_ms(LEASE_MS)
    await broker.run_due()
    broker.clock.pass_ms(HOUR)
    back = await join(broker, bob.device)
    assert back.facts.last_seen == NOW + HOUR
    await ada.until(lambda: len(joined(ada)) == 2)
    assert joined(ada) == [("bob", None), ("bob", NOW + HOUR)]


async def test_the_first_attach_of_a_peer_that_only_called_is_no_return(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    device = Device(mesh, mesh.founder, "cli")
    for _ in range(2):
        call = await join(broker, device, wish=Wish(mode=Mode.CALL))
        await call.leave()
        broker.clock.pass_ms(HOUR)
    await join(broker, device)
    await ada.until(lambda: bool(joined(ada)))
    assert joined(ada) == [("cli", None)]
