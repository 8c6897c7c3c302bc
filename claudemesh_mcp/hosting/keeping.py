"""Keeps a server running: one that ends is started again, later each time it does not help.

The tools that register servers, and what restores them when a session starts, keep one ``Kept`` for
each; what answers the calls of others asks it for its backend.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskStatus

from claudemesh_mcp.calling.links import Hooks as LineHooks
from claudemesh_mcp.hosting.backend import Backend, Terms, running
from claudemesh_mcp.hosting.flights import Raw
from claudemesh_mcp.hosting.kept_calls import hooks_for, wanting_news
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_wire.errors import MeshError, Unavailable

logger: Final = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
STEADY_MS: Final = 60_000
"""What ran this long is started again at once, as if it had never failed."""


class State(StrEnum):
    """How a server is."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True)
class Condition:
    """How a server is, for people.

    Args:
        state: How it is.
        since_ms: Since when; of one that failed since the first failure in a row.
        restarts: How often it was started again in all.
        why: What went wrong last, in words; empty while nothing has.
    """

    state: State
    since_ms: int
    restarts: int = 0
    why: str = ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Pace:
    """The time that a ``Kept`` lives in.

    Args:
        now_ms: The time.
        pause: Waits so many seconds.
    """

    now_ms: Callable[[], int] = _now_ms
    pause: Callable[[float], Awaitable[None]] = anyio.sleep


Reporting = Callable[[Condition], None]


def _unreported(_: Condition) -> None:
    """Report to nobody."""


@dataclass(eq=False)
class Kept:
    """A server that is kept running while ``run`` does.

    Args:
        name: What it is registered as.
        launch: How it is started or reached.
        terms: What it is run with.
        report: Is told each change of its condition.
        pace: The time.
    """

    name: str
    launch: Launch
    terms: Terms = field(default_factory=Terms)
    report: Reporting = _unreported
    pace: Pace = field(default_factory=Pace)
    _backend: Backend | None = None
    _condition: Condition = Condition(State.STARTING, 0)
    _failures: int = 0
    _failed_since_ms: int = 0

    @property
    def condition(self) -> Condition:
        """How it is now."""
        return self._condition

    @property
    def command_line(self) -> str:
        """How it is started, for its owner's eyes."""
        return self.launch.command_line

    @property
    def backend(self) -> Backend:
        """The server, to be called.

        Raises:
            Unavailable: ``server_not_running``; it says how it is and why.
        """
        backend, said = self._backend, self._condition
        if backend is not None and not backend.ended.is_set():
            return backend
        why = f" {said.why}" if said.why else ""
        raise Unavailable(
            f"The server {self.name} does not run at the moment ({said.state}).{why}",
            "It is started again by itself; try again later.",
            code="server_not_running",
            details={"state": said.state.value, "since_ms": said.since_ms},
        )

    async def call(self, method: str, params: Raw, hooks: LineHooks) -> Raw:
        """Call it once for whoever ``serving.py`` let through; see ``Backend.call``.

        Raises:
            Unavailable: ``server_not_running``: it was not run.
            Conflict: ``outcome_unknown``: it ended meanwhile.
        """
        asked = wanting_news(params)
        return await self.backend.call(method, asked, hooks_for(params, hooks))

    async def definitions(self) -> dict[str, list[Raw]]:
        """Give what it can do now; raises as ``Backend.definitions`` and ``backend``."""
        return await self.backend.definitions()

    async def run(
        self, *, patient: bool = False, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Start it and keep it running until cancelled; tell when it runs for the first time.

        Args:
            patient: Go on trying where the first start fails; then it is told at once.
            task_status: Is told.

        Raises:
            MeshError: the first start failed.
        """
        self._become(State.STARTING)
        if patient:
            task_status.started()
        has_run = patient
        while True:
            try:
                async with running(self.launch, self.terms) as backend:
                    if not has_run:
                        task_status.started()
                    has_run = True
                    await self._watch(backend)
            except MeshError as error:
                if not has_run:
                    raise
                self._fail(str(error))
            except Exception:
                # One server must not end the session, and with it all the others.
                if not has_run:
                    raise
                logger.exception("the server %s ended unexpectedly", self.name)
                self._fail("It ended unexpectedly; the log of this session says more.")
            await self._wait()

    async def _watch(self, backend: Backend) -> None:
        self._backend = backend
        started_ms = self.pace.now_ms()
        self._become(State.RUNNING)
        try:
            await backend.ended.wait()
        finally:
            self._backend = None
        if self.pace.now_ms() - started_ms >= STEADY_MS:
            self._failures = 0
        why, last = backend.ended_because, backend.last_errors
        ended = f"It was stopped: {why}." if why else "It ended by itself."
        self._fail(f"{ended} It said last:\n{last}" if last else ended)

    async def _wait(self) -> None:
        pause_s = min(FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE_S)
        await self.pace.pause(pause_s)
        self._become(State.STARTING, restarts=self._condition.restarts + 1)

    def _fail(self, why: str) -> None:
        self._failures += 1
        if self._failures == 1:
            self._failed_since_ms = self.pace.now_ms()
        logger.warning("the server %s failed, %d in a row", self.name, self._failures)
        self._become(State.FAILED, why=why)

    def _become(self, state: State, *, restarts: int | None = None, why: str = "") -> None:
        was = self._condition
        goes_on = self._failures > 0 and state is not State.RUNNING
        self._condition = Condition(
            state=state,
            since_ms=self._failed_since_ms if goes_on else self.pace.now_ms(),
            restarts=was.restarts if restarts is None else restarts,
            why=why or was.why,
        )
        self.report(self._condition)


def log_of(folder: Path, peer: str, name: str) -> Path:
    """Name the file that a server's stderr goes to; ``name`` is a registered server's."""
    return folder / "mcp-servers" / peer / f"{name}.log"
