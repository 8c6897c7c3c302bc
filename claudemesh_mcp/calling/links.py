"""The lines of this peer to those whose tools it calls: one for each, opened when it is needed.

``toolcalls.py`` calls through it. A call is said once, on one line; when that line ends it is known
only whether the call may have reached the other end.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from claudemesh_mcp.calling import words
from claudemesh_mcp.line import Line, LineEnded
from claudemesh_mcp.tunnels import Tunnels
from claudemesh_wire.errors import MeshError, ProtocolError

logger: Final = logging.getLogger(__name__)

_IDLE_S: Final = 300.0
MAX_ASKED: Final = 64
"""So often a server may ask while one call of it runs."""
Params = dict[str, Any]


def _ignore(_params: Params) -> None:
    """Drop what nobody listens to."""


async def _refuse(_method: str, _params: Params) -> Params:
    return {"error": {"code": -32601, "message": "Nobody can answer here."}}


@dataclass(frozen=True)
class Hooks:
    """Who hears what a server says while a call of it runs.

    Args:
        progress: Takes the parameters of a progress notification.
        log: Takes those of a log message.
        ask: Answers a request of the server, by ``{result}`` or ``{error}``.
    """

    progress: Callable[[Params], None] = _ignore
    log: Callable[[Params], None] = _ignore
    ask: Callable[[str, Params], Awaitable[Params]] = _refuse


@dataclass(eq=False)
class _Open:
    done: asyncio.Future[Params]
    hooks: Hooks
    asked: int = 0


class Link:
    """The line to one peer, with the calls that are open on it.

    Args:
        line: To that peer.
    """

    def __init__(self, line: Line) -> None:
        self.line = line
        self._numbers = count(1)
        self._open: dict[int, _Open] = {}
        self.used_s = anyio.current_time()

    @property
    def in_flight(self) -> int:
        """How many calls are open."""
        return len(self._open)

    async def call(self, said: Params, hooks: Hooks, timeout_s: float) -> Params:
        """Say a call, and give what is said of its end: ``{done, …}``.

        Raises:
            LineEnded: with ``left``: whether the call may have been run.
            TimeoutError: it is cancelled over there, and may have been run.
        """
        number = next(self._numbers)
        one = _Open(asyncio.get_running_loop().create_future(), hooks)
        self._open[number] = one
        self.used_s = anyio.current_time()
        try:
            # Whole, also for a caller that gives up meanwhile: half a message would break the line,
            # and with it the calls of others.
            with anyio.CancelScope(shield=True):
                await self.line.send({words.CALL: number, **said})
            with anyio.fail_after(timeout_s):
                return await one.done
        except (anyio.get_cancelled_exc_class(), TimeoutError) as gone:
            with anyio.CancelScope(shield=True), suppress(LineEnded, MeshError):
                reason = "timeout" if isinstance(gone, TimeoutError) else "cancelled"
                await self.line.send({words.CANCEL: number, "reason": reason})
            raise
        finally:
            self.used_s = anyio.current_time()
            one.done.cancel()
            del self._open[number]

    async def tell(self, said: Params) -> None:
        """Say something that nobody answers, if the line still stands."""
        with suppress(LineEnded, MeshError):
            await self.line.send(said)

    async def read(self, tasks: TaskGroup) -> None:
        """Take what the other end says, until the line ends; then every open call does."""
        why: MeshError | None = None
        try:
            async for said in self.line.messages():
                self._take(said, tasks)
        except MeshError as error:
            why = error
        finally:
            ended = why or ProtocolError("The line ended.", "Call again.", code="line_ended")
            for one in self._open.values():
                if not one.done.done():
                    one.done.set_exception(LineEnded(ended, left=True))
                    one.done.exception()

    def _take(self, said: Params, tasks: TaskGroup) -> None:
        asked = words.number(said, words.ASK)
        if asked is not None:
            tasks.start_soon(self._answer, asked, said)
            return
        for key in (words.DONE, words.PROGRESS, words.LOG):
            number = words.number(said, key)
            one = self._open.get(number) if number is not None else None
            if one is None:
                continue
            if key == words.DONE and not one.done.done():
                one.done.set_result(said)
            elif key == words.PROGRESS:
                one.hooks.progress(words.part(said, "params"))
            elif key == words.LOG:
                one.hooks.log(words.part(said, "params"))

    async def _answer(self, asked: int, said: Params) -> None:
        number = words.number(said, words.CALL)
        one = self._open.get(number) if number is not None else None
        answer: Params = {"error": {"code": -32602, "message": "No such call is open."}}
        if one is not None and one.asked >= MAX_ASKED:
            answer = {"error": {"code": -32603, "message": f"A call may ask {MAX_ASKED} times."}}
        elif one is not None:
            one.asked += 1
            answer = await one.hooks.ask(str(said.get("method")), words.part(said, "params"))
        await self.tell({words.ANSWERED: asked, **answer})


class Links:
    """The lines to all peers whose tools are called.

    Args:
        tunnels: Opens them.
    """

    def __init__(self, tunnels: Tunnels) -> None:
        self._tunnels = tunnels
        self._links: dict[str, Link] = {}
        self._opening: dict[str, anyio.Lock] = {}
        self._new: list[Link] = []
        self._more = anyio.Event()

    async def run(self) -> None:
        """Read from all of them, until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                while self._new:
                    tasks.start_soon(self._read, self._new.pop(), tasks)
                self._more = anyio.Event()
                await self._more.wait()

    async def _read(self, link: Link, tasks: TaskGroup) -> None:
        try:
            await link.read(tasks)
        except Exception:
            logger.exception("what came over a line could not be taken")
        finally:
            peer = link.line.peer.fields.peer
            if self._links.get(peer) is link:
                del self._links[peer]
            with anyio.CancelScope(shield=True):
                await self._tunnels.leave(link.line, "")

    async def to(self, peer: str) -> Link:
        """Give the line to a peer, a new one if there is none.

        Raises:
            MeshError: as ``Tunnels.open``: nothing was said to it.
        """
        await self._close_idle()
        async with self._opening.setdefault(peer, anyio.Lock()):
            found = self._links.get(peer)
            if found is not None and not found.line.has_ended:
                return found
            link = self._links[peer] = Link(await self._tunnels.open(peer))
            self._new.append(link)
            self._more.set()
            return link

    def in_flight(self, peer: str) -> int:
        """Give how many calls to a peer are open."""
        found = self._links.get(peer)
        return found.in_flight if found is not None else 0

    async def _close_idle(self) -> None:
        now_s = anyio.current_time()
        for peer, link in list(self._links.items()):
            if not link.in_flight and now_s - link.used_s > _IDLE_S:
                del self._links[peer]
                await self._tunnels.leave(link.line, "It was not used for a while.")
