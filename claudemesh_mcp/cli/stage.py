"""The stage of the demo: a throw-away home, a real broker, and real sessions with their clients.

``demo.py`` plays on it. Everything runs as it does for a user, in processes of its own that are
driven from outside: the broker by `claudemesh up` and `down`, a session by a small MCP client.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from claudemesh_mcp.config import broker_environment
from claudemesh_wire import VERSION

ANSWER_S: Final = 30.0
END_S: Final = 10.0
_MOST_BYTES: Final = 4 * 1024 * 1024
_PROGRAM: Final = (sys.executable, "-m", "claudemesh_mcp")


class Failed(Exception):
    """Something that was to happen did not; the text says what."""


@dataclass
class Actor:
    """A session of `claudemesh mcp`, seen by the client that started it.

    Args:
        name: The handle it wishes for.
        process: The session's process.
        peer: Its lasting id, once it has said so.
    """

    name: str
    process: Process
    peer: str = ""
    _lines: BufferedByteReceiveStream = field(init=False)
    _number: int = 0

    def __post_init__(self) -> None:
        """Read what it prints line by line."""
        if self.process.stdout is None:
            raise Failed(f"{self.name} has no stdout")
        self._lines = BufferedByteReceiveStream(self.process.stdout)

    async def shake_hands(self) -> None:
        """Do what an MCP client does first, and learn who this peer is."""
        client = {"name": "claudemesh-demo", "version": VERSION}
        await self.ask(
            "initialize",
            {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client},
        )
        await self._say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        listed = await self.ask("tools/list", {})
        names = {tool["name"] for tool in listed["tools"]}
        if not {"send", "inbox", "search_peers", "message_status"} <= names:
            raise Failed(f"{self.name} lacks tools: it has {sorted(names)}")
        self.peer = (await self.call("mesh_info"))["me"]["peer"]

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool and give its structured result.

        Raises:
            Failed: the tool refused.
        """
        result = await self.ask("tools/call", {"name": tool, "arguments": arguments})
        content: dict[str, Any] = result.get("structuredContent", {})
        if result.get("isError"):
            raise Failed(f"{self.name}'s {tool} was refused: {content.get('error', result)}")
        return content

    async def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Ask the session and give its result.

        Raises:
            Failed: it did not answer in time, or with an error.
        """
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        try:
            with anyio.fail_after(ANSWER_S):
                await self._say(request)
                while (answer := await self._hear()).get("id") != self._number:
                    pass
        except (TimeoutError, anyio.BrokenResourceError, anyio.IncompleteRead) as error:
            raise Failed(f"{self.name} did not answer {method}") from error
        if "error" in answer:
            raise Failed(f"{self.name} answered {method} with {answer['error']}")
        return answer["result"]

    async def kill(self) -> None:
        """End the process as a crash would."""
        self.process.kill()
        await self.process.wait()

    async def leave(self) -> None:
        """Close the session as a client does, by ending its stdin.

        Raises:
            Failed: it did not end by itself, or not well.
        """
        if self.process.stdin is not None:
            await self.process.stdin.aclose()
        try:
            with anyio.fail_after(END_S):
                status = await self.process.wait()
        except TimeoutError as error:
            raise Failed(f"{self.name} did not end") from error
        if status != 0:
            raise Failed(f"{self.name} ended with status {status}")

    async def _say(self, message: dict[str, Any]) -> None:
        if self.process.stdin is None:
            raise Failed(f"{self.name} has no stdin")
        await self.process.stdin.send(json.dumps(message).encode() + b"\n")

    async def _hear(self) -> dict[str, Any]:
        return json.loads(await self._lines.receive_until(b"\n", _MOST_BYTES))


@dataclass
class Stage:
    """Where the demo plays.

    Args:
        home: The throw-away home.
        environment: Of every process on it.
    """

    home: Path
    environment: Mapping[str, str]
    actors: list[Actor] = field(default_factory=list[Actor])

    @property
    def log(self) -> Path:
        """What the sessions wrote to stderr."""
        return self.home / "demo.log"

    async def run(self, *words: str) -> dict[str, Any]:
        """Run a command of `claudemesh` that prints JSON.

        Raises:
            Failed: it did not work.
        """
        done = await anyio.run_process(
            [*_PROGRAM, *words, "--json"], env=self.environment, cwd=self.home, check=False
        )
        if done.returncode != 0:
            said = (done.stdout or done.stderr).decode(errors="replace").strip()
            raise Failed(f"claudemesh {' '.join(words)} ended with {done.returncode}: {said}")
        return json.loads(done.stdout)

    async def enter(self, name: str, session: str) -> Actor:
        """Start a session and shake hands with it.

        Args:
            name: The handle it wishes for.
            session: The id of the Claude session that it belongs to.
        """
        with self.log.open("ab") as log:
            process = await anyio.open_process(
                [*_PROGRAM, "mcp", "--name", name],
                env={**self.environment, "CLAUDE_CODE_SESSION_ID": session},
                cwd=self.home,
                stderr=log,
            )
        actor = Actor(name, process)
        self.actors.append(actor)
        await actor.shake_hands()
        return actor

    def check_sealed(self, identifier: str, words: str) -> list[str]:
        """Look for a message in the broker's files.

        Args:
            identifier: Its id, which must be there: else this looked in the wrong place.
            words: Part of its text, which must not.

        Returns:
            The files that hold the message.

        Raises:
            Failed: the message is in no file, or its text is in one.
        """
        files = [path for path in (self.home / "broker").rglob("*") if path.is_file()]
        holding = [path.name for path in files if identifier.encode() in path.read_bytes()]
        leaking = [path.name for path in files if words.encode() in path.read_bytes()]
        if not holding:
            raise Failed(f"no file of the broker holds {identifier}")
        if leaking:
            raise Failed(f"the text of {identifier} can be read in {', '.join(leaking)}")
        return sorted(holding)

    async def dismiss(self) -> None:
        """Kill the sessions that still run."""
        with anyio.CancelScope(shield=True):
            for actor in self.actors:
                if actor.process.returncode is None:
                    with suppress(ProcessLookupError):
                        actor.process.kill()
                await actor.process.aclose()

    async def strike(self) -> None:
        """End every process that still runs, and remove the home."""
        await self.dismiss()
        with anyio.CancelScope(shield=True), suppress(Failed):
            await self.run("down", "--force")
        shutil.rmtree(self.home, ignore_errors=True)


@asynccontextmanager
async def raised() -> AsyncGenerator[Stage]:
    """Raise a stage, and strike it at the end, also when the play is interrupted."""
    stage = _bare_stage()
    try:
        yield stage
    finally:
        await stage.strike()


def _bare_stage() -> Stage:
    home = Path(tempfile.mkdtemp(prefix="claudemesh-demo-")).resolve()
    kept = {name: value for name, value in broker_environment().items() if "CLAUDEMESH" not in name}
    # The user's keyring is none of the demo's business.
    return Stage(home, {**kept, "CLAUDEMESH_HOME": str(home), "CLAUDEMESH_KEYRING": "off"})
