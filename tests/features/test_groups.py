"""Groups at the broker: entering, leaving, who is in."""

from claudemesh_wire.groups import JoinGroup, LeaveGroup
from claudemesh_wire.handshake import Mode
from claudemesh_wire.presence import PresenceChanged
from tests.support.broker import MemoryBroker
from tests.support.people import Device
from tests.support.rawpeer import RawPeer, Wish, join


async def test_entering_tells_the_groups_one_is_in(ada: RawPeer) -> None:
    mine = await ada.call(JoinGroup(group="ops", role="lead"))
    assert [(one.name, one.role) for one in mine.groups] == [("ops", "lead")]
    assert (mine.changed, mine.members) == (True, 1)


async def test_entering_again_changes_the_role_or_nothing(ada: RawPeer) -> None:
    await ada.call(JoinGroup(group="ops"))
    assert not (await ada.call(JoinGroup(group="ops"))).changed
    mine = await ada.call(JoinGroup(group="ops", role="lead"))
    assert (mine.changed, mine.groups[0].role, mine.members) == (True, "lead", 1)


async def test_leaving_ends_it_and_leaving_twice_is_not_found(
    broker: MemoryBroker, ada: RawPeer
) -> None:
    bob = await join(broker, Device(ada.device.mesh, ada.device.owner, "bob"))
    await ada.call(JoinGroup(group="ops"))
    assert (await bob.call(JoinGroup(group="ops"))).members == 2
    mine = await ada.call(LeaveGroup(group="ops"))
    assert (mine.groups, mine.changed, mine.members) == ([], True, 1)
    assert (await ada.refused(LeaveGroup(group="ops"))).code == "not_in_group"


async def test_a_change_is_told_to_the_others(broker: MemoryBroker, ada: RawPeer) -> None:
    bob = await join(broker, Device(ada.device.mesh, ada.device.owner, "bob"))
    await bob.call(JoinGroup(group="ops"))
    await bob.call(JoinGroup(group="ops"))
    await ada.until(lambda: len(ada.of(PresenceChanged)) >= 2)
    await ada.resolve_nobody()
    changes = [(one.change, len(one.card.groups)) for one in ada.of(PresenceChanged)]
    assert changes == [("joined", 0), ("updated", 1)]


async def test_a_peer_that_only_calls_changes_in_silence(
    broker: MemoryBroker, ada: RawPeer
) -> None:
    device = Device(ada.device.mesh, ada.device.owner, "cli")
    cli = await join(broker, device, wish=Wish(mode=Mode.CALL))
    assert (await cli.call(JoinGroup(group="ops"))).changed
    await ada.resolve_nobody()
    assert ada.of(PresenceChanged) == []


async def test_a_peer_is_in_64_groups_at_most(ada: RawPeer) -> None:
    for number in range(64):
        await ada.call(JoinGroup(group=f"g{number}"))
    assert (await ada.refused(JoinGroup(group="one-more"))).code == "too_many_groups"
    assert (await ada.call(JoinGroup(group="g0", role="again"))).changed
