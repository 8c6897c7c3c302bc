"""Grants at the broker: kept as they were signed, told to both sides, gone by at accept; blocks."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from claudemesh_broker.features import grants
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import (
    Grant,
    GrantChanged,
    GrantFields,
    ListGrants,
    PutGrant,
    SetBlock,
)
from claudemesh_wire.message import Request, Role
from claudemesh_wire.messages import Accepted
from claudemesh_wire.receipts import AskStatus, BrokerNews, ReceiptStatus, RecipientReceipts
from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import DAY, NOW, Device, Mesh, Person
from tests.support.rawpeer import RawPeer, join


@dataclass
class World:
    """Ada, and bob of another member, both attached."""

    broker: MemoryBroker
    mesh: Mesh
    ada: RawPeer
    bob: RawPeer


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    mesh = Mesh(Person("ada"))
    person = mesh.add("bob")
    async with a_broker(tmp_path) as broker:
        ada = await join(broker, Device(mesh, mesh.founder, "ada"))
        bob = await join(broker, Device(mesh, person, "bob"))
        yield World(broker, mesh, ada, bob)


def granted(by: RawPeer, to: RawPeer, seq: int = 1, /, **said: Any) -> bytes:
    """What the member of one says of the member of another."""
    plain: dict[str, Any] = {
        "mesh": by.device.mesh.id,
        "by": by.device.owner.id,
        "to": to.device.owner.id,
        "seq": seq,
        "at": NOW,
        "allow": [],
        "deny": [],
    }
    signer = said.pop("signer", by.device.owner)
    return Grant.issue(GrantFields(**{**plain, **said}), signer.key).blob


async def code(peer: RawPeer, request: Request[Any]) -> str:
    with pytest.raises(MeshError) as caught:
        await peer.call(request)
    return caught.value.code


async def put(by: RawPeer, to: RawPeer, seq: int = 1, **said: Any) -> bytes:
    blob = granted(by, to, seq, **said)
    assert (await by.call(PutGrant(grant=blob))).seq == seq
    return blob


def states(accepted: Accepted) -> list[str]:
    return [one.status for one in accepted.recipients]


async def told(sender: RawPeer, accepted: Accepted) -> RecipientReceipts:
    [one] = (await sender.call(AskStatus(id=accepted.id))).recipients
    return one


async def test_a_grant_is_found_by_both_sides_as_it_was_signed(world: World) -> None:
    blob = await put(world.ada, world.bob, allow=["task"])
    mine, theirs = await world.ada.call(ListGrants()), await world.bob.call(ListGrants())
    assert (mine.made, mine.given, mine.more) == ([blob], [], False)
    assert (theirs.made, theirs.given) == ([], [blob])


async def test_the_latest_grant_is_the_whole_of_what_holds(world: World) -> None:
    await put(world.ada, world.bob, allow=["task"])
    later = await put(world.ada, world.bob, 4, allow=["tool"])
    assert (await world.ada.call(ListGrants())).made == [later]


@pytest.mark.parametrize("seq", [2, 1])
async def test_a_grant_that_is_not_later_has_moved(world: World, seq: int) -> None:
    kept = await put(world.ada, world.bob, 2, allow=["task"])
    with pytest.raises(MeshError) as caught:
        await world.ada.call(PutGrant(grant=granted(world.ada, world.bob, seq)))
    assert (caught.value.code, caught.value.details) == ("grant_moved", {"seq": 2})
    assert (await world.ada.call(ListGrants())).made == [kept]


async def test_grants_can_be_asked_for_one_member(world: World) -> None:
    carol = await join(world.broker, Device(world.mesh, world.mesh.add("carol"), "carol"))
    await put(world.ada, world.bob)
    blob = await put(world.ada, carol)
    member = carol.device.owner.id
    assert (await world.ada.call(ListGrants(member=member))).made == [blob]


async def test_a_change_is_told_to_the_peers_of_both_and_to_nobody_else(world: World) -> None:
    carol = await join(world.broker, Device(world.mesh, world.mesh.add("carol"), "carol"))
    await put(world.ada, world.bob)
    for peer in (world.ada, world.bob):
        await peer.until(lambda peer=peer: bool(peer.of(GrantChanged)))
        [news] = peer.of(GrantChanged)
        assert (news.by, news.to) == (world.ada.device.owner.id, world.bob.device.owner.id)
    await carol.resolve_nobody()
    assert carol.of(GrantChanged) == []


async def test_what_another_signed_is_no_grant(world: World) -> None:
    ada, bob = world.ada, world.bob
    forged = granted(ada, bob, signer=bob.device.owner)
    assert await code(ada, PutGrant(grant=forged)) == "grant_forged"
    assert await code(ada, PutGrant(grant=granted(bob, ada))) == "wrong_member"
    other = Mesh(ada.device.owner).id
    assert await code(ada, PutGrant(grant=granted(ada, bob, mesh=other))) == "wrong_mesh"
    assert await code(ada, PutGrant(grant=b"junk" * 30)) == "malformed"
    assert (await ada.call(ListGrants())).made == []


@pytest.mark.parametrize(("who", "expected"), [("ada", "self"), ("nobody", "unknown_member")])
async def test_neither_oneself_nor_a_stranger_is_granted_or_blocked(
    world: World, who: str, expected: str
) -> None:
    ada = world.ada
    member = ada.device.owner.id if who == "ada" else Person(who).id
    blob = granted(ada, world.bob, to=member)
    assert await code(ada, PutGrant(grant=blob)) == expected
    assert await code(ada, SetBlock(member=member, blocked=True)) == expected


async def test_a_message_without_a_grant_is_held_and_handed_over(world: World) -> None:
    ada, bob = world.ada, world.bob
    await put(bob, ada, deny=["message"])
    accepted = await ada.send("bob")
    assert states(accepted) == ["held"]
    [copy] = await bob.receive(1)
    status = await told(ada, accepted)
    assert (status.status, status.held_ms, status.held) == ("held", NOW, None)
    await bob.ack(copy)
    assert (await told(ada, accepted)).status == "delivered"


async def test_a_repeated_send_is_told_again_that_it_is_held(world: World) -> None:
    ada, bob = world.ada, world.bob
    await put(bob, ada, deny=["message"])
    request = await ada.seal(await ada.resolve("bob"))
    first = await ada.call(request)
    await bob.ack(*await bob.receive(1))
    assert await ada.call(request) == first
    assert states(first) == ["held"]


async def test_one_of_several_recipients_may_hold(world: World) -> None:
    await join(world.broker, Device(world.mesh, world.mesh.add("carol"), "carol"))
    await put(world.bob, world.ada, deny=["message"])
    accepted = await world.ada.send("bob", "carol")
    assert sorted(states(accepted)) == ["accepted", "held"]


async def test_a_grant_that_names_something_unknown_is_kept_and_lets_messages_through(
    world: World,
) -> None:
    await put(world.bob, world.ada, allow=["provide:build"], deny=["fly"])
    assert states(await world.ada.send("bob")) == ["accepted"]


async def test_a_signed_held_empties_the_queue_and_a_release_follows_it(world: World) -> None:
    ada, bob = world.ada, world.bob
    accepted = await ada.send("bob")
    [copy] = await bob.receive(1)
    assert (await bob.ack(copy, status=ReceiptStatus.HELD)).taken == 1
    assert await world.broker.sql("SELECT messages, bytes FROM queues") == [(0, 0)]
    status = await told(ada, accepted)
    assert (status.status, status.held_ms) == ("held", None)
    assert status.held is not None
    assert (await bob.ack(copy, status=ReceiptStatus.HELD)).taken == 0
    assert (await bob.ack(copy)).taken == 1
    assert (await bob.ack(copy, status=ReceiptStatus.HELD)).taken == 0
    assert (await bob.ack(copy, status=ReceiptStatus.SEEN)).taken == 1
    assert (await told(ada, accepted)).status == "seen"


async def test_what_was_delivered_before_it_was_held_back_does_not_release_it(
    world: World,
) -> None:
    ada, bob, clock = world.ada, world.bob, world.broker.clock
    accepted = await ada.send("bob")
    [copy] = await bob.receive(1)
    assert (await bob.ack(copy)).taken == 1
    clock.pass_ms(2)
    assert (await bob.ack(copy, status=ReceiptStatus.HELD)).taken == 1
    # What another process had said before, and says again since it heard no answer.
    clock.now_ms -= 2
    assert (await bob.ack(copy)).taken == 0
    assert (await told(ada, accepted)).status == "held"
    clock.pass_ms(3)
    assert (await bob.ack(copy)).taken == 1
    assert (await told(ada, accepted)).status == "delivered"


async def test_what_its_recipient_holds_does_not_expire_at_the_broker(world: World) -> None:
    ada, bob = world.ada, world.bob
    accepted = await ada.send("bob")
    await bob.ack(*await bob.receive(1), status=ReceiptStatus.HELD)
    world.broker.clock.pass_ms(2 * DAY)
    await world.broker.run_due()
    assert (await told(ada, accepted)).status == "held"
    await ada.resolve_nobody()
    assert ada.of(BrokerNews) == []


async def test_what_the_broker_holds_for_an_absent_reader_expires(world: World) -> None:
    ada, bob = world.ada, world.bob
    await put(bob, ada, deny=["message"])
    await bob.leave()
    accepted = await ada.send("bob")
    assert states(accepted) == ["held"]
    world.broker.clock.pass_ms(2 * DAY)
    await world.broker.run_due()
    assert (await told(ada, accepted)).status == "expired"


async def test_a_demoted_member_that_was_let_in_sends_nothing(world: World) -> None:
    person = world.mesh.add("olga", Role.OBSERVER)
    olga = await join(world.broker, Device(world.mesh, person, "olga"))
    await put(world.ada, olga, allow=["message"])
    with pytest.raises(MeshError) as caught:
        await olga.resolve("ada")
    assert caught.value.code == "role"


async def test_one_blocks_other_members_of_the_mesh(world: World) -> None:
    ada, member = world.ada, world.bob.device.owner.id
    assert (await ada.call(SetBlock(member=member, blocked=True))).blocked == [member]
    assert (await ada.call(SetBlock(member=member, blocked=True))).blocked == [member]
    assert (await ada.call(ListGrants())).blocked == [member]
    with pytest.raises(MeshError) as caught:
        await world.bob.resolve("ada")
    assert caught.value.code == "blocked"
    assert (await ada.call(SetBlock(member=member, blocked=False))).blocked == []
    assert await world.bob.resolve("ada")


async def test_a_block_beats_a_grant(world: World) -> None:
    ada, bob = world.ada, world.bob
    resolved = await bob.resolve("ada")
    await put(ada, bob, allow=["message", "wake"])
    await ada.call(SetBlock(member=bob.device.owner.id, blocked=True))
    assert states(await bob.call(await bob.seal(resolved))) == ["declined"]


async def test_a_member_says_something_of_so_many_others_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "MAX_KEPT", 1)
    cleo = await join(world.broker, Device(world.mesh, world.mesh.add("cleo"), "cleo"))
    await put(world.ada, world.bob, 1)
    await put(world.ada, world.bob, 2)
    assert await code(world.ada, PutGrant(grant=granted(world.ada, cleo))) == "too_many_said"
    await put(cleo, world.bob)
    owners = [world.bob.device.owner.id, cleo.device.owner.id]
    for _ in range(2):
        await world.ada.call(SetBlock(member=owners[0], blocked=True))
    assert await code(world.ada, SetBlock(member=owners[1], blocked=True)) == "too_many_said"
    await world.ada.call(SetBlock(member=owners[0], blocked=False))
    found = await world.ada.call(SetBlock(member=owners[1], blocked=True))
    assert found.blocked == [owners[1]]
