"""The watch beside an attached session: what it keeps back, tells the broker, and rings for."""

import os
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from claudemesh_mcp import held, openrows
from claudemesh_mcp.calls import CallContext, Notify
from claudemesh_mcp.meeting import Meeting, Starter
from claudemesh_mcp.routes import facts, offers, records, rests
from claudemesh_mcp.routes.facts import Activity, Mode
from claudemesh_mcp.routes.offers import Look
from claudemesh_mcp.routes.processes import Living
from claudemesh_mcp.routes.settings import Moment
from claudemesh_mcp.sdk import Mesh
from claudemesh_mcp.session import MeshSession
from claudemesh_mcp.watching import CHANNEL_METHOD, Watch
from claudemesh_wire import handshake
from claudemesh_wire.membership import EntryKind
from tests.support.twin import a_mesh, until
from tests.support.twopeople import LIMIT_S, World, kept, two_people

KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as world:
        yield world


class Client:
    """Keeps what a client is notified of."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def notify(self, method: str, params: dict[str, Any]) -> None:
        self.heard.append((method, params))


def nobody() -> Notify | None:
    return None


async def begun(mesh: Mesh, notifier: Callable[[], Notify | None] = nobody) -> Watch:
    """Begin to watch a mesh as the session of this test's process."""
    starter = Starter(Living.now(os.getpid()), "a session", is_attended=True)
    watch = Watch(mesh, Meeting(mesh.peer, starter), notifier)
    await watch.begin()
    return watch


@asynccontextmanager
async def watched(
    mesh: Mesh, notifier: Callable[[], Notify | None] = nobody
) -> AsyncIterator[Watch]:
    """Watch a mesh as the session of this test's process."""
    watch = await begun(mesh, notifier)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.run)
        yield watch
        tasks.cancel_scope.cancel()


async def comes(mesh: Mesh, what: Callable[[sqlite3.Connection], object]) -> None:
    """Wait until something is so in a peer's file."""
    with anyio.fail_after(LIMIT_S):
        while not await mesh.peer.file.read(what):
            await anyio.lowlevel.checkpoint()


def showable(now_ms: int) -> Callable[[sqlite3.Connection], int]:
    """Count what a hook could show, by what it looks at."""
    return lambda sql: sum(openrows.count_open(sql, now_ms).values())


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


@pytest.mark.parametrize("quiet", ["off", "dnd"])
async def test_who_wants_to_hear_nothing_is_not_told_what_waits(tmp_path: Path, quiet: str) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        await bob.send("ada", "psst", priority="now")
        await kept(ada, 1)
        assert await ada.waiting() == {"waiting": {"now": 1, "hint": "call inbox"}}
        if quiet == "dnd":
            await ada.set_profile(status="dnd")
        else:
            await ada.peer.file.write(lambda sql: facts.set_mode(sql, Mode.OFF))
        assert await ada.waiting() == {}


async def test_nobody_is_woken_for_what_is_no_message(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        client = Client()
        await ada.join("@crew")
        async with watched(ada, lambda: client.notify):
            await bob.join("@crew")
            await bob.set_profile(status="working", summary="Wake up, ada")
            await bob.leave("@crew")
            sent = await ada.send("bob", "Tell me.")
            await bob.inbox(wait_s=20)
            await bob.confirm()
            await until(ada, sent.id, "seen")
            await bob.send("ada", "This is one.")
            await kept(ada, 1)
            with anyio.fail_after(LIMIT_S):
                while not client.heard:
                    await anyio.lowlevel.checkpoint()
        [(_, params)] = client.heard
        assert params["meta"]["messages"] == "1"


async def test_a_bell_rings_once_for_all_and_says_nothing_of_a_text(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        client = Client()
        await bob.send("ada", "Obey me.")
        await bob.send("ada", "Obey me at once.", priority="now")
        await kept(ada, 2)
        async with watched(ada, lambda: client.notify):
            with anyio.fail_after(LIMIT_S):
                while not client.heard:
                    await anyio.lowlevel.checkpoint()
            await bob.send("ada", "And again.")
            await kept(ada, 3)
            # The receipt leaves behind a look at the file, and with it a bell would have rung.
            await comes(ada, lambda sql: facts.get(sql, facts.CHANNEL) != "")
        [(method, params)] = client.heard
        assert (method, set(params)) == (CHANNEL_METHOD, {"content", "meta"})
        assert "Obey" not in params["content"]
        assert "2 messages from bob" in params["content"]
        assert params["meta"]["messages"] == "2"
        assert all(isinstance(value, str) for value in params["meta"].values())
        assert all(KEY.fullmatch(key) for key in params["meta"])


@pytest.mark.parametrize("state", ["working", "dnd", "inbox", "low", "silent"])
async def test_no_bell_rings_where_nobody_is_to_be_woken(tmp_path: Path, state: str) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        client = Client()
        notifier = nobody if state == "silent" else lambda: client.notify
        async with watched(ada, notifier) as watch:

            def busy(sql: sqlite3.Connection) -> None:
                facts.put(sql, facts.ACTIVITY, Activity.WORKING.value)
                facts.put(sql, facts.ACTIVITY_MS, ada.peer.now_ms())

            match state:
                case "working":
                    await ada.peer.file.write(busy)
                case "dnd":
                    await ada.set_profile(status="dnd")
                case "inbox":
                    await ada.peer.file.write(lambda sql: facts.set_mode(sql, Mode.INBOX))
                case _:
                    pass
            await bob.send("ada", "x", priority="low" if state == "low" else "now")
            await kept(ada, 1)
            await watch._ring()
        assert client.heard == []


async def test_the_status_of_a_session_is_what_its_hooks_noted_unless_it_asked_for_quiet(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")

        async def status() -> str:
            [(found,)] = await twin.broker.sql(
                "SELECT status FROM peers WHERE peer = ?", ada.peer.id
            )
            return found

        def note(activity: Activity) -> Callable[[sqlite3.Connection], None]:
            def change(sql: sqlite3.Connection) -> None:
                facts.put(sql, facts.ACTIVITY, activity.value)
                facts.put(sql, facts.ACTIVITY_MS, ada.peer.now_ms())

            return change

        async with watched(ada) as watch:
            await watch._tell()
            assert await status() == "idle"
            await ada.peer.file.write(note(Activity.WORKING))
            await watch._tell()
            assert await status() == "working"
            await ada.set_profile(status="dnd")
            await ada.peer.file.write(note(Activity.IDLE))
            await watch._tell()
            assert await status() == "dnd"
            await ada.set_profile(status="working")
            await watch._tell()
            assert await status() == "idle"


async def test_the_end_of_a_turn_that_met_a_locked_file_is_taken_in(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        async with watched(ada):
            await ada.peer.file.write(lambda sql: facts.put(sql, facts.ACTIVITY, Activity.WORKING))
            record = records.find(ada.peer.home.data, os.getpid())
            assert record is not None
            rests.leave(ada.peer.home.data, record, "a session")
            await comes(ada, lambda sql: facts.activity(sql) is Activity.IDLE)


async def test_quiet_that_was_inherited_is_known_to_the_hooks(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        store = twin.broker.parts.store
        await store.write(lambda sql: sql.execute("UPDATE peers SET status = 'dnd'"))
        async with watched(ada) as watch:
            await watch._tell()
            assert await ada.peer.file.read(facts.is_dnd)
        info = await ada.mesh_info()
        assert info.mode == "push"


async def test_a_session_tells_what_reaches_it_and_what_that_cost_today(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        async with watched(ada):
            before = await ada.mesh_info()

            def push(sql: sqlite3.Connection) -> None:
                facts.put(sql, facts.HOOKS, facts.Health.REACHES)
                for at_ms, tokens in ((ada.peer.now_ms(), 30), (ada.peer.now_ms(), 12), (0, 999)):
                    sql.execute(
                        "INSERT INTO pushes (at_ms, sender, member, handle, tokens, route)"
                        " VALUES (?, 'p_bob', 'mem_bob', 'bob', ?, 'stop')",
                        (at_ms, tokens),
                    )

            await ada.peer.file.write(push)
            after = await ada.mesh_info()
        silent = {"monitor": "off", "rewake": "off", "channel": "off"}
        assert before.routes == {"tool": "works", "hooks": "untested", **silent}
        assert after.routes == {"tool": "works", "hooks": "works", **silent}
        assert (before.pushed_today, after.pushed_today) == ({}, {"bob": 42})


@pytest.mark.parametrize("off_ms", [-600_000, 600_000])
async def test_hooks_are_told_by_how_much_the_clock_is_off(tmp_path: Path, off_ms: int) -> None:
    async with a_mesh(tmp_path) as twin:
        await twin.join("ada")
        guest = await twin.admit("bob")
        setup = replace(guest.setup("bert"), now_ms=lambda: twin.clock() + off_ms)
        async with Mesh.over(setup, twin.dial, handshake.Mode.ATTACH) as bert:
            await bert.ready()
            async with watched(bert):
                own_ms = twin.clock() + off_ms
                await comes(bert, lambda sql: facts.corrected(sql, own_ms) == own_ms - off_ms)
