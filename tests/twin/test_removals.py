"""Removals that are changed or end, members whose key another holds, invites that nobody made."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import governing
from claudemesh_mcp.client import Client
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.entries import Custody, EntryKind
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Mode
from claudemesh_wire.invites import Invite, InviteFields
from claudemesh_wire.keys import SigningKey, b64, make_id, member_id
from claudemesh_wire.message import Role
from tests.support.lies import changed
from tests.support.twin import Guest, Twin, a_mesh

LIMIT_S = 20
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
NAMESAKE = SigningKey(bytes(31) + b"\x17")


async def refusal(asked: Any) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await asked
    assert caught.value.hint
    return caught.value


@dataclass
class World:
    """Ada, who is the owner, and bob's home."""

    twin: Twin
    ada: Mesh
    bob: Guest

    async def hands(self) -> tuple[Peer, Client]:
        """What ada's acts take."""
        return self.ada.peer, await self.ada.ready()

    async def kicked(self, for_ms: int = HOUR_MS) -> None:
        """Let ada kick bob."""
        await governing.remove(*await self.hands(), "bob", self.twin.clock() + for_ms)

    async def connects(self) -> None:
        """Open a session of bob and close it."""
        async with self.bob.open("bert") as bert:
            await bert.ready()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.admit("bob")
        with anyio.fail_after(LIMIT_S):
            while bob.member not in ada.peer.trust.chain.members:
                await anyio.lowlevel.checkpoint()
        yield World(twin, ada, bob)


async def test_a_kicked_member_is_banned(world: World) -> None:
    await world.kicked()
    banned = await governing.remove(*await world.hands(), "bob", None)
    assert (banned.id, banned.removed, banned.returns_ms) == (world.bob.member, True, None)
    world.twin.clock.pass_ms(HOUR_MS)
    assert (await refusal(world.connects())).code == "member_removed"


async def test_a_banned_member_may_return_after_all(world: World) -> None:
    await governing.remove(*await world.hands(), "bob", None)
    await world.kicked()
    world.twin.clock.pass_ms(HOUR_MS)
    await world.connects()


async def test_a_kicked_member_comes_back_in_the_role_that_it_was_given(world: World) -> None:
    await governing.set_role(*await world.hands(), "bob", Role.ADMIN)
    await world.kicked()
    now = await governing.set_role(*await world.hands(), "bob", Role.OBSERVER)
    assert (now.role, now.removed) == (Role.OBSERVER, True)
    world.twin.clock.pass_ms(HOUR_MS)
    async with world.bob.open("bert") as bert:
        await bert.ready()
        assert bert.peer.member.role is Role.OBSERVER


async def namesake_added(world: World) -> str:
    """Let an admin add another bob, whose id is given."""
    key = NAMESAKE.public
    other = member_id(key)
    await world.twin.say(EntryKind.ADD, member=other, key=b64(key.raw), name="bob", role=Role.ADMIN)
    with anyio.fail_after(LIMIT_S):
        while other not in world.ada.peer.trust.chain.members:
            await anyio.lowlevel.checkpoint()
    return other


async def namesake_gone(world: World) -> str:
    """Ban bob, and then another bob."""
    hands = await world.hands()
    await governing.remove(*hands, "bob", None)
    other = await namesake_added(world)
    # Present, it is the one that is meant by the name.
    assert (await governing.remove(*hands, "bob", None)).id == other
    return other


async def test_of_two_of_a_name_the_one_is_taken_back_that_is_meant(world: World) -> None:
    other, hands = await namesake_gone(world), await world.hands()
    for ask in (
        lambda: governing.take_back(*hands, "bob"),
        lambda: governing.set_role(*hands, "bob", Role.MEMBER),
        lambda: governing.remove(*hands, "bob", None),
    ):
        refused = await refusal(ask())
        assert refused.code == "ambiguous"
        assert refused.details["candidates"] == [world.bob.member, other]
        assert world.bob.member in refused.hint
    back = await governing.take_back(*hands, world.bob.member)
    assert (back.id, back.role, back.removed) == (world.bob.member, Role.MEMBER, False)
    assert world.ada.peer.trust.chain.members[other].removed


async def test_a_removal_ends_though_another_has_the_name_by_then(world: World) -> None:
    await world.kicked()
    await namesake_added(world)
    world.twin.clock.pass_ms(HOUR_MS)
    async with world.bob.open("bert") as bert:
        await bert.ready()
        assert bert.peer.own_name() == "bob-2"
        problems = (await bert.mesh_info()).problems
        assert [one.code for one in problems if "bob-2" in one.message] == ["name_taken"]
        await world.ada.send("bob-2/bert", "welcome back")


async def test_who_is_taken_back_has_a_number_when_another_has_its_name(world: World) -> None:
    hands = await world.hands()
    await governing.remove(*hands, "bob", None)
    await namesake_added(world)
    back = await governing.take_back(*hands, world.bob.member)
    assert (back.id, back.name) == (world.bob.member, "bob-2")
    await world.connects()


@pytest.mark.parametrize(("for_ms", "days"), [(None, 30), (30 * 24 * HOUR_MS, 60)])
async def test_the_name_of_who_is_removed_is_kept_for_30_days_after(
    world: World, for_ms: int | None, days: int
) -> None:
    now_ms = world.twin.clock()
    until_ms = now_ms + for_ms if for_ms else None
    gone = await governing.remove(*await world.hands(), "bob", until_ms)
    assert gone.name_until_ms == now_ms + days * 24 * HOUR_MS


async def test_who_is_taken_back_is_what_it_was(world: World) -> None:
    expires = world.twin.clock() + HOUR_MS
    said = {"custody": Custody.CONNECTOR, "expires": expires, "scopes": ["topic:write"]}
    hook = await world.twin.admit("hook", Role.OBSERVER, **said)
    with anyio.fail_after(LIMIT_S):
        while hook.member not in world.ada.peer.trust.chain.members:
            await anyio.lowlevel.checkpoint()
    was, hands = world.ada.peer.trust.chain.members[hook.member], await world.hands()
    assert (was.expires_ms, was.scopes) == (expires, ("topic:write",))
    await governing.remove(*hands, "hook", None)
    assert await governing.take_back(*hands, "hook") == was
    # Over meanwhile, it is renewed: what is taken back is a member again.
    await governing.remove(*hands, "hook", None)
    world.twin.clock.pass_ms(HOUR_MS)
    assert await governing.take_back(*hands, "hook") == replace(was, expires_ms=None)


async def test_a_name_that_nobody_ever_had_is_unknown(world: World) -> None:
    hands = await world.hands()
    assert (await refusal(governing.remove(*hands, "bbo", None))).code == "unknown_member"
    # Who is present is not to be taken back.
    assert (await refusal(governing.take_back(*hands, "bob"))).code == "unknown_member"


@pytest.mark.parametrize("off_ms", [-11 * MINUTE_MS, 11 * MINUTE_MS, -30 * HOUR_MS, 30 * HOUR_MS])
async def test_a_kicked_member_returns_by_the_clock_of_the_broker(
    world: World, off_ms: int
) -> None:
    await world.connects()
    await world.kicked()
    twin = world.twin
    setup = replace(world.bob.setup("bert"), now_ms=lambda: twin.clock() + off_ms)
    twin.clock.pass_ms(HOUR_MS - MINUTE_MS)
    async with Mesh.over(setup, twin.dial, Mode.ATTACH) as bert:
        refused = await refusal(bert.ready())
        assert (refused.code, "may return at" in refused.hint) == ("member_removed", True)
    twin.clock.pass_ms(MINUTE_MS)
    async with Mesh.over(setup, twin.dial, Mode.ATTACH) as bert:
        await bert.ready()
        await world.ada.send("bert", "welcome back")
        assert [one.text for one in (await bert.inbox(wait_s=LIMIT_S)).messages] == ["welcome back"]


async def test_what_another_holds_the_key_to_is_not_called_sealed(world: World) -> None:
    hook = await (await world.twin.admit("hook", custody=Custody.CONNECTOR)).join("hook")
    bert = await world.bob.join("bert")
    sent = await world.ada.send(["hook", "bert"], "who can read this?")
    # Bert holds his own key, but whoever holds that of the hook reads the same text.
    assert {one.handle: one.e2e for one in sent.recipients} == {"hook": False, "bert": False}
    for mesh in (hook, bert):
        [message] = (await mesh.inbox(wait_s=LIMIT_S)).messages
        assert (message.text, message.e2e) == ("who can read this?", False)
    [own] = (await world.ada.inbox(id=sent.id)).messages
    assert own.e2e is False
    # Its own word is nobody's alone either.
    sent = await hook.send("ada", "I am a program")
    assert [one.e2e for one in sent.recipients] == [False]
    [message] = (await world.ada.inbox(wait_s=LIMIT_S)).messages
    assert (message.member, message.e2e) == ("hook", False)


async def test_what_several_read_is_called_sealed_if_each_holds_its_own_key(world: World) -> None:
    bert, carl = await world.bob.join("bert"), await world.twin.join("carl")
    sent = await world.ada.send(["bert", "carl"], "only we three")
    assert {one.handle: one.e2e for one in sent.recipients} == {"bert": True, "carl": True}
    for mesh in (bert, carl):
        [message] = (await mesh.inbox(wait_s=LIMIT_S)).messages
        assert (message.text, message.e2e) == ("only we three", True)


async def test_an_invite_that_the_broker_made_up_is_named(world: World) -> None:
    identity = world.twin.identity
    fields = InviteFields(
        mesh=identity.mesh,
        id=make_id("", bytes(16)),
        role="admin",
        uses=1,
        expires=world.twin.clock() + HOUR_MS,
        by=identity.member,
        key=b64(NAMESAKE.public.raw),
    )
    foreign = fields.model_copy(update={"mesh": f"mesh_{'a' * 26}"})
    forged = (
        Invite.issue(fields, NAMESAKE),
        Invite.issue(fields.model_copy(update={"by": member_id(NAMESAKE.public)}), NAMESAKE),
        Invite.issue(foreign, identity.key),
    )
    for one in forged:
        shown = [{"invite": b64(one.blob), "used": 0}]
        world.twin.lie = changed(
            "invites.found", lambda body, shown=shown: body.update(invites=shown)
        )
        refused = await refusal(governing.open_invites(*await world.hands()))
        assert refused.code == "invite_forged"
    genuine = b64(Invite.issue(fields, identity.key).blob)
    world.twin.lie = changed(
        "invites.found", lambda body: body.update(invites=[{"invite": genuine, "used": 0}])
    )
    [one] = await governing.open_invites(*await world.hands())
    assert (one.fields.key, one.by) == (b64(NAMESAKE.public.raw), world.ada.peer.own_name())


async def test_a_command_does_not_revoke_the_keys_it_speaks_with(world: World) -> None:
    refused = await refusal(governing.revoke_device(*await world.hands(), "ada"))
    assert refused.code == "self"
    assert world.ada.peer.trust.chain.revoked == frozenset()
