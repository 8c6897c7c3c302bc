"""Bad input and bad circumstances at real sessions: a typed error each, and nothing lost."""

import os
import re
import resource
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import mcp_types
import pytest
from mcp.shared.exceptions import MCPError

from claudemesh_mcp.home import file_lock
from claudemesh_wire import DATA_VERSION
from tests.support.live import LIMIT_S, Live, LiveSession, alive

KIB = 1024


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path) as live:
        yield live


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("send", {"to": "bob", "text": ""}, "empty_text"),
    ("send", {"to": "bob", "text": "ä" * (128 * KIB) + "."}, "message_too_large"),
    ("send", {"to": "bob", "text": 7}, "invalid"),
    ("send", {"to": "bob"}, "invalid"),
    ("send", {"to": "bob", "text": "a", "too": "eve"}, "invalid"),
    ("send", {"to": "bob", "text": "a", "priority": "urgent"}, "invalid"),
    ("send", {"to": "bob", "text": "a", "expires_in_s": -1}, "invalid"),
    ("send", {"to": "bob", "text": "a", "reply_to": "no id"}, "bad_reply_to"),
    ("send", {"to": [], "text": "a"}, "invalid"),
    ("send", {"to": "", "text": "a"}, "bad_address"),
    ("send", {"to": "b\x07ob", "text": "a"}, "bad_address"),
    ("send", {"to": {"handle": "bob"}, "text": "a"}, "invalid"),
    ("send", {"to": ["bob"] * 10_000, "text": "a"}, "too_many_recipients"),
    ("send", {"to": [f"p{n}" for n in range(10_000)], "text": "a"}, "too_many_recipients"),
    ("send", {"to": ["bob", "nobody"], "text": "a"}, "not_found"),
    ("send", {"to": "@nobody", "text": "a"}, "not_found"),
    ("send", {"to": "ada", "text": "a"}, "invalid"),
    ("inbox", {"limit": 0}, "invalid"),
    ("inbox", {"limit": "many"}, "invalid"),
    ("inbox", {"wait_s": 1e9}, "invalid"),
    ("inbox", {"id": "msg_" + "a" * 26}, "not_found"),
    ("message_status", {"id": "msg_" + "a" * 26}, "not_found"),
    ("message_status", {"id": "\x00"}, "not_found"),
    ("search_peers", {"filters": {"online": "perhaps"}}, "invalid"),
    ("search_peers", {"query": "x" * 1000}, "invalid"),
    ("set_profile", {"handle": "a\x1b[2Jb"}, "bad_handle"),
    ("set_profile", {"handle": ""}, "bad_handle"),
    ("set_profile", {"handle": "p_" + "a" * 26}, "bad_handle"),
    ("set_profile", {"profile": {"a": "x" * (4 * KIB)}}, "profile_too_large"),
    ("set_profile", {"status": "asleep"}, "invalid"),
    ("join", {"address": "team"}, "not_a_group"),
    ("join", {"address": "@te am"}, "bad_address"),
    ("leave", {"address": "@team"}, "not_in_group"),
]


async def test_bad_input_is_refused_by_code_and_hint_and_nothing_is_sent(live: Live) -> None:
    ada, bob = await live.join_all("ada", "bob")
    for tool, arguments, code in REFUSED:
        error = await ada.refusal(tool, **arguments)
        assert error["code"] == code, (tool, str(arguments)[:80])
    with pytest.raises(MCPError) as unknown:
        await ada.client.call_tool("shout", {})
    assert unknown.value.code == mcp_types.INVALID_PARAMS
    longest = "ä" * (128 * KIB)
    sent = await ada.call("send", to="bob", text=longest)
    (read,) = await bob.read(1)
    assert (read["id"], read["text"]) == (sent["id"], longest[: len(read["text"])])
    assert (await bob.call("inbox"))["messages"] == []
    assert (await ada.call("mesh_info"))["problems"] == []


@dataclass(frozen=True)
class Trouble:
    """What keeps a broker from starting, as long as the block lasts."""

    code: str
    lasts: Callable[[Live], AbstractContextManager[None]]


@contextmanager
def port_in_use(live: Live) -> Iterator[None]:
    """Another program has the port that the broker is to have."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with file_with(live.home.broker / "broker.toml", f"port = {port}\n"):
            yield


@contextmanager
def misspelt_setting(live: Live) -> Iterator[None]:
    """The broker's config file makes no sense."""
    with file_with(live.home.broker / "broker.toml", "prot = 1\n"):
        yield


@contextmanager
def file_with(file: Path, text: str) -> Iterator[None]:
    """Have a file with a text."""
    file.write_text(text, "utf-8")
    try:
        yield
    finally:
        file.unlink()


@contextmanager
def damaged_database(live: Live) -> Iterator[None]:
    """The database was overwritten, and a copy is put back later."""
    file = live.home.broker / "broker.sqlite3"
    whole, damaged = file.read_bytes(), b"no database" * KIB
    file.write_bytes(damaged)
    try:
        yield
        assert file.read_bytes() == damaged
    finally:
        file.write_bytes(whole)


@contextmanager
def newer_database(live: Live) -> Iterator[None]:
    """The database was last used by a newer broker."""
    file = live.home.broker / "broker.sqlite3"
    with closing(sqlite3.connect(file)) as database:
        database.execute(f"PRAGMA user_version = {DATA_VERSION + 1}")
    newer = file.read_bytes()
    try:
        yield
        assert file.read_bytes() == newer
    finally:
        with closing(sqlite3.connect(file)) as database:
            database.execute(f"PRAGMA user_version = {DATA_VERSION}")


TROUBLES = [
    Trouble("port_in_use", port_in_use),
    Trouble("config_invalid", misspelt_setting),
    Trouble("data_corrupt", damaged_database),
    Trouble("data_newer", newer_database),
]


async def test_what_keeps_the_broker_from_starting_is_told_and_nothing_is_lost_by_it(
    live: Live,
) -> None:
    ada, bob = await live.join_all("ada", "bob")
    await bob.end()
    sent: list[str] = []
    for trouble in TROUBLES:
        sent.append((await ada.call("send", to="bob", text=trouble.code))["id"])
        with ExitStack() as lasting:
            # Nobody may start a broker between the end of this one and the trouble.
            with file_lock(live.home.run / "start.lock", LIMIT_S):
                os.kill(live.broker.pid, signal.SIGTERM)
                with file_lock(live.home.broker / "lock", LIMIT_S):
                    lasting.enter_context(trouble.lasts(live))
            assert (await ada.refusal("send", to="bob", text="no"))["code"] == trouble.code
        # The very next call finds that it was mended.
        assert (await ada.call("search_peers", query="bob"))["total"] == 1
    bob = await live.join("bob")
    assert [one["id"] for one in await bob.read(len(sent))] == sent
    assert (await ada.call("mesh_info"))["problems"] == []


needs_limits = pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="the limits of another process can't be set here"
)


@contextmanager
def full_disk(pid: int, *files: Path) -> Iterator[None]:
    """Let a process write no file larger than the largest of these is now."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    largest = max(file.stat().st_size for file in files)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@needs_limits
async def test_a_session_on_a_full_disk_says_so_and_reads_on_when_there_is_room(
    live: Live,
) -> None:
    ada, bob = await live.join_all("ada", "bob")
    first = await ada.call("send", to="bob", text="before")
    await ada.reached("delivered", first)
    me = (await bob.call("mesh_info"))["me"]
    with full_disk(bob.pid, *(live.home.sessions / me["peer"]).glob("peer.db*")):
        refused = await bob.refusal("send", to="ada", text="x" * 100 * KIB)
        assert refused["code"] == "storage_full"
        shown = await bob.call("inbox", peek=True)
        assert [one["id"] for one in shown["messages"]] == [first["id"]]
        sent = [await ada.call("send", to="bob", text="y" * 100 * KIB) for _ in range(3)]
        while "storage_full" not in await problems(bob):
            pass
    assert [one["id"] for one in await bob.read(4)] == [one["id"] for one in (first, *sent)]
    assert (await bob.call("inbox"))["messages"] == []
    again = await bob.call("send", to="ada", text="There is room again.")
    assert [one["id"] for one in await ada.read(1)] == [again["id"]]


async def problems(session: LiveSession) -> list[str]:
    return [one["code"] for one in (await session.call("mesh_info"))["problems"]]


@needs_limits
async def test_a_broker_on_a_full_disk_refuses_and_takes_what_waits_when_there_is_room(
    live: Live,
) -> None:
    ada, bob = await live.join_all("ada", "bob")
    before = await ada.call("send", to="bob", text="before")
    await ada.reached("delivered", before)
    sent: list[dict[str, Any]] = []

    async def send() -> None:
        sent.append(await ada.call("send", to="bob", text="y" * 100 * KIB))

    async with anyio.create_task_group() as tasks:
        with full_disk(live.broker.pid, *live.home.broker.glob("broker.sqlite3*")):
            tasks.start_soon(send)
            refused = re.compile(r"kind=messages\.send .* outcome=storage_full")
            while not refused.search(live.log):
                await ada.call("search_peers")
            error = await bob.refusal("set_profile", summary="z" * 500)
            assert error["code"] == "storage_full"
            assert [one["id"] for one in await bob.read(1)] == [before["id"]]
            assert not sent
    assert [one["id"] for one in await bob.read(1)] == [one["id"] for one in sent]
    assert await problems(ada) == await problems(bob) == []
