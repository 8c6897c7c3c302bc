"""One home with real processes: its broker, and sessions driven by the `mcp` package's client.

The process tests open a ``Live`` on a folder of their own. Nothing of a session is reached but
through its client, its signals and its exit code: the client is an independent peer.
"""

import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import anyio
import mcp_types
from anyio.abc import TaskGroup, TaskStatus
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from claudemesh_mcp.brokerinfo import BrokerInfo
from claudemesh_mcp.config import Paths, broker_environment
from claudemesh_mcp.home import Home
from claudemesh_mcp.launcher import Launcher
from tests.support import warmstart

LIMIT_S: Final = 60
STOP_S: Final = 10
SESSION: Final = (sys.executable, "-m", "claudemesh_mcp", "mcp")
# The limits stay on; they are set to what tests ask that wait by asking again.
_LIMITS: Final = {
    "CLAUDEMESH_BROKER_CHAT_PER_S": "1000",
    "CLAUDEMESH_BROKER_CHAT_BURST": "1000",
    "CLAUDEMESH_BROKER_RPC_PER_S": "5000",
    "CLAUDEMESH_BROKER_RPC_BURST": "5000",
}
_ID: Final = "CLAUDE_CODE_SESSION_ID"
# The client hides process and exit code: the shells around the session write both to a pipe, as the
# stand-in does for a session that starts warm. The outer one outlives the SIGTERM that the client
# sends to both, when the session ends too slowly. It stands for the client of this session alone:
# it gives an id to what it starts, and has none.
_WATCHED: Final = """trap : TERM
sh -c 'echo $$ >"$0"; exec env CLAUDE_CODE_SESSION_ID="$@"' "$0" "$@"
echo $? >"$0"
"""


async def a_moment() -> None:
    """Let other processes work: to be asked all the time would keep them from it."""
    await anyio.sleep(0.05)


@dataclass(eq=False)
class LiveSession:
    """A session's process, and the client that started it."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    pid: int = 0
    status: int | None = None
    client: Client = field(init=False)
    _leaving: anyio.Event = field(default_factory=anyio.Event)
    _left: anyio.Event = field(default_factory=anyio.Event)
    _ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def errors(self) -> str:
        """What the session wrote to stderr."""
        return (self.folder / "stderr").read_text("utf-8")

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Be this session's client, from its start until ``end``."""
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        # Open for both: then neither end waits for the other, and there is no end of file.
        handle = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        try:
            with (self.folder / "stderr").open("w") as errors:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._watch, handle)
                    await self._be_client(pipe, errors, task_status)
                    # The client has seen the end; what was to be told of it is in the pipe.
                    tasks.cancel_scope.cancel()
            self._hear(handle)
        finally:
            os.close(handle)
            if self.status is None:
                self.status = -signal.SIGKILL
            self._ended.set()
            self._left.set()

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that does what it is asked; its result is checked against its schema."""
        result = await self.result(tool, **arguments)
        assert not result.is_error, result.structured_content
        assert result.structured_content is not None
        return result.structured_content

    async def refusal(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that refuses; gives its error, which always says what to do."""
        result = await self.result(tool, **arguments)
        assert result.is_error, result.structured_content
        assert result.structured_content is not None
        error: dict[str, Any] = result.structured_content["error"]
        assert error["message"]
        assert error["hint"], error
        return error

    async def result(self, tool: str, **arguments: Any) -> mcp_types.CallToolResult:
        """Call a tool; both forms of its result say the same."""
        with anyio.fail_after(LIMIT_S):
            result = await self.client.call_tool(tool, arguments)
        (text,) = result.content
        assert isinstance(text, mcp_types.TextContent)
        assert json.loads(text.text) == result.structured_content
        return result

    async def connected(self) -> "LiveSession":
        """Wait until it takes part in the mesh."""
        await self.call("search_peers", limit=1)
        return self

    async def read(self, count: int, **arguments: Any) -> list[dict[str, Any]]:
        """Read until so many messages were printed."""
        messages: list[dict[str, Any]] = []
        with anyio.fail_after(LIMIT_S):
            while len(messages) < count:
                shown = await self.call("inbox", wait_s=LIMIT_S, **arguments)
                messages += shown["messages"]
        return messages

    async def sees_gone(self, *handles: str) -> None:
        """Wait until the mesh shows others as away."""
        with anyio.fail_after(LIMIT_S):
            while True:
                rows = (await self.call("search_peers"))["peers"]
                if {*handles} <= {row["handle"] for row in rows if row["status"] == "offline"}:
                    return
                await a_moment()

    async def how_far(self, sent: dict[str, Any]) -> str:
        """Ask what status a message has with its one recipient."""
        (row,) = (await self.call("message_status", id=sent["id"]))["recipients"]
        return row["status"]

    async def reached(self, status: str, sent: dict[str, Any]) -> dict[str, Any]:
        """Wait until a message's one recipient has a status; gives its row."""
        with anyio.fail_after(LIMIT_S):
            while True:
                told = await self.call("message_status", id=sent["id"])
                (row,) = told["recipients"]
                if row["status"] == status:
                    return row
                await a_moment()

    def signal(self, number: signal.Signals) -> None:
        """Signal the process."""
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """Kill the process and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def ended(self) -> int:
        """Wait until the process has ended by itself; gives its exit code."""
        with anyio.fail_after(LIMIT_S):
            await self._ended.wait()
        assert self.status is not None
        return self.status

    async def end(self) -> int:
        """Close the session as its client does, by the end of its stdin; gives its exit code."""
        self._leaving.set()
        with anyio.fail_after(LIMIT_S):
            await self._left.wait()
        return await self.ended()

    async def _be_client(self, pipe: Path, errors: TextIO, task_status: TaskStatus[None]) -> None:
        started = StdioServerParameters(
            command="sh",
            args=["-c", _WATCHED, str(pipe), self.environment[_ID], *self.command],
            env={name: value for name, value in self.environment.items() if name != _ID},
            cwd=self.folder,
        )
        if self.command[: len(SESSION)] == SESSION:
            started.command = warmstart.python()
            started.args = ["--told", str(pipe), *self.command[1:]]
            started.env = self.environment
        async with Client(stdio_client(started, errors)) as client:
            self.client = client
            # Now, so that the client has no reason to ask for them behind a result.
            await client.list_tools()
            task_status.started()
            await self._leaving.wait()

    async def _watch(self, handle: int) -> None:
        while self.status is None:
            await anyio.wait_readable(handle)
            self._hear(handle)
        self._ended.set()

    def _hear(self, handle: int) -> None:
        """Read what the shells have told so far: first the process, then its exit code."""
        with suppress(BlockingIOError):
            for word in os.read(handle, 100).split():
                if self.pid:
                    self.status = int(word)
                else:
                    self.pid = int(word)


class Live:
    """A home with its processes.

    Args:
        folder: Where it is; each session works in a folder of its own beside it.
        tasks: Runs the clients.
        settings: Variables for every process.
    """

    def __init__(self, folder: Path, tasks: TaskGroup, settings: dict[str, str]) -> None:
        self.folder = folder
        self.home = Home.open(Paths.of(folder / "home"))
        self.sessions: list[LiveSession] = []
        self._tasks = tasks
        self._settings = settings

    @property
    def launcher(self) -> Launcher:
        """What finds, starts and ends the broker, as a session does it."""
        return Launcher(self.home)

    @property
    def broker(self) -> BrokerInfo:
        """The broker that runs."""
        found = self.launcher.find()
        assert found is not None
        return found

    @property
    def log(self) -> str:
        """What the brokers of this home have logged."""
        return (self.home.broker / "broker.log").read_text("utf-8")

    async def open(
        self,
        name: str,
        *flags: str,
        session: str = "",
        command: tuple[str, ...] = SESSION,
        **settings: str,
    ) -> LiveSession:
        """Start a session; ``connected`` waits until it takes part.

        Args:
            name: The handle it wishes for.
            flags: Of `claudemesh mcp`.
            session: The Claude session it belongs to; the one of its name if not given.
            command: What starts it.
            settings: Further variables of its environment.
        """
        folder = self.folder / f"session-{len(self.sessions)}"
        folder.mkdir()
        opened = LiveSession(name, (*command, *flags), self.environment(**settings), folder)
        opened.environment |= {
            "CLAUDEMESH_NAME": name,
            _ID: session or f"session of {name}",
        }
        self.sessions.append(opened)
        with anyio.fail_after(LIMIT_S):
            await self._tasks.start(opened.run)
        return opened

    async def join(self, name: str, *flags: str, **more: Any) -> LiveSession:
        """Start a session and wait until it takes part."""
        return await (await self.open(name, *flags, **more)).connected()

    async def join_all(self, *names: str) -> list[LiveSession]:
        """Start sessions at once and wait until all of them take part."""
        joined: dict[str, LiveSession] = {}

        async def join(name: str) -> None:
            joined[name] = await self.join(name)

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(join, name)
        return [joined[name] for name in names]

    def records(self) -> list[dict[str, Any]]:
        """Give what hooks find of the open sessions, in no order."""
        folder = self.home.data / "run" / "clients"
        return [json.loads(path.read_bytes()) for path in folder.glob("*.json")]

    async def recorded(self, *handles: str) -> list[dict[str, Any]]:
        """Wait until hooks find sessions of these handles alone; gives their records, in order."""
        with anyio.fail_after(LIMIT_S):
            while True:
                found = {one["handle"]: one for one in self.records()}
                if found.keys() == {*handles}:
                    return [found[handle] for handle in handles]
                await a_moment()

    def environment(self, **more: str) -> dict[str, str]:
        """Give what a process of this home finds in its environment."""
        machine = broker_environment().items()
        kept = {name: value for name, value in machine if "CLAUDEMESH" not in name}
        own = {"CLAUDEMESH_HOME": str(self.home.data), "CLAUDEMESH_KEYRING": "off"}
        return kept | own | _LIMITS | self._settings | more

    def kill_broker(self) -> BrokerInfo:
        """Kill the broker; gives what it had said about itself."""
        killed = self.broker
        os.kill(killed.pid, signal.SIGKILL)
        return killed

    async def stop_broker(self) -> None:
        """End the broker in good order and wait until it has."""
        with anyio.fail_after(LIMIT_S):
            assert await self.launcher.stop(STOP_S)


@asynccontextmanager
async def alive(folder: Path, **settings: str) -> AsyncGenerator[Live]:
    """Open a home; leaving ends every process that was started on it."""
    async with anyio.create_task_group() as tasks:
        live = Live(folder, tasks, settings)
        try:
            yield live
        finally:
            with anyio.CancelScope(shield=True):
                for session in live.sessions:
                    session._leaving.set()
                for session in live.sessions:
                    with anyio.move_on_after(LIMIT_S):
                        await session._left.wait()
                assert await live.launcher.stop(STOP_S, force=True)
            tasks.cancel_scope.cancel()
