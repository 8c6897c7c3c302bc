"""Between two members: what one lets the other do, who keeps it, and how it is shown."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import granting, grantnames, rights
from claudemesh_mcp.granting import Change
from claudemesh_mcp.meshresults import RightsResult
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import Grant, GrantFields
from claudemesh_wire.keys import b64
from claudemesh_wire.membership import EntryKind
from claudemesh_wire.message import Role
from tests.support.lies import changed
from tests.support.twin import a_mesh
from tests.support.twopeople import LIMIT_S, World, kept, two_people
from tests.wire.world import ADA, BOB, MESH, NOW, Log, invite, joining


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as world:
        yield world


async def test_a_damaged_file_of_grants_lets_nobody_else_through(world: World) -> None:
    peer = world.ada.peer
    (peer.home.meshes / peer.identity.mesh / "grants.json").write_bytes(b"{}")
    (peer.home.meshes / peer.identity.mesh / "grants.json").chmod(0o600)
    await world.bob.send("ada", "psst")
    assert await kept(world.ada, 1) == [("psst", "message", 0)]
    assert "grants_damaged" in [one.code for one in (await world.ada.mesh_info()).problems]


async def test_a_file_of_grants_that_another_wrote_is_damaged(world: World) -> None:
    change, ada = Change(allow=frozenset({"message"})), world.ada.peer.own_name()
    await granting.change(world.bob.peer, world.bob.ready, ada, change)
    theirs = world.bob.peer.home.meshes / world.bob.peer.identity.mesh / "grants.json"
    ours = world.ada.peer.home.meshes / world.ada.peer.identity.mesh / "grants.json"
    ours.write_bytes(theirs.read_bytes())
    ours.chmod(0o600)
    with pytest.raises(MeshError) as caught:
        world.ada.peer.grants.read()
    assert caught.value.code == "grants_damaged"


async def test_a_home_that_lost_its_file_takes_its_own_grants_from_the_broker(
    world: World,
) -> None:
    await world.revoke("message")
    peer = world.human.peer
    (peer.home.meshes / peer.identity.mesh / "grants.json").unlink()
    await granting.level(peer, await world.human.ready())
    assert peer.grants.read().grants[world.guest.member].fields.deny == ["message"]


async def test_a_broker_that_lost_a_grant_is_given_it_again(world: World) -> None:
    await world.grant("task")
    await world.at_broker("DELETE FROM grants")
    await granting.level(world.human.peer, await world.human.ready())
    assert len(await world.twin.broker.sql("SELECT 1 FROM grants")) == 1


async def shown_rights(mesh: Mesh) -> RightsResult:
    return rights.rights(mesh.peer, await granting.level(mesh.peer, await mesh.ready()))


async def test_both_sides_see_what_holds_with_the_defaults_filled_in(world: World) -> None:
    await world.grant("task")
    await world.revoke("wake")
    expected = {
        "message": "yes",
        "topic": "yes",
        "wake": "no",
        "task": "yes",
        "tool": "no",
        "file": "no",
    }
    [mine] = (await shown_rights(world.human)).i_let
    [theirs] = (await shown_rights(world.bob)).let_me
    assert (mine.member, mine.rights, mine.granted) == ("bob", expected, True)
    assert (theirs.member_id, theirs.rights) == (world.ada.peer.identity.member, expected)
    [untouched] = (await shown_rights(world.bob)).i_let
    assert (untouched.rights["wake"], untouched.granted) == ("now only, 3 an hour", False)


async def test_mesh_info_shows_the_defaults_and_what_differs_to_both(world: World) -> None:
    await world.say(Change(allow=frozenset({"message", "task"}), deny=frozenset({"wake"})))
    info, theirs = await world.ada.mesh_info(), await world.bob.mesh_info()
    assert info.defaults == {
        "own": ["message", "topic", "wake", "task", "tool", "file"],
        "member": ["message", "topic", "wake (now only, 3 an hour)"],
        "observer": [],
    }
    [mine] = info.grants.by_me
    assert (mine.member, mine.allow, mine.deny) == ("bob", ["task"], ["wake"])
    [given] = theirs.grants.to_me
    assert (given.allow, given.deny) == (["task"], ["wake"])
    assert info.grants.to_me == theirs.grants.by_me == []
    assert theirs.defaults == info.defaults


async def test_what_a_member_may_provide_is_shown_to_both_until_it_is_taken_back(
    world: World,
) -> None:
    await world.grant("provide:files", "provide:build", "tool")
    [mine] = (await shown_rights(world.human)).i_let
    [theirs] = (await shown_rights(world.bob)).let_me
    assert mine.provides == theirs.provides == ["build", "files"]
    [given] = (await world.bob.mesh_info()).grants.to_me
    assert given.allow == ["tool", "provide:build", "provide:files"]
    await world.revoke("provide:build", "provide:files", "tool")
    [mine] = (await shown_rights(world.human)).i_let
    assert mine.provides == []
    fields = world.human.peer.grants.read().grants[world.guest.member].fields
    assert (fields.allow, fields.deny) == ([], ["tool"])


async def test_to_take_back_what_was_not_given_is_refused(world: World) -> None:
    await world.grant("provide:files")
    with pytest.raises(MeshError) as caught:
        await world.revoke("provide:file", "wake")
    assert (caught.value.code, "files" in caught.value.hint) == ("not_provided", True)
    fields = world.human.peer.grants.read().grants[world.guest.member].fields
    assert (fields.allow, fields.deny) == (["provide:files"], [])


async def test_a_grant_has_room_for_40_names(world: World) -> None:
    names = [f"provide:{'s' * 38}{number:02}" for number in range(40)]
    await world.grant(*names)
    with pytest.raises(MeshError) as caught:
        await world.grant("provide:one-more")
    assert caught.value.code == "too_many_services"
    await world.revoke("message", "topic", "wake", "task", "tool", "file")
    [mine] = (await shown_rights(world.human)).i_let
    assert len(mine.provides) == 40


async def test_an_observer_provides_nothing(world: World) -> None:
    await world.grant("provide:files")
    await world.twin.say(EntryKind.ROLE, member=world.guest.member, role=Role.OBSERVER)
    await observes(world.ada, world.guest.member)
    assert [one.provides for one in (await shown_rights(world.ada)).i_let] == [[]]
    assert (await world.ada.mesh_info()).grants.by_me == []


@pytest.mark.parametrize("name", ["provide:", "provide:Files", "provide:a/b", "provide:*"])
def test_what_is_no_name_of_a_server_can_not_be_provided(name: str) -> None:
    with pytest.raises(MeshError) as caught:
        grantnames.grantable(["tool", name])
    assert caught.value.code == "bad_service"
    assert grantnames.grantable(["tool", "provide:a"]) == {"tool", "provide:a"}


def test_an_invite_lets_nobody_provide_anything() -> None:
    with pytest.raises(MeshError) as caught:
        grantnames.capabilities(["provide:files"])
    assert caught.value.code == "unknown_capability"


async def test_a_grant_that_the_broker_made_up_is_named_and_not_shown(world: World) -> None:
    await world.grant("task")

    made = world.human.peer.grants.read().grants[world.guest.member].fields
    blob = Grant.issue(made, world.guest.identity.key).blob

    def forge(body: dict[str, Any]) -> None:
        body["given"] = [b64(blob)]

    world.twin.lie = changed("grants.found", forge)
    info = await world.bob.mesh_info()
    assert info.grants.to_me == []
    again = await world.bob.mesh_info()
    assert "grant_forged" in [one.code for one in again.problems]


async def test_what_a_blocked_member_and_an_observer_may_is_shown_as_it_is(world: World) -> None:
    await world.grant("wake", "task")
    await world.block(blocked=True)
    [mine] = (await shown_rights(world.human)).i_let
    [theirs] = (await shown_rights(world.bob)).let_me
    assert (mine.blocked, mine.rights["message"], mine.rights["wake"]) == (True, "no", "no")
    assert mine.rights["task"] == "yes"
    # Nobody is told who blocks it, so nothing is said of it.
    assert "blocked" not in theirs.model_dump()
    await world.block(blocked=False)
    await world.twin.say(EntryKind.ROLE, member=world.guest.member, role=Role.OBSERVER)
    await observes(world.ada, world.guest.member)
    [mine] = (await shown_rights(world.ada)).i_let
    assert (mine.standing, set(mine.rights.values())) == ("observer", {"no"})


async def observes(mesh: Mesh, member: str) -> None:
    """Wait until a peer has heard that a member is an observer."""
    with anyio.fail_after(LIMIT_S):
        while mesh.peer.trust.chain.members[member].role is not Role.OBSERVER:
            await anyio.lowlevel.checkpoint()


def test_what_an_invite_gave_differs_from_the_defaults_until_it_is_denied() -> None:
    log = Log()
    log.add("add", BOB, **joining(BOB, invite(ADA, grants=["task", "message"])))
    bob = log.chain.member(BOB.id)
    shown = rights.difference(ADA.id, bob, None, "bob")
    assert shown is not None
    assert (shown.member, shown.allow, shown.deny) == ("bob", ["task"], [])
    fields = GrantFields(mesh=MESH, by=ADA.id, to=BOB.id, seq=1, at=NOW, allow=[], deny=["task"])
    assert rights.difference(ADA.id, bob, Grant.issue(fields, ADA.key), "bob") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("b\u043eb", "bad_name"),
        ("\uff42\uff4f\uff42", "bad_name"),
        ("bobby", "unknown_member"),
        ("me", "self"),
    ],
)
async def test_a_name_that_is_no_other_members_is_refused(
    world: World, name: str, expected: str
) -> None:
    own = world.human.peer.own_name()
    with pytest.raises(MeshError) as caught:
        granting.find_member(world.human.peer, own if name == "me" else name)
    assert caught.value.code == expected


def test_a_capability_that_is_none_is_refused() -> None:
    with pytest.raises(MeshError) as caught:
        grantnames.capabilities(["mesage"])
    assert caught.value.code == "unknown_capability"
    assert "message" in caught.value.hint


async def test_names_that_look_alike_enter_no_mesh(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        with pytest.raises(ValueError, match="name"):
            await twin.admit("b\u043eb")
