"""What becomes of peers that nobody sees for long, and of the handles they had."""

import pytest

from claudemesh_wire.groups import JoinGroup
from claudemesh_wire.meshes import AskMesh
from claudemesh_wire.presence import UpdatePresence
from claudemesh_wire.search import SearchPeers
from tests.support.broker import MemoryBroker
from tests.support.people import DAY, Device, Mesh
from tests.support.rawpeer import ABOUT, RawPeer, Wish, join

HOUR = 3600 * 1000
ELSEWHERE = Wish(about=ABOUT.model_copy(update={"cwd": "/elsewhere"}))


@pytest.fixture
async def ada(broker: MemoryBroker, mesh: Mesh) -> RawPeer:
    """Ada, a member of @ops, who went away."""
    peer = await join(broker, Device(mesh, mesh.founder, "ada"))
    await peer.call(UpdatePresence(profile={"title": "T"}))
    await peer.call(JoinGroup(group="ops", role="lead"))
    await peer.leave()
    return peer


async def days_pass(broker: MemoryBroker, days: int) -> None:
    broker.clock.pass_ms(days * DAY + HOUR)
    await broker.run_due()


async def test_after_30_days_a_peer_is_in_no_list_and_no_audience(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    await days_pass(broker, 30)
    bob = await join(broker, Device(mesh, mesh.add("bob"), "bob"))
    await bob.call(JoinGroup(group="ops"))
    found = await bob.call(SearchPeers())
    assert [card.handle for card in found.peers] == ["bob"]
    assert (await bob.call(AskMesh())).peers == 1
    assert (await bob.call(JoinGroup(group="ops", role="x"))).members == 1
    for address in ("ada", "@ops", "*"):
        assert (await bob.refusal(address)).code == "not_found"
    assert [one.peer for one in (await bob.resolve(ada.peer)).recipients] == [ada.peer]


@pytest.mark.parametrize("days", [30, 100, 179])
async def test_an_archived_peer_comes_back_as_what_it_was(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer, days: int
) -> None:
    await days_pass(broker, 30)
    broker.clock.pass_ms((days - 30) * DAY)
    back = await join(broker, Device(mesh, mesh.founder, "ada", ada.device.sign, ada.device.kem))
    card = (await back.call(UpdatePresence())).card
    assert (card.handle, card.profile) == ("ada", {"title": "T"})
    assert [(group.name, group.role) for group in card.groups] == [("ops", "lead")]
    assert card.stats.sessions == 2
    assert [one.handle for one in (await back.call(SearchPeers())).peers] == ["ada"]


async def test_the_handle_of_an_archived_peer_is_its_members_for_30_days_more(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    assert ada
    await days_pass(broker, 30)
    bob = mesh.add("bob")
    assert (await join(broker, Device(mesh, bob, "b1"), "ada")).handle == "ada-2"
    await days_pass(broker, 29)
    assert (await join(broker, Device(mesh, bob, "b2"), "ada")).handle == "ada-3"
    await days_pass(broker, 1)
    assert (await join(broker, Device(mesh, bob, "b3"), "ada")).handle == "ada"


async def test_after_180_days_nothing_is_left(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    assert ada
    await days_pass(broker, 100)
    await days_pass(broker, 79)
    assert await broker.sql("SELECT count(*) FROM peers") == [(1,)]
    await days_pass(broker, 1)
    for table in ("peers", "groups", "queues", "certificates", "kept_handles"):
        assert await broker.sql(f"SELECT * FROM {table}") == [], table  # noqa: S608
    assert (await join(broker, Device(mesh, mesh.founder, "new"), "ada")).handle == "ada"


async def test_a_handle_that_was_let_go_is_kept_for_its_member(
    broker: MemoryBroker, mesh: Mesh
) -> None:
    first = await join(broker, Device(mesh, mesh.founder, "ada"))
    await first.call(UpdatePresence(handle="eve"))
    bob = mesh.add("bob")
    assert (await join(broker, Device(mesh, bob, "b1"), "ada")).handle == "ada-2"
    own = await join(broker, Device(mesh, mesh.founder, "own"), "ada", ELSEWHERE)
    assert own.handle == "ada"
    await own.call(UpdatePresence(handle="mia"))
    broker.clock.pass_ms(30 * DAY)
    assert (await join(broker, Device(mesh, bob, "b2"), "ada")).handle == "ada"
    # Whoever has it now keeps it: the time is over for the one before.
    assert (await first.call(UpdatePresence(handle="ada"))).card.handle == "ada-3"


async def test_a_member_has_its_latest_former_handles_and_no_more(
    broker: MemoryBroker, mesh: Mesh
) -> None:
    first = await join(broker, Device(mesh, mesh.founder, "ada"), "name-0")
    for number in range(1, 41):
        broker.clock.pass_ms(1)
        await first.call(UpdatePresence(handle=f"name-{number}"))
    kept = await broker.sql("SELECT handle FROM kept_handles")
    assert {row[0] for row in kept} == {f"name-{number}" for number in range(8, 40)}
    bob = mesh.add("bob")
    assert (await join(broker, Device(mesh, bob, "b1"), "name-7")).handle == "name-7"
    assert (await join(broker, Device(mesh, bob, "b2"), "name-8")).handle == "name-8-2"
