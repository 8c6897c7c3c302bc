"""Who is meant by an address: one, many, nobody, and how that is told."""

from dataclasses import replace
from typing import Any

import pytest

from claudemesh_wire.address import direct_conversation
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.grants import SetBlock
from claudemesh_wire.groups import JoinGroup
from claudemesh_wire.keys import anchor_digest, make_id, peer_id
from claudemesh_wire.membership import Custody
from claudemesh_wire.messages import Accepted
from claudemesh_wire.search import SearchPeers
from tests.support.broker import MemoryBroker
from tests.support.people import DAY, NOW, Device, Mesh
from tests.support.rawpeer import RawPeer, Wish, join

MINUTE = 60_000
ID = make_id("msg_", bytes(16))


def statuses(accepted: Accepted) -> list[str]:
    return [one.status for one in accepted.recipients]


async def test_a_handle_and_the_beginning_of_an_id_mean_one_peer(
    ada: RawPeer, bob: RawPeer
) -> None:
    for address in ("bob", "ada/bob", f"{bob.device.owner.id}/bob", bob.peer, bob.peer[:8]):
        resolved = await ada.resolve(address)
        assert [one.peer for one in resolved.recipients] == [bob.peer]
        assert resolved.conversation == direct_conversation([ada.peer, bob.peer])
        certificate = Certificate.parse(resolved.recipients[0].certificate)
        assert certificate.fields.handle == "bob"


async def test_a_list_means_each_peer_once(ada: RawPeer, bob: RawPeer) -> None:
    resolved = await ada.resolve("bob", bob.peer, "bob")
    assert [one.peer for one in resolved.recipients] == [bob.peer]


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("carol", "not_found"),
        ("p_aaaaaa", "not_found"),
        ("@ops", "not_found"),
        ("eve/bob", "not_found"),
        ("ada", "invalid"),
        ("#news", "unsupported"),
        ("b o b", "bad_address"),
    ],
)
async def test_an_address_that_means_nobody_resolves_nothing_at_all(
    ada: RawPeer, bob: RawPeer, address: str, code: str
) -> None:
    assert bob
    assert (await ada.refusal("bob", address)).code == code


async def test_an_unknown_name_brings_the_near_ones(ada: RawPeer, bob: RawPeer) -> None:
    assert bob
    assert "bob" in (await ada.refusal("bobb")).hint


async def test_everybody_without_anybody_else_is_nobody(ada: RawPeer) -> None:
    assert (await ada.refusal("*")).code == "not_found"


def two_that_begin_alike(of: Device) -> list[Device]:
    """Try anchors on paper until two peers' ids have their first 8 characters in common."""
    mesh, owner = of.mesh.id, of.owner.id
    seen: dict[str, str] = {}
    for number in range(1_000_000):
        anchor = f"n{number}"
        beginning = peer_id(mesh, owner, anchor_digest(anchor))[:8]
        if beginning in seen:
            return [replace(of, anchor=one) for one in (seen[beginning], anchor)]
        seen[beginning] = anchor
    raise AssertionError("no two ids begin alike")


async def test_an_ambiguous_beginning_brings_candidates(broker: MemoryBroker, ada: RawPeer) -> None:
    twins = two_that_begin_alike(ada.device)
    for number, device in enumerate(twins):
        await join(broker, device, f"twin{number}")
    error = await ada.refusal(twins[0].peer[:8])
    assert error.code == "ambiguous"
    candidates = error.details["candidates"]
    assert sorted(one["handle"] for one in candidates) == ["twin0", "twin1"]
    assert set(candidates[0]) == {"peer", "handle", "member", "host", "cwd", "summary"}


async def test_a_group_reaches_those_in_it_but_the_sender(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await join(broker, Device(ada.device.mesh, ada.device.owner, "carol"))
    await ada.call(JoinGroup(group="ops"))
    assert (await ada.refusal("@ops")).code == "not_found"
    await bob.call(JoinGroup(group="ops"))
    resolved = await ada.resolve("@ops")
    assert [one.peer for one in resolved.recipients] == [bob.peer]
    assert resolved.conversation == "@ops"


async def test_a_mixed_list_is_a_conversation_of_those_it_means(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    carol = await join(broker, Device(ada.device.mesh, ada.device.owner, "carol"))
    await bob.call(JoinGroup(group="ops"))
    resolved = await ada.resolve("@ops", "carol", "bob")
    assert {one.peer for one in resolved.recipients} == {bob.peer, carol.peer}
    assert resolved.conversation == direct_conversation([ada.peer, bob.peer, carol.peer])


async def test_everybody_is_who_was_seen_within_a_day(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.leave()
    broker.clock.pass_ms(DAY)
    assert [one.peer for one in (await ada.resolve("*")).recipients] == [bob.peer]
    broker.clock.pass_ms(1)
    assert (await ada.refusal("@all")).code == "not_found"
    assert [one.online for one in (await ada.resolve("bob")).recipients] == [False]


async def test_a_lease_counts_as_here(broker: MemoryBroker, ada: RawPeer, bob: RawPeer) -> None:
    await bob.leave()
    assert [one.online for one in (await ada.resolve("bob")).recipients] == [True]
    broker.clock.pass_ms(90_000)
    assert [one.online for one in (await ada.resolve("bob")).recipients] == [False]


async def test_a_member_whose_keys_others_hold_is_in_no_multicast(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    connector = mesh.add("slack", custody=Custody.CONNECTOR)
    peer = await join(broker, Device(mesh, connector, "slack"))
    assert (await ada.refusal("*")).code == "not_found"
    assert [one.peer for one in (await ada.resolve("slack")).recipients] == [peer.peer]


async def test_a_blocking_member_is_told_apart_from_an_unknown_one(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.add("bob"), "bob"))
    await bob.call(SetBlock(member=ada.device.owner.id, blocked=True))
    assert (await ada.refusal("bob")).code == "blocked"
    assert (await ada.refusal("*")).code == "not_found"
    await bob.call(SetBlock(member=ada.device.owner.id, blocked=False))
    assert await ada.resolve("bob")


async def test_a_removed_members_peer_cannot_be_written_to(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    member = mesh.add("bob")
    await join(broker, Device(mesh, member, "bob"))
    mesh.say(mesh.founder, "remove", member=member.id)
    await join(broker, Device(mesh, mesh.founder, "carol"))
    assert (await ada.refusal("bob")).code == "member_removed"


async def test_a_peer_without_a_published_certificate_is_not_addressable_yet(
    broker: MemoryBroker, ada: RawPeer
) -> None:
    device = Device(ada.device.mesh, ada.device.owner, "second")
    late = RawPeer(broker, device, "ada")
    broker.tasks.start_soon(late.read)
    await late.hello(Wish())
    assert late.handle == "ada-2"
    assert (await ada.refusal("ada-2")).code == "not_certified"
    await late.certify()
    assert await ada.resolve("ada-2")


async def test_more_than_256_recipients_are_too_many(broker: MemoryBroker, ada: RawPeer) -> None:
    row = (await broker.sql("SELECT certificate_hash FROM peers"))[0][0]
    names = [(f"p_{number:026d}".replace("0", "a"), f"peer{number}") for number in range(257)]

    def fill(sql: Any) -> None:
        for peer, handle in names:
            sql.execute(
                "INSERT INTO peers (mesh, peer, member, handle, type, status, certificate_hash,"
                " first_seen_ms, last_seen_ms) VALUES (?, ?, ?, ?, '', 'idle', ?, ?, ?)",
                ada.device.mesh.id,
                peer,
                ada.device.owner.id,
                handle,
                row,
                NOW,
                NOW,
            )

    await broker.parts.store.write(fill)
    assert (await ada.refusal("*")).code == "too_many_recipients"


async def test_a_member_whose_time_is_over_is_written_to_by_nobody(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    dan = mesh.add("dan", expires=NOW + MINUTE)
    peer = await join(broker, Device(mesh, dan, "dan"))
    resolved = await ada.resolve("dan")
    broker.clock.pass_ms(MINUTE)
    assert (await ada.refusal("dan")).code == "member_expired"
    assert (await ada.refusal("*")).code == "not_found"
    assert "dan" not in {card.handle for card in (await ada.call(SearchPeers())).peers}
    # What was sealed before is taken, and handed to nobody.
    accepted = await ada.call(await ada.seal(resolved))
    assert statuses(accepted) == ["declined"]
    assert peer.delivered() == []
