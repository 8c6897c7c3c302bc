"""Between two members: what is taken back holds at once, and reaches what was not shown yet."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp import granting, held
from claudemesh_mcp.client import Client
from claudemesh_mcp.granting import Change
from claudemesh_mcp.openrows import LEASE_MS
from claudemesh_mcp.policy import Policy
from claudemesh_mcp.results import InboxMessage
from claudemesh_wire.errors import MeshError, NotFound, Unavailable
from claudemesh_wire.membership import Chain, EntryKind
from tests.support.twin import Tokens
from tests.support.twopeople import LIMIT_S, World, code, got, kept, reached, two_people

DENIED = Change(deny=frozenset({"message"}))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as world:
        yield world


async def nowhere() -> Client:
    """Reach no broker."""
    raise Unavailable("No broker answers.", code="unreachable")


async def seqs(world: World) -> list[int]:
    """Give the numbers of the grants that the broker has."""
    return [row[0] for row in await world.twin.broker.sql("SELECT seq FROM grants")]


async def blocked(world: World) -> list[str]:
    """Give whom the broker takes for blocked."""
    return [row[0] for row in await world.twin.broker.sql("SELECT blocked FROM blocks")]


async def remove(world: World) -> None:
    """Let an admin remove bob, and wait until ada has heard of it."""
    await world.twin.say(EntryKind.REMOVE, member=world.guest.member)
    with anyio.fail_after(LIMIT_S):
        while not world.ada.peer.trust.chain.members[world.guest.member].removed:
            await anyio.lowlevel.checkpoint()


async def test_a_revocation_holds_though_no_broker_is_reached(world: World) -> None:
    said = await granting.change(world.human.peer, nowhere, "bob", DENIED)
    assert said.untold is not None
    assert said.untold.code == "unreachable"
    sent = await world.bob.send("ada", "psst")
    assert (await reached(world.bob, sent.id, "held")).reason == "message"
    assert await seqs(world) == []
    await granting.level(world.human.peer, await world.human.ready())
    assert await seqs(world) == [1]


async def test_a_broker_that_refuses_to_list_grants_keeps_back_no_revocation(world: World) -> None:
    await world.at_broker("ALTER TABLE grants RENAME TO elsewhere")
    said = await granting.change(world.human.peer, world.human.ready, "bob", DENIED)
    assert said.untold is not None
    assert world.human.peer.grants.read().grants[world.guest.member].fields.deny == ["message"]
    await world.at_broker("ALTER TABLE elsewhere RENAME TO grants")


async def test_what_was_said_unheard_stands_on_what_another_process_said(world: World) -> None:
    await world.grant("task")
    peer = world.human.peer
    file = peer.home.meshes / peer.identity.mesh / "grants.json"
    before = file.read_bytes()
    await world.grant("tool")
    # A backup: this home does not know of the second any more, and says something new.
    file.write_bytes(before)
    await granting.change(peer, nowhere, "bob", DENIED)
    await granting.level(peer, await world.human.ready())
    fields = peer.grants.read().grants[world.guest.member].fields
    assert (fields.allow, fields.deny, fields.seq) == (["task", "tool"], ["message"], 3)
    assert await seqs(world) == [3]


async def test_a_block_holds_unheard_and_is_told_later(world: World) -> None:
    said = await granting.block(world.human.peer, nowhere, "bob", blocked=True)
    assert said.untold is not None
    sent = await world.bob.send("ada", "psst")
    assert (await reached(world.bob, sent.id, "declined")).reason == "blocked"
    await granting.level(world.human.peer, await world.human.ready())
    assert await blocked(world) == [world.guest.member]
    await granting.block(world.human.peer, nowhere, "bob", blocked=False)
    await granting.level(world.human.peer, await world.human.ready())
    assert await blocked(world) == []


async def test_a_home_that_lost_its_file_takes_its_blocks_from_the_broker(world: World) -> None:
    await world.block(blocked=True)
    peer = world.human.peer
    (peer.home.meshes / peer.identity.mesh / "grants.json").unlink()
    await granting.level(peer, await world.human.ready())
    assert peer.grants.read().blocked == {world.guest.member}


async def test_who_was_admitted_into_a_new_file_is_not_blocked_by_the_brokers_word(
    world: World,
) -> None:
    await world.block(blocked=True)
    peer = world.human.peer
    (peer.home.meshes / peer.identity.mesh / "grants.json").unlink()
    await world.block(blocked=False)
    assert peer.grants.read().blocked == frozenset()
    assert await blocked(world) == []


async def test_grants_that_can_not_be_looked_at_let_nobody_through(world: World) -> None:
    peer = world.ada.peer
    peer.grants.read()
    folder = peer.home.meshes / peer.identity.mesh
    moved = folder.with_name("moved")
    folder.rename(moved)
    folder.write_bytes(b"")
    try:
        with pytest.raises(MeshError) as caught:
            peer.grants.read()
    finally:
        folder.unlink()
        moved.rename(folder)
    assert caught.value.code == "storage_failed"


async def test_what_waits_stays_while_the_grants_can_not_be_read(world: World) -> None:
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "delivered")
    file = world.ada.peer.home.meshes / world.ada.peer.identity.mesh / "grants.json"
    file.write_bytes(b"{}")
    file.chmod(0o600)
    assert await code(world.ada.inbox()) == "grants_damaged"
    assert await code(world.ada.inbox(peek=True)) == "grants_damaged"
    file.unlink()
    assert [one.text for one in (await world.ada.inbox()).messages] == ["psst"]


async def test_a_process_whose_log_is_behind_destroys_nothing(world: World) -> None:
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "delivered")
    trust = world.ada.peer.trust
    known, on_disk = trust.chain, trust._folder / "log"
    founder = Chain(known.mesh).extend(known.entries[:1])
    # What another process of this home has verified is on disk.
    trust.chain = founder
    assert [one.text for one in (await world.ada.inbox(peek=True)).messages] == ["psst"]
    # Nor is what nobody here knows destroyed.
    kept_log = on_disk.read_bytes()
    on_disk.unlink()
    trust.chain = founder
    assert (await world.ada.inbox()).messages == []
    on_disk.write_bytes(kept_log)
    on_disk.chmod(0o600)
    trust.chain = known
    assert world.held() == ["psst"]


async def test_a_message_that_is_read_by_its_id_is_held_back_for_good(world: World) -> None:
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "delivered")
    world.twin.clock.pass_ms(1)
    await world.revoke("message")
    assert await code(world.ada.inbox(id=sent.id)) == "held"
    assert world.held() == ["psst"]
    assert (await reached(world.bob, sent.id, "held")).reason == "message"
    assert await world.allow(sent.id) == ["psst"]


async def test_what_was_offered_before_a_block_may_have_been_shown(world: World) -> None:
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "delivered")
    handing = Tokens()
    await world.ada.inbox(call=handing)
    world.twin.clock.pass_ms(LEASE_MS + 1)
    await world.block(blocked=True)
    assert (await world.ada.inbox()).messages == []
    await world.ada.evidence(handing.taken)
    await world.ada.report()
    assert (await reached(world.bob, sent.id, "seen")).status == "seen"
    assert [one.text for one in (await world.ada.history()).messages] == ["psst"]


async def test_a_revocation_reaches_what_waits_to_be_read(world: World) -> None:
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "delivered")
    world.twin.clock.pass_ms(1)
    await world.revoke("message")
    assert (await world.ada.mesh_info()).unread == 0
    found = await world.ada.inbox()
    assert (found.messages, found.unread, found.held) == ([], 0, 1)
    assert (await reached(world.bob, sent.id, "held")).reason == "message"
    assert await world.allow() == ["psst"]
    assert [one.text for one in await got(world.ada)] == ["psst"]
    await world.ada.confirm()
    assert (await reached(world.bob, sent.id, "seen")).seen_at is not None


async def test_a_block_reaches_what_waits_to_be_read(world: World) -> None:
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "delivered")
    await world.block(blocked=True)
    assert (await world.ada.inbox(peek=True)).messages == []
    assert (await reached(world.bob, sent.id, "declined")).reason == "blocked"
    assert await code(world.ada.inbox(id=sent.id)) == "not_found"
    assert (await world.ada.history()).messages == []


async def test_a_removal_reaches_what_waits_to_be_read(world: World) -> None:
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "delivered")
    await remove(world)
    assert (await world.ada.inbox()).messages == []
    assert await kept(world.ada, 1) == [("", "removed", 0)]


async def test_what_a_removed_member_wrote_is_cleared_and_not_let_through(world: World) -> None:
    await world.revoke("message")
    sent = [await world.bob.send("ada", text) for text in ("one", "two")]
    await kept(world.ada, 2)
    await remove(world)
    peer = world.ada.peer
    assert await code(granting.allow(peer, world.ada.ready, sent[0].id)) == "member_removed"
    by_id = await granting.discard(peer, sent[0].id)
    assert ([one.text for one in by_id.messages], world.held()) == (["one"], ["two"])
    by_name = await granting.discard(peer, "bob")
    assert ([one.text for one in by_name.messages], world.held()) == (["two"], [])
    assert await code(granting.discard(peer, "bob")) == "not_held"


async def test_what_is_discarded_is_declined_and_never_taken_in_again(world: World) -> None:
    await world.revoke("message")
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "held")
    await granting.discard(world.human.peer, sent.id)
    await world.ada.report()
    assert (await reached(world.bob, sent.id, "declined")).reason == "discarded"
    assert await world.allow() == []
    assert (await world.ada.inbox()).messages == []


async def test_a_session_that_waits_is_given_what_is_let_through_by_its_id(world: World) -> None:
    await world.revoke("message")
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "held")
    found: list[InboxMessage] = []

    async def wait() -> None:
        found.extend((await world.ada.inbox(wait_s=LIMIT_S)).messages)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await world.allow(sent.id)
    assert [one.text for one in found] == ["psst"]


async def test_who_waits_beside_another_look_is_given_what_is_let_through(world: World) -> None:
    await world.revoke("message")
    sent = await world.bob.send("ada", "psst", thread="secrets")
    await reached(world.bob, sent.id, "held")
    found: list[InboxMessage] = []

    async def wait() -> None:
        found.extend((await world.ada.inbox(wait_s=LIMIT_S, thread="secrets")).messages)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await world.allow(sent.id)
        # Sees the release, and has no use for it.
        assert (await world.ada.inbox(thread="lunch")).messages == []
    assert [one.text for one in found] == ["psst"]


async def test_what_can_not_be_shown_is_counted_without_being_read(world: World) -> None:
    for number in range(5):
        await world.bob.send("ada", str(number))
    await kept(world.ada, 5)
    await world.revoke("message")
    read = 0

    def noted(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> sqlite3.Row:
        nonlocal read
        read += 1
        return sqlite3.Row(cursor, row)

    def unread(sql: sqlite3.Connection) -> int:
        sql.row_factory = noted
        try:
            return Policy(world.ada.peer).unread(sql, world.ada.peer.now_ms())
        finally:
            sql.row_factory = sqlite3.Row

    assert await world.ada.peer.file.read(unread) == 0
    # One member's count, and that there is none of what was let through.
    assert read == 1


async def test_a_name_is_discarded_however_it_is_written(world: World) -> None:
    await world.revoke("message")
    await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    assert await code(granting.discard(world.human.peer, "b\u043eb")) == "bad_name"
    done = await granting.discard(world.human.peer, "Bob")
    assert ([one.text for one in done.messages], world.held()) == (["psst"], [])


async def test_who_is_unknown_without_a_broker_may_be_known_to_it(world: World) -> None:
    with pytest.raises(NotFound) as caught:
        await granting.block(world.human.peer, nowhere, "carol", blocked=True)
    assert caught.value.code == "unknown_member"
    assert "No broker answers." in caught.value.hint


async def test_a_file_that_can_not_be_looked_into_is_named(world: World) -> None:
    await world.revoke("message")
    await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    junk = world.human.peer.home.sessions / ("p_" + "a" * 26)
    junk.mkdir(mode=0o700)
    (junk / "peer.db").write_bytes(b"junk")
    found = held.find(world.human.peer.home)
    assert [one.text for one in found.messages] == ["psst"]
    assert [str(junk) in one for one in found.skipped] == [True]
    done = await granting.allow(world.human.peer, world.human.ready, "bob")
    assert [str(junk) in one for one in done.skipped] == [True]


async def test_what_is_held_of_one_member_leaves_others_room_in_a_queue(tmp_path: Path) -> None:
    async with two_people(tmp_path, queue_messages=100) as world:
        async with world.twin.open("away") as away:
            await away.ready()
            await away.depart()
        await world.revoke("message")
        sent = [await world.bob.send("away", str(number)) for number in range(3)]
        assert [one.recipients[0].status for one in sent] == ["held", "held", "declined"]
        status = await world.bob.message_status(sent[2].id)
        [told] = status.recipients
        assert (told.status, told.reason, told.proved) == ("declined", "held_full", None)
        assert told.hint is not None
        assert told.hint.endswith(f"claudemesh --mesh {world.ada.peer.identity.mesh} allow bob")
        kept_own = await world.ada.send("away", "hello")
        assert [one.status for one in kept_own.recipients] == ["queued"]
