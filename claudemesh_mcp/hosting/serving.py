"""Answers the calls that come over lines: checks each, runs it once, and says what came of it.

``tunnels.py`` hands it every line that another peer opens. What it knows of a caller is what the
line has proved; what of a server may be called stands in its registration.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final, Protocol, cast

import anyio
from anyio.abc import TaskGroup

from claudemesh_mcp.calling import words
from claudemesh_mcp.calling.arguments import check_arguments
from claudemesh_mcp.calling.links import Hooks, Params
from claudemesh_mcp.calling.toolcalls import MAX_HOPS
from claudemesh_mcp.hosting.callers import Caller, Callers, Ready
from claudemesh_mcp.line import Line, LineEnded
from claudemesh_mcp.peer import Peer
from claudemesh_wire.errors import Conflict, Invalid, MeshError, NotFound, ProtocolError, TooMuch
from claudemesh_wire.mcp_servers import Registration

logger: Final = logging.getLogger(__name__)

CALLER: Final = "claudemesh/caller"
HOPS: Final = "claudemesh/hops"
CALL_TOOL: Final = "tools/call"
_METHODS: Final = frozenset({CALL_TOOL, "resources/read", "prompts/get"})
_ASK_ANEW: Final = "Call again on a new line, with another number for each call."
_MOST_UNSAID: Final = 256
_MOST_UNREAD: Final = 4096
"""So many answers wait for who does not read them; then its line is cut."""
_OF_A_HOP: Final = ("io.modelcontextprotocol/", "claudemesh/")


class Runs(Protocol):
    """A running server, as far as calls of it go."""

    async def call(self, method: str, params: Params, hooks: Hooks) -> Params:
        """Run a request, and give ``{result}`` or ``{error}`` as the server did.

        It is cancelled over there when this is cancelled.

        Raises:
            MeshError: the server is not there, or ended meanwhile.
        """
        ...


@dataclass(frozen=True)
class Hosted:
    """A server that this peer offers.

    Args:
        registration: What was said of it to the mesh.
        server: What runs it.
    """

    registration: Registration
    server: Runs


class Serving:
    """What takes the lines of a peer.

    Args:
        peer: The peer.
        hosted: What it offers, by name.
        ready: Gives the connection to the broker.
        changed: Told when a caller finds that a tool is not what was approved: server and tool.
    """

    def __init__(
        self,
        peer: Peer,
        hosted: Mapping[str, Hosted],
        ready: Ready,
        changed: Callable[[str, str, Caller], None],
    ) -> None:
        self._peer = peer
        self._hosted = hosted
        self._ready = ready
        self._changed = changed
        self._callers = Callers(peer)
        self._told: set[tuple[str, str, str]] = set()

    async def take(self, line: Line) -> None:
        """Serve a line to its end; what still runs then is cancelled.

        Raises:
            MeshError: what came over it makes no sense.
        """
        broken: MeshError | None = None
        async with anyio.create_task_group() as tasks:
            served = _Served(self, line, tasks)
            tasks.start_soon(served.write)
            try:
                async for said in line.messages():
                    served.take(said)
            except MeshError as error:
                broken = error
            tasks.cancel_scope.cancel()
        # Outside of the group, which would wrap it in one of exceptions.
        if broken is not None:
            raise broken

    def note_change(self, line: Line, said: Params) -> None:
        """Take note that a caller's human is to look at a tool again; once of each by each member.

        Raises:
            MeshError: the caller may call nothing here.
        """
        caller = self.caller(line)
        self._callers.check(caller)
        server, tool = str(said.get(words.CHANGED)), str(said.get("tool"))
        hosted, told = self._hosted.get(server), (caller.member.id, server, tool)
        is_one = hosted is not None and any(
            one["name"] == tool for one in hosted.registration.definitions["tools"]
        )
        if is_one and told not in self._told:
            self._told.add(told)
            self._changed(server, tool, caller)

    def caller(self, line: Line) -> Caller:
        """Say who is at the other end now; raises ``Forbidden``."""
        return self._callers.caller(line.peer)

    async def run(self, line: Line, said: Params, hooks: Hooks) -> Params:
        """Check a call and run it; gives ``{result}`` or ``{error}``.

        Raises:
            MeshError: it is refused: then nothing was run; or the server ended meanwhile.
        """
        caller = self.caller(line)
        self._callers.check(caller)
        # Counted before anything is asked of the broker or looked through for it.
        self._callers.begin(caller)
        try:
            hosted = await self._offered(caller, str(said.get("server")))
            method, params, hops = _read(said)
            if method == CALL_TOOL:
                _check_tool(hosted.registration, params, str(said.get("pin", "")))
            return await hosted.server.call(method, _marked(params, caller, hops), hooks)
        finally:
            self._callers.end(caller)

    async def _offered(self, caller: Caller, server: str) -> Hosted:
        """Give a server that is offered to a caller; of others it does not learn that they are.

        Raises:
            NotFound: ``unknown_server``.
            MeshError: as ``Callers.is_meant``.
        """
        hosted = self._hosted.get(server)
        if hosted is not None:
            said = hosted.registration.fields
            if await self._callers.is_meant(caller, said, self._ready):
                return hosted
        raise NotFound(
            f"{self._peer.handle} offers no such server.",
            "mesh_tools shows what is offered now.",
            code="unknown_server",
        )


class _Served:
    """One line, and what runs for it."""

    def __init__(self, serving: Serving, line: Line, tasks: TaskGroup) -> None:
        self._serving = serving
        self._line = line
        self._tasks = tasks
        self._running: dict[int, anyio.CancelScope] = {}
        self._asks = count(1)
        self._asked: dict[int, asyncio.Future[Params]] = {}
        self._unsaid: deque[Params] = deque()
        self._more = asyncio.Event()

    def take(self, said: Params) -> None:
        """Act on one message of the caller.

        Raises:
            ProtocolError: it makes no sense.
        """
        number = words.number(said, words.CALL)
        if number is not None:
            if number in self._running:
                raise ProtocolError("A call was said twice.", _ASK_ANEW, code="malformed")
            if len(self._unsaid) >= _MOST_UNREAD:
                raise ProtocolError("Answers are not read.", _ASK_ANEW, code="not_read")
            self._running[number] = anyio.CancelScope()
            self._tasks.start_soon(self._run, number, said)
            return
        cancelled = words.number(said, words.CANCEL)
        if cancelled is not None and cancelled in self._running:
            self._running[cancelled].cancel()
        answered = words.number(said, words.ANSWERED)
        waiting = self._asked.get(answered) if answered is not None else None
        if waiting is not None and not waiting.done():
            waiting.set_result(said)
        if words.CHANGED in said:
            with suppress(MeshError):  # who may call nothing here has nothing to say
                self._serving.note_change(self._line, said)

    async def _run(self, number: int, said: Params) -> None:
        hooks = Hooks(
            progress=partial(self._tell, words.PROGRESS, number),
            log=partial(self._tell, words.LOG, number),
            ask=partial(self._ask, number),
        )
        done: Params = {}
        with self._running[number]:
            try:
                done = await self._serving.run(self._line, said, hooks)
            except MeshError as error:
                done = {"refused": words.refused(error)}
            except Exception:
                logger.exception("a call could not be run")
                failed = ProtocolError(
                    "The call failed there, perhaps after it was run.",
                    "Whoever offers the server finds the reason in the log of that session.",
                    remote=False,
                    code="internal",
                )
                done = {"refused": words.refused(failed)}
        del self._running[number]
        if done:
            self._say({words.DONE: number, **done})

    def _say(self, said: Params) -> None:
        self._unsaid.append(said)
        self._more.set()

    async def write(self) -> None:
        """Say what is to be said, in its order, until the line ends."""
        while True:
            while self._unsaid:
                try:
                    await self._line.send(self._unsaid[0])
                except LineEnded:
                    return  # Who called has gone.
                except (MeshError, ValueError, RecursionError) as error:
                    self._say_that_it_cannot_be_said(self._unsaid[0], error)
                self._unsaid.popleft()
            self._more.clear()
            await self._more.wait()

    def _say_that_it_cannot_be_said(self, said: Params, error: Exception) -> None:
        if words.DONE in said:
            refused = words.refused(_not_said(error))
            self._say({words.DONE: said[words.DONE], "refused": refused})

    def _tell(self, key: str, number: int, params: Params) -> None:
        """Hand on what the server notified; what a slow line can't take is left out."""
        if len(self._unsaid) < _MOST_UNSAID:
            self._say({key: number, "params": params})

    async def _ask(self, number: int, method: str, params: Params) -> Params:
        """Ask the caller what the server asks, and give ``{result}`` or ``{error}``."""
        asked = next(self._asks)
        waiting = self._asked[asked] = asyncio.get_running_loop().create_future()
        try:
            self._say({words.ASK: asked, words.CALL: number, "method": method, "params": params})
            answer = await waiting
        finally:
            del self._asked[asked]
        key = "result" if "result" in answer else "error"
        return {key: words.part(answer, key)}


def _not_said(error: Exception) -> MeshError:
    """Say why a result does not reach who called; the call was run."""
    if isinstance(error, MeshError):
        return TooMuch(
            f"The call was run, but its result is too large to be sent: {error.reason}",
            "Ask the tool for less at once: a part, a page, or what fits a filter.",
            code="result_too_large",
        )
    return ProtocolError(
        "The call was run, but its result is no JSON: a number in it is infinite or none, or it is"
        " nested too deeply.",
        "Whoever offers the tool has to mend that; other arguments may give another result.",
        code="bad_result",
    )


def _read(said: Params) -> tuple[str, Params, int]:
    method, hops = str(said.get("method")), said.get("hops", 0)
    if method not in _METHODS:
        raise Invalid(
            "This can't be called through the mesh.",
            "Call a tool, read a resource, or get a prompt.",
            code="unsupported",
        )
    if not isinstance(hops, int) or not 0 <= hops <= MAX_HOPS:
        raise TooMuch(
            f"This call has gone through more than {MAX_HOPS} sessions.",
            "See whether two servers call each other; call the last one of them directly.",
            code="too_many_hops",
        )
    return method, words.part(said, "params"), hops


def _check_tool(registration: Registration, params: Params, pin: str) -> None:
    """Refuse a tool that is not offered, is another than was approved, or can't be called so."""
    name = params.get("name")
    found = registration.tools.get(name) if isinstance(name, str) else None
    if found is None:
        raise NotFound(
            "The server offers no such tool.",
            "mesh_tools shows what it offers now.",
            code="unknown_tool",
        )
    definition, digest = found
    if pin and pin != digest:
        raise Conflict(
            f"The tool {name} is defined otherwise now.",
            "Look at it again: claudemesh mcp-server diff",
            code="definition_changed",
        )
    check_arguments(definition.get("inputSchema"), params.get("arguments", {}), str(name))


def _marked(params: Params, caller: Caller, hops: int) -> Params:
    """Say who calls, in the place of whatever the caller said of this hop itself."""
    given: Any = params.get("_meta")
    kept = {
        name: value
        for name, value in (cast("Params", given) if isinstance(given, dict) else {}).items()
        if not name.startswith(_OF_A_HOP) and name != "progressToken"
    }
    return {**params, "_meta": {**kept, CALLER: caller.shown(), HOPS: hops}}
