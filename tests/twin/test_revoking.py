"""The keys of one session are revoked, wherever it is: shown, hidden, archived, removed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp import governing, granting
from claudemesh_mcp.client import Client
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.entries import EntryKind
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Mode
from claudemesh_wire.keys import b64
from claudemesh_wire.message import Role
from tests.support.lies import changed
from tests.support.twopeople import World, two_people

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as world:
        yield world


async def hands(mesh: Mesh) -> tuple[Peer, Client]:
    """What the acts of a mesh's member take."""
    return mesh.peer, await mesh.ready()


async def refusal(asked: Any) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await asked
    assert caught.value.hint or caught.value.code == "certificate_swapped"
    return caught.value


async def revoked(by: Mesh, address: str, of: Mesh) -> None:
    """Revoke the keys of a session, and see that they are."""
    assert (await governing.revoke_device(*await hands(by), address)).peer == of.peer.id
    device = b64(of.peer.certified().sign_key.fingerprint)
    assert by.peer.trust.chain.revoked == {(of.peer.identity.member, device)}


@pytest.mark.parametrize("address", ["bob", "BOB/bob", "{member}/bob", "{peer}"])
async def test_a_session_is_named_as_in_any_address(world: World, address: str) -> None:
    written = address.format(member=world.guest.member, peer=world.bob.peer.id)
    await revoked(world.human, written, world.bob)


@pytest.mark.parametrize("address", ["axa", "ada/bob", "axa/bob", "{start}", "@bob", "#bob", "*"])
async def test_what_names_no_session_revokes_nothing(world: World, address: str) -> None:
    written = address.format(start=world.bob.peer.id[:12])
    refused = await refusal(governing.revoke_device(*await hands(world.human), written))
    assert refused.code == "not_found"
    assert world.human.peer.trust.chain.revoked == frozenset()


async def test_what_is_no_address_is_refused(world: World) -> None:
    refused = await refusal(
        governing.revoke_device(*await hands(world.human), "b\N{CYRILLIC SMALL LETTER O}b")
    )
    assert refused.code == "bad_address"


@pytest.mark.parametrize("by", ["admin", "own", "blocked"])
async def test_a_hidden_session_is_reached_by_its_whole_id(world: World, by: str) -> None:
    await world.bob.set_profile(visible=False)
    own = await world.guest.join("home", Mode.CALL)
    if by == "blocked":
        # Who wants to hear nothing of an admin is out of its reach no more than others.
        said = await granting.block(own.peer, own.ready, world.ada.peer.own_name(), blocked=True)
        assert said.untold is None
    mesh = own if by == "own" else world.human
    assert (await refusal(governing.revoke_device(*await hands(mesh), "bob"))).code == "not_found"
    await revoked(mesh, world.bob.peer.id, world.bob)


async def test_an_observer_revokes_what_is_its_own(world: World) -> None:
    guest = await world.twin.admit("eve", Role.OBSERVER)
    eve, own = await guest.join("eve"), await guest.join("home", Mode.CALL)
    await eve.set_profile(visible=False)
    refused = await refusal(governing.revoke_device(*await hands(own), world.bob.peer.id))
    assert refused.code == "membership_forbidden"
    await revoked(own, eve.peer.id, eve)


async def test_a_session_that_nobody_saw_for_long_is_reached_by_its_whole_id(world: World) -> None:
    async with world.guest.open("old") as old:
        await old.ready()
    await world.twin.end_leases()
    world.twin.clock.pass_ms(31 * DAY_MS)
    await world.twin.broker.run_due()
    told = "SELECT archived_ms IS NOT NULL FROM peers WHERE peer = ?"
    assert await world.twin.broker.sql(told, old.peer.id) == [(1,)]
    fresh = await world.twin.join("fresh", Mode.CALL)
    await revoked(fresh, old.peer.id, old)


async def test_a_session_of_a_member_that_is_to_return_is_reached_by_its_whole_id(
    world: World,
) -> None:
    until = world.twin.clock() + DAY_MS
    await world.twin.say(EntryKind.REMOVE, member=world.guest.member, expires=until)
    later = await world.twin.join("later", Mode.CALL)
    await revoked(later, world.bob.peer.id, world.bob)


async def test_a_command_speaks_with_its_own_keys_by_whatever_name(world: World) -> None:
    await world.ada.set_profile(visible=False)
    for address in ("ada", world.ada.peer.id):
        refused = await refusal(governing.revoke_device(*await hands(world.ada), address))
        assert refused.code == "self"


async def test_a_broker_that_shows_another_certificate_has_nobody_revoked(world: World) -> None:
    await world.bob.set_profile(visible=False)
    others = b64(world.ada.peer.certified().blob)
    world.twin.lie = changed(
        "presence.certificates_found", lambda body: body.update(certificates=[others])
    )
    asked = governing.revoke_device(*await hands(world.human), world.bob.peer.id)
    assert (await refusal(asked)).code == "certificate_swapped"
    assert world.human.peer.trust.chain.revoked == frozenset()
