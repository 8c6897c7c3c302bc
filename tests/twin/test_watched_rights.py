"""What hooks may show of what waits, while rights and blocks change around an open session."""

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp import held, openrows
from claudemesh_mcp.calls import CallContext
from claudemesh_mcp.routes import facts, offers, records
from claudemesh_mcp.routes.facts import Mode
from claudemesh_mcp.routes.offers import Look
from claudemesh_mcp.routes.settings import Moment
from claudemesh_mcp.session import MeshSession
from claudemesh_wire.membership import EntryKind
from tests.support.twin import until
from tests.support.twopeople import World, kept, two_people
from tests.support.watched import begun, comes, showable, watched


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as world:
        yield world


async def test_what_lost_its_right_is_kept_back_before_a_hook_could_show_it(world: World) -> None:
    now_ms = world.ada.peer.now_ms()
    await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    async with watched(world.ada):
        assert await world.ada.peer.file.read(showable(now_ms)) == 1
        await world.revoke("message")
        await comes(world.ada, lambda sql: not showable(now_ms)(sql))
    assert await kept(world.ada, 1) == [("psst", "message", 0)]


async def test_what_a_blocked_member_wrote_is_declined_at_once(world: World) -> None:
    sent = await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    async with watched(world.ada):
        await world.block(blocked=True)
        await comes(world.ada, lambda sql: not showable(world.ada.peer.now_ms())(sql))
        assert (await until(world.bob, sent.id, "declined")).reason == "blocked"


async def test_what_is_blocked_before_the_first_look_is_declined_too(world: World) -> None:
    sent = await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    watch = await begun(world.ada)
    await world.block(blocked=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run)
        assert (await until(world.bob, sent.id, "declined")).reason == "blocked"
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["revoked", "blocked"])
async def test_what_is_being_offered_is_not_offered_again_without_its_right(
    world: World, how: str
) -> None:
    await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    peer = world.ada.peer
    await peer.file.write(lambda sql: openrows.hand_over(sql, [1], "hook:1.1:a", peer.now_ms()))
    async with watched(world.ada):
        await (world.revoke("message") if how == "revoked" else world.block(blocked=True))
        await comes(world.ada, held.count)
    # The hook was killed before it printed, and the next one judges nothing.
    later_ms = peer.now_ms() + openrows.LEASE_MS + 1
    assert await peer.file.read(showable(later_ms)) == 0


async def test_what_was_printed_before_its_right_was_lost_is_seen_by_its_evidence(
    world: World,
) -> None:
    sent = await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    peer, now_ms = world.ada.peer, world.ada.peer.now_ms()
    look = Look(Moment.PROMPT, "one", "1.1", peer.identity.member, "prompt")

    def show(sql: sqlite3.Connection) -> None:
        openrows.hand_over(sql, [1], "hook:1.1:a", now_ms)
        offers.note_printed(sql, look, "hook:1.1:a", now_ms)

    async with watched(world.ada):
        await peer.file.write(show)
        await world.revoke("message")
        await comes(world.ada, held.count)
        await peer.file.write(lambda sql: offers.evidence_of_end(sql, "one", "1.1", now_ms))
        # As when another process has changed the file.
        world.ada.look_again()
        await world.ada.report()
        assert (await until(world.bob, sent.id, "seen")).status == "seen"


async def test_a_call_that_may_be_a_subagents_proves_nothing_of_what_was_printed(
    world: World,
) -> None:
    await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    peer = world.ada.peer
    session = MeshSession(peer.setup.settings, opening=lambda _: nullcontext(world.ada))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.start)
        context = CallContext()
        await session.call("mesh_info", {}, context)
        client = await peer.file.read(lambda sql: facts.get(sql, facts.CLIENT))
        now_ms, holder = peer.now_ms(), f"hook:{client}:a"
        look = Look(Moment.PROMPT, "one", client, peer.identity.member, "prompt")

        def show(sql: sqlite3.Connection) -> None:
            facts.put(sql, facts.SESSION, "one")
            openrows.hand_over(sql, [1], holder, now_ms)
            offers.note_printed(sql, look, holder, now_ms)

        await peer.file.write(show)
        await session.call("mesh_info", {}, context)
        (state,) = await peer.file.read(
            lambda sql: sql.execute("SELECT state FROM inbox").fetchone()
        )
        assert state == "handed"
        await session.close()


async def test_what_lost_its_right_while_no_server_ran_is_kept_back_before_hooks_find_it(
    world: World,
) -> None:
    await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    await world.revoke("message")
    async with watched(world.ada):
        assert await world.ada.peer.file.read(showable(world.ada.peer.now_ms())) == 0
        assert records.find(world.ada.peer.home.data, os.getpid()) is not None


async def test_hooks_show_no_text_while_the_grants_can_not_be_read(world: World) -> None:
    peer = world.ada.peer
    path = peer.grants.path
    await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    async with watched(world.ada):
        assert await peer.file.read(facts.mode) is Mode.PUSH
        path.write_bytes(b"{}")
        path.chmod(0o600)
        await comes(world.ada, lambda sql: facts.mode(sql) is Mode.INBOX)
        path.unlink()
        await comes(world.ada, lambda sql: facts.mode(sql) is Mode.PUSH)


async def test_a_member_who_is_removed_by_another_session_s_word_is_shown_no_more(
    world: World,
) -> None:
    await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    async with watched(world.ada):
        await world.twin.say(EntryKind.REMOVE, member=world.guest.member)
        await comes(world.ada, lambda sql: not showable(world.ada.peer.now_ms())(sql))


async def test_what_waits_is_counted_as_it_would_be_shown(world: World) -> None:
    await world.bob.send("ada", "psst")
    await world.human.send("ada", "own", priority="low")
    await kept(world.ada, 2)
    both = {"next": 1, "low": 1, "hint": "call inbox"}
    assert await world.ada.waiting() == {"waiting": both}
    await world.revoke("message")
    assert await world.ada.waiting() == {"waiting": {"low": 1, "hint": "call inbox"}}
