"""The door of a broker that other machines reach: who may make a mesh there, who may come back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claudemesh_broker.admission import Origin
from claudemesh_broker.reach import Reach
from claudemesh_wire.errors import MeshError
from claudemesh_wire.meshes import AppendEntry, EndMesh, LogGrew, Return
from claudemesh_wire.message import Role
from tests.support.broker import ADMIN_SECRET, LOCAL, MemoryBroker, a_broker
from tests.support.people import NOW, Device, Mesh, Person
from tests.support.rawpeer import RawPeer, Wish, join

REACH = Reach("https://host.example:7467")
FAR = Origin("203.0.113.7", is_local=False)
MINUTE = 60_000
HOUR = 60 * MINUTE
ADA = Person("ada")
BARE = Wish(token=None)


@pytest.fixture
def mesh() -> Mesh:
    return Mesh(ADA)


def far(broker: MemoryBroker) -> MemoryBroker:
    """The same broker, as another machine reaches it."""
    return replace(broker, origin=FAR)


async def refusal(broker: MemoryBroker, device: Device, wish: Wish = BARE) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await join(broker, device, wish=wish)
    return caught.value


async def code_of(asked: Any) -> str:
    with pytest.raises(MeshError) as caught:
        await asked
    return caught.value.code


async def test_a_member_from_another_machine_needs_no_local_token(
    tmp_path: Path, mesh: Mesh
) -> None:
    async with a_broker(tmp_path, reach=REACH) as broker:
        await join(broker, Device(mesh, ADA, "ada"))
        there = await join(far(broker), Device(mesh, ADA, "laptop"), wish=BARE)
        assert there.handle == "laptop"


async def test_a_wrong_token_is_refused_all_the_same(tmp_path: Path, mesh: Mesh) -> None:
    async with a_broker(tmp_path, reach=REACH) as broker:
        wrong = await refusal(broker, Device(mesh, ADA, "ada"), Wish(token=bytes(32)))
        assert wrong.code == "bad_token"


async def test_a_broker_on_loopback_alone_demands_the_token(tmp_path: Path, mesh: Mesh) -> None:
    async with a_broker(tmp_path) as broker:
        assert (await refusal(broker, Device(mesh, ADA, "ada"))).code == "bad_token"


@pytest.mark.parametrize("origin", [FAR, LOCAL], ids=["as by a proxy", "directly"])
async def test_a_mesh_is_made_from_the_brokers_own_home(
    tmp_path: Path, mesh: Mesh, origin: Origin
) -> None:
    async with a_broker(tmp_path, reach=REACH) as broker:
        ada = await join(replace(broker, origin=origin), Device(mesh, ADA, "ada"))
        assert ada.handle == "ada"


@pytest.mark.parametrize("origin", [FAR, LOCAL], ids=["elsewhere", "a forwarder of its machine"])
async def test_a_stranger_makes_no_mesh(tmp_path: Path, mesh: Mesh, origin: Origin) -> None:
    async with a_broker(tmp_path, reach=REACH) as broker:
        refused = await refusal(replace(broker, origin=origin), Device(mesh, ADA, "ada"))
        assert refused.code == "may_not_found"
        assert await broker.sql("SELECT count(*) FROM meshes") == [(0,)]


async def test_the_admin_secret_makes_a_mesh_from_anywhere(tmp_path: Path, mesh: Mesh) -> None:
    async with a_broker(tmp_path, reach=REACH) as broker:
        device = Device(mesh, ADA, "ada")
        wish = Wish(token=None, admin_secret=ADMIN_SECRET)
        assert (await join(far(broker), device, wish=wish)).handle == "ada"


async def test_a_wrong_admin_secret_is_told(tmp_path: Path, mesh: Mesh) -> None:
    async with a_broker(tmp_path, reach=REACH) as broker:
        wish = Wish(token=None, admin_secret=bytes(32))
        refused = await refusal(far(broker), Device(mesh, ADA, "ada"), wish)
        assert refused.code == "bad_admin_secret"


async def test_a_log_that_was_lost_is_offered_again_by_any_member(
    tmp_path: Path, mesh: Mesh
) -> None:
    bob = mesh.add("bob")
    async with a_broker(tmp_path / "before", reach=REACH) as broker:
        await join(broker, Device(mesh, ADA, "ada"))
        peer = await join(far(broker), Device(mesh, bob, "bob"), wish=BARE)
        charter = peer.charter
    # The disk is gone; the broker's key was kept elsewhere.
    async with a_broker(tmp_path / "after", reach=REACH) as broker:
        device = Device(mesh, bob, "bob")
        assert (await refusal(far(broker), device)).code == "may_not_found"
        back = await join(far(broker), device, wish=Wish(token=None, charter=charter))
        assert back.handle == "bob"
        assert (await refusal(far(broker), Device(Mesh(ADA), ADA, "x"))).code == "may_not_found"


async def test_the_charter_of_one_mesh_is_none_for_another(tmp_path: Path, mesh: Mesh) -> None:
    async with a_broker(tmp_path, reach=REACH) as broker:
        peer = await join(broker, Device(mesh, ADA, "ada"))
        wish = Wish(token=None, charter=peer.charter)
        assert (await refusal(far(broker), Device(Mesh(ADA), ADA, "x"), wish)).code == (
            "may_not_found"
        )


async def removed(broker: MemoryBroker, mesh: Mesh, who: Person, until: int | None) -> RawPeer:
    """Remove a member; gives the founder's peer."""
    ada = await join(broker, Device(mesh, ADA, "ada"))
    entry = mesh.say(ADA, "remove", member=who.id, expires=until)
    await ada.call(AppendEntry(entry=entry))
    return ada


async def test_a_kicked_member_is_told_when_it_may_return_and_what_it_missed(
    tmp_path: Path, mesh: Mesh
) -> None:
    bob = mesh.add("bob")
    async with a_broker(tmp_path) as broker:
        await removed(broker, mesh, bob, NOW + HOUR)
        refused = await refusal(broker, Device(mesh, bob, "bob"), Wish())
        assert refused.code == "member_removed"
        assert refused.details["returns_ms"] == NOW + HOUR


async def test_a_kicked_member_returns_when_its_time_is_over(tmp_path: Path, mesh: Mesh) -> None:
    bob = mesh.add("bob")
    async with a_broker(tmp_path) as broker:
        await removed(broker, mesh, bob, NOW + HOUR)
        device = Device(mesh, bob, "bob")
        early = mesh.entry(bob, "return", at=NOW + HOUR)
        assert await code_of(await stranger(broker, device, Return(entry=early))) == "clock"
        broker.clock.pass_ms(HOUR)
        entry = mesh.entry(bob, "return", at=NOW + HOUR)
        mesh.log += (await (await stranger(broker, device, Return(entry=entry)))).entries
        assert (await join(broker, device)).handle == "bob"


async def stranger(broker: MemoryBroker, device: Device, request: Any) -> Any:
    """Ask something before the hello; gives what waits for the answer."""
    peer = RawPeer(broker, device, device.anchor)
    broker.tasks.start_soon(peer.read)
    await peer.until(lambda: bool(peer.notices))
    return peer.call(request)


async def test_a_banned_member_does_not_return(tmp_path: Path, mesh: Mesh) -> None:
    bob = mesh.add("bob")
    async with a_broker(tmp_path) as broker:
        await removed(broker, mesh, bob, None)
        refused = await refusal(broker, Device(mesh, bob, "bob"), Wish())
        assert (refused.code, refused.details) == ("member_removed", {})
        entry = mesh.entry(bob, "return")
        asked = await stranger(broker, Device(mesh, bob, "bob"), Return(entry=entry))
        assert await code_of(asked) == "membership_forbidden"


async def test_an_entry_of_another_time_is_not_appended(tmp_path: Path, mesh: Mesh) -> None:
    async with a_broker(tmp_path) as broker:
        ada = await join(broker, Device(mesh, ADA, "ada"))
        for at in (NOW - 6 * MINUTE, NOW + 6 * MINUTE):
            entry = mesh.entry(ADA, "rename", mesh_name="shop", at=at)
            assert await code_of(ada.call(AppendEntry(entry=entry))) == "clock"


async def test_an_owner_ends_a_mesh_and_the_broker_forgets_it(tmp_path: Path, mesh: Mesh) -> None:
    bob = mesh.add("bob")
    async with a_broker(tmp_path) as broker:
        ada = await join(broker, Device(mesh, ADA, "ada"))
        peer = await join(broker, Device(mesh, bob, "bob"))
        await ada.send("bob")
        entry = mesh.entry(ADA, "end")
        await ada.call(EndMesh(entry=entry))
        await peer.until(lambda: peer.closed)
        assert peer.of(LogGrew)[-1].entries == [entry]
        for table in ("peers", "messages", "deliveries", "envelopes", "membership", "meshes"):
            assert await broker.sql(f"SELECT count(*) FROM {table}") == [(0,)], table  # noqa: S608
        assert (await refusal(broker, Device(mesh, ADA, "ada"), Wish())).code == "mesh_ended"


async def test_a_mesh_is_ended_by_an_owners_entry_alone(tmp_path: Path, mesh: Mesh) -> None:
    dan = mesh.add("dan", Role.OWNER)
    async with a_broker(tmp_path) as broker:
        ada = await join(broker, Device(mesh, ADA, "ada"))
        entry = mesh.entry(ADA, "rename", mesh_name="shop")
        assert await code_of(ada.call(EndMesh(entry=entry))) == "wrong_entry"
        entry = mesh.entry(ADA, "end")
        assert await code_of(ada.call(AppendEntry(entry=entry))) == "wrong_entry"
        mesh.say(ADA, "role", member=dan.id, role="admin")
        await ada.call(AppendEntry(entry=mesh.log[-1]))
        entry = mesh.entry(dan, "end")
        assert await code_of(ada.call(EndMesh(entry=entry))) == "membership_forbidden"
