"""What stands behind the MCP front of one client: a ``Mesh``, opened in the background.

``front.py`` imports and starts it once `initialize` is answered; it hands tool calls to
``tools.run``, and rows whose print is proved back to the ``Mesh``.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, Any, Final

import anyio

from claudemesh_mcp.calls import CallContext, Notify
from claudemesh_mcp.config import Settings
from claudemesh_mcp.entering import enter
from claudemesh_mcp.glance import Glances
from claudemesh_mcp.imports import Imports
from claudemesh_mcp.meeting import Meeting, Starter
from claudemesh_mcp.offer import LIST_CHANGED
from claudemesh_mcp.watching import Watch
from claudemesh_wire.errors import MeshError, Unavailable

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh

OPENED_WITHIN_S: Final = 10.0
DEPART_S: Final = 1.5
INBOX: Final = "inbox"
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0

Opening = Callable[[Settings], AbstractAsyncContextManager["Mesh"]]

logger = logging.getLogger(__name__)


def connect(settings: Settings) -> AbstractAsyncContextManager["Mesh"]:
    """Open the mesh of this user, as a session of an MCP client."""
    from claudemesh_mcp.sdk import Mesh

    # Not waiting here: each call waits for the connection itself, and then says what is wrong.
    return Mesh.connect(settings=settings, session_type="claude", wait_s=0)


class MeshSession:
    """One client's place in the mesh.

    Args:
        settings: How this process was set up.
        opening: Opens the mesh.
        opened_within_s: How long a call waits for the mesh before it says that there is none yet.
    """

    def __init__(
        self,
        settings: Settings,
        opening: Opening = connect,
        opened_within_s: float = OPENED_WITHIN_S,
    ) -> None:
        self._settings = settings
        self._opening = opening
        self._opened_within_s = opened_within_s
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._closing = False
        self._mesh: Mesh | None = None
        self._problem: MeshError | None = None
        self._changed = asyncio.Condition()
        self._asked = asyncio.Event()
        self._pausing = False
        self._told = asyncio.Event()
        self._notify: Notify | None = None
        self._imports = Imports()
        self._imports.changed = self._tell_of_list
        self._starter = Starter.of_this_process(settings)
        self._shown: list[str] = []
        self._not_shown: list[str] = []
        self._settling = asyncio.Lock()

    async def start(self) -> None:
        """Open the mesh, again and again until it works, and keep it open until ``close``."""
        self._task = asyncio.current_task()
        try:
            await self._keep_open()
        finally:
            self._mesh = None
            self._ended.set()

    def extra_tools(self) -> list[dict[str, Any]]:
        """Give the tools that this session has besides its own: those it has imported."""
        return self._imports.definitions()

    async def call(self, name: str, arguments: dict[str, Any], context: CallContext) -> Any:
        """Run a tool.

        Args:
            name: The tool.
            arguments: As the client sent them.
            context: What the tool may tell its caller.

        Returns:
            The tool's structured result, or an ``answers.Raw``.

        Raises:
            Unavailable: ``starting``: the mesh is not open yet.
            MeshError: what keeps the mesh from opening, or what the tool refused with.
        """
        from claudemesh_mcp import tools

        mesh = await self._opened()
        # What this call proves to have been read must not be handed out by it once more.
        await self._settle(mesh)
        imported = self._imports.find(name)
        if imported is None:
            return await tools.run(mesh, name, arguments, context)
        from claudemesh_mcp.calling.passing import going, passed

        return await passed(mesh.servers.desk.call_imported(imported, arguments, going(context)))

    def _tell_of_list(self) -> None:
        if self._notify is not None:
            self._notify(LIST_CHANGED, {})

    def initialized(self, notify: Notify) -> None:
        """Learn how the client is notified."""
        self._notify = notify

    def _notifier(self) -> Notify | None:
        return self._notify if self._settings.channel else None

    async def footer(self, name: str) -> dict[str, Any]:
        """Give what a tool's result says of messages that wait.

        Args:
            name: The tool; ``inbox`` says it itself.
        """
        if self._mesh is None or name == INBOX:
            return {}
        return await self._mesh.waiting()

    def evidence(self, tokens: Iterable[str]) -> None:
        """Take note that these rows were shown."""
        self._shown += tokens
        self._told.set()

    def withdrawn(self, tokens: Iterable[str]) -> None:
        """Take note that these rows may not have been shown."""
        self._not_shown += tokens
        self._told.set()

    async def close(self) -> None:
        """Leave the mesh, and wait until that is done; the front limits how long."""
        self._closing = True
        if self._task is None:
            return
        if self._mesh is None:
            self._task.cancel()
        self._told.set()
        await self._ended.wait()

    async def _keep_open(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._closing:
            try:
                async with self._opening(self._settings) as mesh:
                    await self._stay(mesh)
                return
            except MeshError as error:
                logger.warning("The mesh could not be opened: %s", error.code)
                await self._announce(None, error)
            await self._pause(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _pause(self, pause_s: float) -> None:
        """Wait before the next attempt, unless somebody asks for it."""
        self._pausing = True
        spread = random.uniform(0.5, 1.5)  # noqa: S311 - it spreads load, it guards nothing
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s * spread):
                await self._asked.wait()
        self._asked.clear()
        # Whoever asks from here on waits for what the next attempt finds.
        self._pausing, self._problem = False, None

    async def _stay(self, mesh: "Mesh") -> None:
        mesh.servers.imports = self._imports
        meeting = Meeting(mesh.peer, self._starter)
        watch = Watch(mesh, meeting, self._notifier)
        await watch.begin()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch.run)
                tasks.start_soon(Glances(mesh, self._starter.client.pid).run)
                tasks.start_soon(enter, mesh, self._settings)
                tasks.start_soon(mesh.servers.restore)
                await self._announce(mesh, None)
                while not self._closing:
                    await self._told.wait()
                    self._told.clear()
                    await self._settle(mesh)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await meeting.close()
        with suppress(MeshError, TimeoutError):
            async with asyncio.timeout(DEPART_S):
                await mesh.depart()

    async def _settle(self, mesh: "Mesh") -> None:
        """Tell the mesh what became of the rows it handed out; each is told once."""
        async with self._settling:
            shown, self._shown = self._shown, []
            not_shown, self._not_shown = self._not_shown, []
            try:
                if not_shown:
                    await mesh.withdrawn(not_shown)
                if shown:
                    await mesh.evidence(shown)
            except MeshError as error:
                # Unsettled rows are offered once more, marked as such: nothing is lost.
                logger.warning("Rows could not be marked: %s", error.code)

    async def _opened(self) -> "Mesh":
        """Wait a little for the mesh; one attempt at the least is made meanwhile."""
        if self._pausing:
            self._problem = None
            self._asked.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._opened_within_s), self._changed:
                await self._changed.wait_for(lambda: self._mesh or self._problem)
        if self._mesh is not None:
            return self._mesh
        raise self._problem or Unavailable(
            "This session is still connecting to the mesh.",
            "It goes on by itself: call the tool again in a few seconds.",
            code="starting",
            retry_after_s=5,
        )

    async def _announce(self, mesh: "Mesh | None", problem: MeshError | None) -> None:
        async with self._changed:
            self._mesh, self._problem = mesh, problem
            self._changed.notify_all()
