"""Two members of one mesh: what one lets the other do, what is held, and how it is let through."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import granting, held, inbox, rights
from claudemesh_mcp.granting import Change
from claudemesh_mcp.results import InboxMessage, RecipientStatus, RightsResult
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import Grant
from claudemesh_wire.handshake import Mode
from claudemesh_wire.keys import b64
from claudemesh_wire.membership import EntryKind
from claudemesh_wire.message import Role
from tests.support.lies import changed
from tests.support.twin import Guest, Twin, a_mesh

LIMIT_S = 20


@dataclass
class World:
    """Ada; bob, who is another member in another home; and ada at her command line."""

    twin: Twin
    guest: Guest
    ada: Mesh
    bob: Mesh
    human: Mesh

    async def revoke(self, *capabilities: str) -> None:
        await self.say(Change(deny=frozenset(capabilities)))

    async def grant(self, *capabilities: str) -> None:
        await self.say(Change(allow=frozenset(capabilities)))

    async def say(self, change: Change) -> None:
        member = granting.find_member(self.human.peer, "bob")
        await granting.change(self.human.peer, await self.human.ready(), member, change)

    async def allow(self, what: str = "bob") -> list[str]:
        done = await granting.allow(self.human.peer, await self.human.ready(), what)
        return [one.text for one in done.messages]

    async def block(self, *, blocked: bool) -> None:
        member = granting.find_member(self.human.peer, "bob")
        client = await self.human.ready()
        await granting.block(self.human.peer, client, member, blocked=blocked)

    def held(self) -> list[str]:
        peer = self.human.peer
        return [one.text for one in held.find(peer.home, peer.identity.mesh)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        guest = await twin.admit("bob")
        bob = await guest.join("bob")
        human = await twin.join("human", Mode.CALL)
        yield World(twin, guest, ada, bob, human)


async def got(mesh: Mesh) -> list[InboxMessage]:
    return (await mesh.inbox(wait_s=LIMIT_S)).messages


async def status_of(mesh: Mesh, message: str) -> RecipientStatus:
    [one] = (await mesh.message_status(message)).recipients
    return one


async def reached(mesh: Mesh, message: str, status: str) -> RecipientStatus:
    with anyio.fail_after(LIMIT_S):
        while (found := await status_of(mesh, message)).status != status or not found.proved:
            await anyio.lowlevel.checkpoint()
    return found


async def kept(mesh: Mesh, count: int) -> list[tuple[str, str | None, int]]:
    """Wait until so many messages are in a peer's file; text, what holds it, whether it wakes."""
    with anyio.fail_after(LIMIT_S):
        while True:
            rows = await mesh.peer.file.read(
                lambda sql: sql.execute("SELECT * FROM inbox ORDER BY row").fetchall()
            )
            if len(rows) >= count:
                return [(row["text"], row["held"], row["wakes"]) for row in rows]
            await anyio.lowlevel.checkpoint()


async def code(act: Any) -> str:
    with pytest.raises(MeshError) as caught:
        await act
    return caught.value.code


async def test_what_lacks_a_grant_is_held_and_its_sender_told_the_command(world: World) -> None:
    await world.revoke("message")
    sent = await world.bob.send("ada", "psst")
    [to] = sent.recipients
    assert to.status == "held"
    assert to.hint is not None
    assert "claudemesh allow bob" in to.hint
    status = await reached(world.bob, sent.id, "held")
    assert (status.reason, status.proved, status.held_at is not None) == ("message", True, True)
    assert status.hint is not None
    assert "claudemesh allow bob" in status.hint
    assert world.held() == ["psst"]


async def test_what_is_held_is_neither_shown_nor_unread_but_counted(world: World) -> None:
    await world.revoke("message")
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "held")
    found = await world.ada.inbox()
    assert (found.messages, found.unread, found.held) == ([], 0, 1)
    assert (await world.ada.inbox(peek=True)).messages == []
    assert await code(world.ada.inbox(id=sent.id)) == "held"
    info = await world.ada.mesh_info()
    assert (info.unread, info.held) == (0, 1)


async def test_a_released_message_is_shown_once_and_its_receipts_flow(world: World) -> None:
    await world.revoke("message")
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "held")
    assert await world.allow() == ["psst"]
    assert await world.allow() == []
    assert world.held() == []
    assert [one.text for one in await got(world.ada)] == ["psst"]
    await world.ada.confirm()
    seen = await reached(world.bob, sent.id, "seen")
    assert seen.delivered_at is not None
    assert "hint" not in seen.model_dump()
    assert (await world.ada.inbox()).messages == []


async def test_who_was_let_through_is_not_held_again(world: World) -> None:
    await world.revoke("message")
    await world.bob.send("ada", "one")
    await kept(world.ada, 1)
    await world.allow()
    [to] = (await world.bob.send("ada", "two")).recipients
    assert to.status == "accepted"
    assert [one.text for one in await got(world.ada)] == ["one", "two"]


async def test_one_message_is_let_through_by_its_id_and_the_member_is_not(world: World) -> None:
    await world.revoke("message")
    first = await world.bob.send("ada", "one")
    await world.bob.send("ada", "two")
    await kept(world.ada, 2)
    assert await world.allow(first.id) == ["one"]
    assert await code(world.allow(first.id)) == "not_held"
    assert [one.text for one in await got(world.ada)] == ["one"]
    assert world.held() == ["two"]


async def test_allow_releases_from_all_peers_of_the_home(world: World) -> None:
    other = await world.twin.join("other")
    await world.revoke("message")
    await world.bob.send(["ada", "other"], "psst")
    await kept(world.ada, 1)
    await kept(other, 1)
    assert await world.allow() == ["psst", "psst"]
    assert [one.text for one in await got(world.ada) + await got(other)] == ["psst", "psst"]


async def test_a_held_message_that_is_handed_over_again_stays_held(world: World) -> None:
    await world.revoke("message")
    world.twin.lie = lambda text: None if " receipts.reported " in text else text
    sent = await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    world.twin.lie = None
    await world.twin.cut()
    await reached(world.bob, sent.id, "held")
    assert world.held() == ["psst"]
    assert (await world.ada.inbox()).messages == []


async def test_a_revocation_catches_a_message_that_is_under_way(world: World) -> None:
    async with world.twin.open("away") as away:
        await away.ready()
        await away.depart()
    sent = await world.bob.send("away", "psst")
    assert [one.status for one in sent.recipients] == ["queued"]
    await world.revoke("message")
    await world.twin.join("away")
    status = await reached(world.bob, sent.id, "held")
    assert status.reason == "message"
    assert world.held() == ["psst"]


async def test_a_broker_that_hides_a_revocation_gets_nothing_shown(world: World) -> None:
    await world.revoke("message")
    await world.twin.broker.parts.store.write(lambda sql: sql.execute("DELETE FROM grants"))
    sent = await world.bob.send("ada", "psst")
    assert [one.status for one in sent.recipients] == ["accepted"]
    await reached(world.bob, sent.id, "held")
    assert (await world.ada.inbox()).messages == []


async def test_a_broker_that_hides_a_block_gets_nothing_shown(world: World) -> None:
    await world.block(blocked=True)
    await world.twin.broker.parts.store.write(lambda sql: sql.execute("DELETE FROM blocks"))
    sent = await world.bob.send("ada", "psst")
    status = await reached(world.bob, sent.id, "declined")
    assert status.reason == "blocked"
    assert world.held() == []


async def test_a_broker_that_holds_what_is_granted_is_overruled(world: World) -> None:
    await world.revoke("message")
    kept_by_broker = await world.twin.broker.sql("SELECT entry FROM grants")
    await world.grant("message")
    await world.twin.broker.parts.store.write(
        lambda sql: sql.execute("UPDATE grants SET entry = ?", kept_by_broker[0][0])
    )
    sent = await world.bob.send("ada", "psst")
    assert [one.status for one in sent.recipients] == ["held"]
    assert [one.text for one in await got(world.ada)] == ["psst"]
    await reached(world.bob, sent.id, "delivered")


async def test_an_invented_held_is_named(world: World) -> None:
    sent = await world.bob.send("ada", "hello")
    await got(world.ada)

    def invent(body: dict[str, Any]) -> None:
        body["recipients"][0] |= {"status": "held", "held": body["recipients"][0]["delivered"]}

    await reached(world.bob, sent.id, "delivered")
    world.twin.lie = changed("receipts.status_found", invent)
    assert await code(world.bob.message_status(sent.id)) == "forged_receipt"


async def test_a_held_that_only_the_broker_says_is_shown_as_its_word(world: World) -> None:
    await world.revoke("message")
    await world.ada.depart()
    world.twin.lie = lambda text: None if " messages.deliver " in text else text
    sent = await world.bob.send("ada", "hello")
    status = await status_of(world.bob, sent.id)
    assert (status.status, status.proved) == ("held", None)


async def test_a_block_beats_a_grant_and_ends_with_unblock(world: World) -> None:
    await world.grant("message", "wake")
    await world.block(blocked=True)
    assert await code(world.bob.send("ada", "psst")) == "blocked"
    assert await code(world.allow()) == "blocked"
    await world.block(blocked=False)
    await world.bob.send("ada", "hello")
    assert [one.text for one in await got(world.ada)] == ["hello"]


async def test_an_observer_sends_nothing_and_is_held_where_the_broker_lets_it(
    world: World,
) -> None:
    member = world.guest.member
    await world.twin.say(EntryKind.ROLE, member=member, role=Role.OBSERVER)
    assert await code(world.bob.send("ada", "psst")) == "role"


async def test_what_a_member_sent_before_it_became_an_observer_is_held(world: World) -> None:
    async with world.twin.open("away") as away:
        await away.ready()
        await away.depart()
    await world.bob.send("away", "psst")
    await world.twin.say(EntryKind.ROLE, member=world.guest.member, role=Role.OBSERVER)
    back = await world.twin.join("away")
    assert await kept(back, 1) == [("psst", "message", 0)]


async def test_a_member_wakes_three_times_an_hour_and_by_now_alone(world: World) -> None:
    await world.bob.send("ada", "next", priority="next")
    for count in range(4):
        await world.bob.send("ada", f"now {count}", priority="now")
    rows = await kept(world.ada, 5)
    assert [wakes for _, _, wakes in rows] == [0, 1, 1, 1, 0]
    world.twin.clock.pass_ms(3600 * 1000)
    await world.bob.send("ada", "an hour later", priority="now")
    assert (await kept(world.ada, 6))[-1] == ("an hour later", None, 1)


async def test_who_is_granted_it_wakes_as_often_as_it_likes(world: World) -> None:
    await world.grant("wake")
    for count in range(4):
        await world.bob.send("ada", f"now {count}", priority="now")
    await world.bob.send("ada", "next", priority="next")
    await world.bob.send("ada", "low", priority="low")
    assert [wakes for _, _, wakes in await kept(world.ada, 6)] == [1, 1, 1, 1, 1, 0]


async def test_ones_own_sessions_wake_by_all_but_low(world: World) -> None:
    other = await world.twin.join("other")
    for priority in ("now", "next", "low"):
        await other.send("ada", priority, priority=priority)
    assert [wakes for _, _, wakes in await kept(world.ada, 3)] == [1, 1, 0]


async def test_a_damaged_file_of_grants_lets_nobody_else_through(world: World) -> None:
    peer = world.ada.peer
    (peer.home.meshes / peer.identity.mesh / "grants.json").write_bytes(b"{}")
    (peer.home.meshes / peer.identity.mesh / "grants.json").chmod(0o600)
    await world.bob.send("ada", "psst")
    assert await kept(world.ada, 1) == [("psst", "message", 0)]
    assert "grants_damaged" in [one.code for one in (await world.ada.mesh_info()).problems]


async def test_a_file_of_grants_that_another_wrote_is_damaged(world: World) -> None:
    member = granting.find_member(world.bob.peer, world.ada.peer.own_name())
    client = await world.bob.ready()
    await granting.change(world.bob.peer, client, member, Change(allow=frozenset({"message"})))
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
    await world.twin.broker.parts.store.write(lambda sql: sql.execute("DELETE FROM grants"))
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
        granting.capabilities(["mesage"])
    assert caught.value.code == "unknown_capability"
    assert "message" in caught.value.hint


async def test_names_that_look_alike_enter_no_mesh(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        with pytest.raises(ValueError, match="name"):
            await twin.admit("b\u043eb")


async def test_a_file_of_an_older_version_holds_nothing(world: World) -> None:
    old = world.human.peer.home.sessions / ("p_" + "a" * 26)
    old.mkdir(mode=0o700)
    (old / "peer.db").write_bytes(b"junk")
    await world.revoke("message")
    await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    assert world.held() == ["psst"]
    assert await world.allow() == ["psst"]


async def test_the_receiver_forgets_no_message_that_is_held(world: World) -> None:
    await world.revoke("message")
    await world.bob.send("ada", "psst", expires_in_s=60)
    await kept(world.ada, 1)
    month_ms = world.twin.clock.now_ms + 40 * 24 * 3600 * 1000
    await world.ada.peer.file.write(lambda sql: inbox.forget_old(sql, month_ms))
    assert world.held() == ["psst"]
    assert await world.allow() == ["psst"]
