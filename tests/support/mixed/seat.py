"""The human's side of a mixed run: one session at a terminal or in print mode, ended and resumed.

``run.py`` lets it begin, prompt, be struck and come back; it knows nothing of messages.
"""

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio

from claudemesh_mcp.routes import records
from claudemesh_mcp.routes.processes import Living, holder
from claudemesh_mcp.routes.records import Record
from tests.support.claude.client import Claude
from tests.support.claude.terminal import Terminal, at_terminal
from tests.support.mixed.plan import CLIENT, MONITOR, REWAKE, SERVER
from tests.support.mixed.stage import Working

_LOOK_S: Final = 0.05
_PRESENT_S: Final = 40
_QUIET_S: Final = 40
_GONE_S: Final = 20
_TYPED: Final = 3
_TYPED_S: Final = 20


class Seat:
    """A session.

    Args:
        home: The home of its mesh.
        client: The client.
        model: Its model.
        words: What loads its plugin.
    """

    def __init__(self, home: Path, client: Claude, model: Working, words: list[str]) -> None:
        self.client = client
        self.model = model
        self.pid = 0
        self.record: Record | None = None
        self._home = home
        self._words = words
        self._stack = AsyncExitStack()
        self._terminal: Terminal | None = None

    @property
    def is_here(self) -> bool:
        """Whether client and server live."""
        record = self.record
        return bool(record and record.client.is_alive and Living(record.server, 0).is_alive)

    async def sit_down(self) -> None:
        """Start the client at a terminal: with its session, if it had one."""
        self.model.present.clear()
        self.model.work((), 0)
        screen = at_terminal(self.client, *self._words, *self._resume())
        self._terminal = await self._stack.enter_async_context(screen)
        await self._met(self._terminal.pid)

    async def get_up(self) -> None:
        """Leave the terminal, which ends the client."""
        self._terminal = None
        await self._stack.aclose()

    async def type(self, text: str) -> None:
        """Type a line, again if it does not come up: a resumed client may drop the first keys."""
        assert self._terminal is not None
        for _ in range(_TYPED):
            with anyio.move_on_after(_TYPED_S):
                return await self._terminal.type(text)
            self._terminal.press("C-u")
        raise AssertionError(f"{text!r} can't be typed; the screen:\n{self._terminal.screen}")

    async def prompt(self, text: str) -> None:
        """Type a prompt, and wait until its turn has begun."""
        before = len(self.model.turns)
        await self.type(text)
        with anyio.move_on_after(_QUIET_S):
            # That a client has died gives no sign here.
            while len(self.model.turns) == before and self._lives():  # noqa: ASYNC110
                await anyio.sleep(_LOOK_S)

    async def quiet(self) -> None:
        """Wait until no turn goes on, or nobody is there who could end it."""
        with anyio.move_on_after(_QUIET_S):
            # As above.
            while not self.model.is_quiet and self._lives():  # noqa: ASYNC110
                await anyio.sleep(_LOOK_S)

    @asynccontextmanager
    async def printing(self, text: str) -> AsyncGenerator[None]:
        """Run ``claude -p`` with the session, beside the caller; leaving waits for its end."""
        self.model.present.clear()
        words = [*self._words, *self._resume()]
        async with self.client.asking(text, *words) as run:
            await self._met(run.process.pid)
            yield
        if run.process.returncode and run.process.returncode != -signal.SIGKILL:
            raise AssertionError(f"claude -p ended with {run.process.returncode}: {run.errors!r}")

    async def kill(self, what: str) -> bool:
        """Kill one of its processes, and wait until it is gone; gives whether there was one."""
        victim = Living.now(self._process(what))
        if not victim.is_alive:
            return False
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGKILL)
        with anyio.fail_after(_GONE_S):
            # A large one takes a while, and gives no sign here.
            while victim.is_alive:  # noqa: ASYNC110
                await anyio.sleep(_LOOK_S)
        return True

    def _process(self, what: str) -> int:
        if what == CLIENT:
            return self.pid if self._lives() else 0
        if what in {MONITOR, REWAKE}:
            found = holder(records.place(self._home, self.pid, what))
            return found.pid if found else 0
        assert what == SERVER
        return self.record.server if self.is_here and self.record else 0

    def _lives(self) -> bool:
        return self.record is not None and self.record.client.is_alive

    def _resume(self) -> list[str]:
        turns = self.model.turns
        return ["--resume", turns[-1].session] if turns else []

    async def _met(self, pid: int) -> None:
        """Wait until hooks find the session's peer."""
        self.pid = pid
        found = None
        with anyio.move_on_after(_PRESENT_S):
            # Nor that another process has written a file.
            while (found := records.find(self._home, pid)) is None:  # noqa: ASYNC110
                await anyio.sleep(_LOOK_S)
        self.model.present.set()
        if found is None:
            raise AssertionError("The session's server has not come up.")
        self.record = found
