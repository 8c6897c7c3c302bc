"""A membership log that no frame holds: offered in parts, counted once whole."""

from dataclasses import replace
from pathlib import Path

import pytest

from claudemesh_broker.admission import Origin
from claudemesh_broker.offered import MAX_PARTS
from claudemesh_broker.reach import Reach
from claudemesh_broker.session import MAX_HELLOS
from claudemesh_wire.errors import MeshError
from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import Device, Mesh, Person
from tests.support.rawpeer import RawPeer, Wish, join

REACH = Reach("https://host.example:7467")
FAR = Origin("203.0.113.7", is_local=False)
ADA = Person("ada")
BARE = Wish(token=None)


@pytest.fixture
def mesh() -> Mesh:
    """A mesh of four members."""
    mesh = Mesh(ADA)
    for name in ("cleo", "dan", "eve"):
        mesh.add(name)
    return mesh


async def caller(broker: MemoryBroker, device: Device) -> RawPeer:
    peer = RawPeer(broker, device, "someone")
    broker.tasks.start_soon(peer.read)
    return peer


async def refusal(peer: RawPeer, wish: Wish) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await peer.hello(wish)
    return caught.value


async def kept(broker: MemoryBroker) -> int:
    [(count,)] = await broker.sql("SELECT count(*) FROM membership")
    return int(count)


async def test_a_log_in_parts_counts_once_it_is_whole(tmp_path: Path, mesh: Mesh) -> None:
    bob = mesh.add("bob")
    async with a_broker(tmp_path / "before", reach=REACH) as broker:
        await join(broker, Device(mesh, ADA, "ada"))
        charter = (await join(broker, Device(mesh, bob, "bob"))).charter
    # Its disk was lost. Bob is in the last part only, and there are more parts than false hellos.
    async with a_broker(tmp_path / "after", reach=REACH) as broker:
        peer = await caller(replace(broker, origin=FAR), Device(mesh, bob, "bob"))
        assert len(mesh.log) > MAX_HELLOS + 1
        for number, entry in enumerate(mesh.log[:-1], 1):
            refused = await refusal(peer, Wish(token=None, charter=charter, log=[entry]))
            assert (refused.code, refused.details) == ("membership_behind", {"head_seq": number})
            assert await kept(broker) == 0
        await peer.hello(Wish(token=None, charter=charter, log=mesh.log[-1:]))
        assert await kept(broker) == len(mesh.log)


async def test_the_lost_end_of_a_log_is_offered_in_parts_by_a_member(
    tmp_path: Path, mesh: Mesh
) -> None:
    async with a_broker(tmp_path, reach=REACH) as broker:
        await join(broker, Device(mesh, ADA, "ada"))
        known = len(mesh.log)
        for name in ("finn", "gil", "hal"):
            mesh.add(name)
        peer = await caller(replace(broker, origin=FAR), Device(mesh, ADA, "laptop"))
        for number in range(known, len(mesh.log) - 1):
            refused = await refusal(peer, Wish(token=None, log=mesh.log[number : number + 1]))
            assert refused.details == {"head_seq": number + 1}
            assert await kept(broker) == known
        await peer.hello(Wish(token=None, log=mesh.log[-1:]))
        assert await kept(broker) == len(mesh.log)


async def test_nothing_is_kept_of_what_one_offers_for_whom_nobody_vouches(
    tmp_path: Path, mesh: Mesh
) -> None:
    async with a_broker(tmp_path, reach=REACH) as broker:
        await join(broker, Device(mesh, ADA, "ada"))
        known = len(mesh.log)
        newcomer = mesh.add("newcomer")
        mesh.add("another")
        peer = await caller(replace(broker, origin=FAR), Device(mesh, newcomer, "new"))
        first = await refusal(peer, Wish(token=None, log=mesh.log[known:-1]))
        assert (first.code, first.details) == ("membership_behind", {"head_seq": known + 1})
        assert (await refusal(peer, Wish(token=None, log=mesh.log[-1:]))).code == "membership_gap"
        # Whole it is taken: an admin signed it.
        await peer.hello(Wish(token=None, log=mesh.log[known:]))
        assert await kept(broker) == len(mesh.log)


async def test_a_log_is_not_offered_for_ever(tmp_path: Path) -> None:
    mesh = Mesh(ADA)
    async with a_broker(tmp_path) as broker:
        await join(broker, Device(mesh, ADA, "ada"))
        mesh.add("bob")
        mesh.add("cleo")
        peer = await caller(broker, Device(mesh, ADA, "laptop"))
        for _ in range(MAX_PARTS + MAX_HELLOS):
            assert (await refusal(peer, Wish(log=mesh.log[1:2]))).code == "membership_behind"
        await peer.until(lambda: peer.closed)
