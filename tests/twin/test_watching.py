"""The watch beside an attached session: what it keeps back, tells the broker, and rings for."""

import os
import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from claudemesh_mcp.routes import facts, records, rests
from claudemesh_mcp.routes.facts import Activity, Mode
from claudemesh_mcp.sdk import Mesh
from claudemesh_mcp.watching import CHANNEL_METHOD
from claudemesh_wire import handshake
from tests.support.twin import a_mesh, until
from tests.support.twopeople import LIMIT_S, kept
from tests.support.watched import comes, nobody, watched

KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Client:
    """Keeps what a client is notified of."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def notify(self, method: str, params: dict[str, Any]) -> None:
        self.heard.append((method, params))


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
