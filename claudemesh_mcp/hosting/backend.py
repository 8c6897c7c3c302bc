"""One MCP server that runs: raw JSON-RPC in and out, whatever its era.

``keeping.py`` starts it again when it ends; what answers the calls of others calls it. Results and
definitions are handed on as they came, since a typed client drops what it does not know.
"""

import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import anyio
from anyio.abc import TaskGroup, TaskStatus

from claudemesh_mcp.causes import cause_of
from claudemesh_mcp.hosting import faults, transport
from claudemesh_mcp.hosting.answers import is_sendable, sendable
from claudemesh_mcp.hosting.definitions import read_all
from claudemesh_mcp.hosting.era import Era, NotMcp, agree, mirrored, undress
from claudemesh_mcp.hosting.errlog import ErrorLog
from claudemesh_mcp.hosting.flights import Flight, Flights, Hooks, Lost, Raw
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.program import Gone, TooLong
from claudemesh_mcp.hosting.questions import Questions
from claudemesh_mcp.hosting.transport import Wire, connected
from claudemesh_wire.errors import MeshError

logger: Final = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 30.0
CALLED: Final = frozenset({"completion/complete", "prompts/get", "resources/read", "tools/call"})
"""What may be called; the rest of the protocol is between this hop and the server."""
_CHANGED: Final = re.compile(r"notifications/(tools|resources|prompts)/list_changed")
_PROBE_SHARE: Final = 1 / 3
_LISTEN_AGAIN_S: Final = 5.0
_TOLD_WITHIN_S: Final = 1.0


def _unheard(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Terms:
    """What a server is run with.

    Args:
        timeout_s: It has to answer within this when it starts, and for each page of a list.
        errors: Where its stderr is written.
        list_changed: Is told ``tools``, ``resources`` or ``prompts`` when that list has changed.
    """

    timeout_s: float = START_TIMEOUT_S
    errors: Path | None = None
    list_changed: Callable[[str], None] = _unheard


class Backend:
    """A server and its calls; ``running`` or ``run`` start it.

    Args:
        launch: How it is started or reached.
        terms: What it is run with.
    """

    def __init__(self, launch: Launch, terms: Terms) -> None:
        self.launch = launch
        self.ended = anyio.Event()
        """Set when it has ended by itself, or was ended."""
        self.ended_because = ""
        """Why it was ended; empty if it did so by itself."""
        self._terms = terms
        self._flights = Flights()
        self._questions = Questions(self._flights, self._reply)
        self._errors = ErrorLog(terms.errors, hide=launch.hide)
        self._schemas: dict[str, Any] = {}
        self._wire: Wire | None = None
        self._tasks: TaskGroup | None = None
        self._era: Era | None = None

    @property
    def era(self) -> Era:
        """What it said of itself when it started."""
        if self._era is None:
            raise faults.not_running(self.launch)
        return self._era

    @property
    def instructions(self) -> str:
        """How it wants to be used; may be empty."""
        return self.era.instructions

    @property
    def last_errors(self) -> str:
        """The last lines that it wrote to stderr."""
        return self._errors.last()

    # ---- Its life ----------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start it, tell that it runs, and stay until it ends.

        Raises:
            MeshError: it could not be started: ``command_not_found``, ``server_exited``,
                ``server_not_answering``, ``not_an_mcp_server``, ``server_unreachable`` and others.
        """
        probe_s = self._terms.timeout_s * _PROBE_SHARE
        why = await self._live(probe_s, task_status)
        if why is not None and why.code == "server_exited":
            # Some servers end themselves at a first question that is not `initialize`.
            why = await self._live(0, task_status)
        if why is not None:
            raise why

    async def _live(self, probe_s: float, task_status: TaskStatus[None]) -> MeshError | None:
        """Run one process or connection to its end; tell why it could not be started."""
        self._errors, why = ErrorLog(self._terms.errors, hide=self.launch.hide), None
        self.ended, self.ended_because = anyio.Event(), ""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                try:
                    async with connected(self.launch, self._errors, tasks) as wire:
                        why = await self._converse(wire, probe_s, task_status)
                finally:
                    await self._errors.finish()
                    tasks.cancel_scope.cancel()
        except (ExceptionGroup, MeshError) as error:
            why = self._why(error)
        finally:
            self._end()
        return why

    def _why(self, error: Exception) -> MeshError | None:
        cause = cause_of(error)
        if isinstance(cause, MeshError):
            return cause
        if not transport.is_network(cause):
            raise cause
        logger.info("lost the server %s: %s", self.launch.shown, type(cause).__name__)
        return faults.unreachable(self.launch, f"{cause}.") if self._era is None else None

    async def _converse(
        self, wire: Wire, probe_s: float, task_status: TaskStatus[None]
    ) -> MeshError | None:
        self._wire = wire
        self._tasks_of().start_soon(self._listen, wire)
        try:
            with anyio.fail_after(self._terms.timeout_s):
                self._era = era = await agree(self._request, probe_s)
                if not era.is_stateless:
                    headers = era.headers("notifications/initialized", {})
                    await wire.send({"method": "notifications/initialized"}, headers)
        except TimeoutError:
            return faults.silent(self.launch, self._terms.timeout_s, self.last_errors)
        except NotMcp as error:
            return faults.not_mcp(self.launch, str(error))
        except (Gone, Lost):
            if self.ended_because:
                return faults.not_mcp(self.launch, self.ended_because)
            await self._errors.settle()
            return faults.exited(self.launch, self.last_errors)
        task_status.started()
        if era.is_stateless:
            self._tasks_of().start_soon(self._subscribe, era)
        await self.ended.wait()
        return None

    def _tasks_of(self) -> TaskGroup:
        if self._tasks is None:
            raise faults.not_running(self.launch)
        return self._tasks

    def _end(self) -> None:
        self._wire = None
        self._flights.lose_all()
        self.ended.set()

    # ---- What it says ------------------------------------------------------------------------

    async def _listen(self, wire: Wire) -> None:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            try:
                async for words in wire.messages():
                    self._hear(words)
            except TooLong:
                self.ended_because = faults.TOO_LONG
        self._end()

    def _hear(self, words: Raw) -> None:
        method, given = words.get("method"), words.get("params")
        params = cast("Raw", given) if isinstance(given, dict) else {}
        if not isinstance(method, str):
            self._take_answer(words)
        elif "id" in words:
            self._tasks_of().start_soon(
                self._questions.answer, words["id"], method, params, self._era
            )
        else:
            self._take_note(method, params)

    def _take_answer(self, words: Raw) -> None:
        flight = self._flights.find(words.get("id")) if "id" in words else None
        if flight is None:
            return
        error = words.get("error")
        if error is not None and self.launch.url and transport.is_lost_answer(error):
            flight.lose()
        elif isinstance(error, dict):
            flight.settle({"error": error})
            if flight.hooks and self._may_have_lost_session(error):
                self._tasks_of().start_soon(self._check_session)
        elif isinstance(words.get("result"), dict):
            result = words["result"]
            flight.settle({"result": undress(result) if flight.hooks else result})
        else:
            flight.settle({"error": {"code": -32603, "message": "What came back is no result."}})

    def _may_have_lost_session(self, error: Any) -> bool:
        has_session = bool(self.launch.url) and not self.era.is_stateless
        return has_session and transport.may_have_lost_session(error)

    async def _check_session(self) -> None:
        """End it if it fails even at a ping: only a new connection helps then."""
        with suppress(Gone, Lost):
            answer = await self._request("ping", {}, self.era.headers("ping", {}))
            if self._may_have_lost_session(answer.get("error")):
                self._end()

    def _take_note(self, method: str, params: Raw) -> None:
        changed = _CHANGED.fullmatch(method)
        if changed:
            self._terms.list_changed(changed[1])
        elif method == "notifications/progress":
            flight = self._flights.find(params.get("progressToken", ""))
            if flight is not None and flight.hooks is not None and flight.token is not None:
                mapped = {**undress(params), "progressToken": flight.token}
                flight.tell(flight.hooks.progress, mapped)
        elif method == "notifications/message":
            flight = self._flights.only_callers()
            if flight is not None and flight.hooks is not None:
                flight.tell(flight.hooks.log, undress(params))
        elif method == "notifications/cancelled":
            self._questions.withdraw(params.get("requestId"))

    async def _subscribe(self, era: Era) -> None:
        """Hear of changed lists, where no connection tells of them by itself."""
        kinds = [kind for kind in ("tools", "resources", "prompts") if era.announces(kind)]
        wanted = {"notifications": {f"{kind}ListChanged": True for kind in kinds}}
        params = era.dress(wanted, can_be_asked=False)
        method = "subscriptions/listen"
        while kinds:
            try:
                answer = await self._request(method, params, era.headers(method, params))
            except (Gone, Lost):
                answer: Raw = {}
            if self.ended.is_set() or "error" in answer:
                return
            await anyio.sleep(_LISTEN_AGAIN_S)
            for kind in kinds:
                # What happened meanwhile nobody has told.
                self._terms.list_changed(kind)

    # ---- What it is asked --------------------------------------------------------------------

    async def _send(self, words: Raw, headers: Mapping[str, str]) -> None:
        if self._wire is None:
            raise Gone
        await self._wire.send(words, headers)

    async def _reply(self, words: Raw) -> None:
        headers = self._era.headers("", {}) if self._era else {}
        with suppress(Gone):
            await self._send(sendable(words), headers)

    async def _request(self, method: str, params: Raw, headers: Mapping[str, str]) -> Raw:
        """Ask something of our own; raises ``Gone`` or ``Lost``."""
        flight = self._flights.begin()
        try:
            words = {"id": flight.id, "method": method, "params": params}
            await self._send(words, headers)
            return await flight.answer()
        finally:
            self._flights.end(flight)

    async def definitions(self) -> dict[str, list[Raw]]:
        """Give its tools, resources, resource_templates and prompts as it describes them.

        Raises:
            MeshError: ``not_an_mcp_server``, ``server_not_answering`` or ``server_not_running``.
        """
        era, timeout_s = self.era, self._terms.timeout_s

        async def ask(method: str, params: Raw) -> Raw:
            said = era.dress(params, can_be_asked=False)
            with anyio.fail_after(timeout_s):
                return await self._request(method, said, era.headers(method, said))

        try:
            found = await read_all(era, ask)
        except (Gone, Lost) as error:
            raise faults.not_running(self.launch) from error
        except TimeoutError as error:
            raise faults.silent(self.launch, timeout_s, self.last_errors) from error
        except NotMcp as error:
            raise faults.not_mcp(self.launch, str(error)) from error
        if era.is_stateless and self.launch.url:
            self._schemas = {
                str(tool.get("name")): tool.get("inputSchema") for tool in found["tools"]
            }
        return found

    async def call(self, method: str, params: Raw, hooks: Hooks | None = None) -> Raw:
        """Call it once, and give ``{"result": ...}`` or ``{"error": ...}`` as it said them.

        A result may be one that asks for more (``input_required``): that is the caller's to answer,
        by another call. If this task is cancelled, the server is told.

        Args:
            method: One of ``CALLED``.
            params: As the caller gave them; protocol keys of its hop are taken out.
            hooks: What the caller wants to hear meanwhile.

        Raises:
            Invalid: ``bad_arguments``: they are no JSON; ``bad_method``.
            Unavailable: ``server_not_running``: it was not run.
            Conflict: ``outcome_unknown``: the server ended, and it may have been run;
                ``cancelled``: by ``hooks.stop``.
        """
        hooks = hooks or Hooks()
        if method not in CALLED:
            raise faults.not_callable(method)
        if not is_sendable(params):
            raise faults.no_json()
        era = self.era
        said = era.dress(params, can_be_asked=hooks.ask is not None)
        meta = said.get("_meta", {})
        token = meta.get("progressToken")
        flight = self._flights.begin(hooks, token)
        if token is not None:
            said = {**said, "_meta": {**meta, "progressToken": flight.id}}
        headers = era.headers(method, said)
        if method == "tools/call":
            headers |= mirrored(self._schemas.get(str(said.get("name"))), said.get("arguments"))
        with hooks.stop.guard():
            return await self._fly(flight, {"method": method, "params": said}, headers)
        raise faults.cancelled(hooks.stop.reason)

    async def _fly(self, flight: Flight, words: Raw, headers: Mapping[str, str]) -> Raw:
        try:
            await self._send({"id": flight.id, **words}, headers)
            return await self._landed(flight)
        except Gone as error:
            raise faults.not_running(self.launch) from error
        except Lost as error:
            raise faults.outcome_unknown(self.launch, self.ended_because) from error
        except BaseException:
            if not flight.is_over:
                await self._withdraw(flight)
            raise
        finally:
            self._flights.end(flight)

    async def _landed(self, flight: Flight) -> Raw:
        answer = await flight.answer()
        if self.launch.url and transport.is_lost_session(answer.get("error")):
            raise Gone
        return answer

    async def _withdraw(self, flight: Flight) -> None:
        reason = flight.hooks.stop.reason if flight.hooks else ""
        params = {"requestId": flight.id, "reason": reason or "The caller wants no answer."}
        words = {"method": "notifications/cancelled", "params": params}
        headers = self.era.headers("notifications/cancelled", params)
        with anyio.move_on_after(_TOLD_WITHIN_S, shield=True), suppress(Gone):
            await self._send(words, headers)


@asynccontextmanager
async def running(launch: Launch, terms: Terms) -> AsyncGenerator[Backend]:
    """Run a server as long as the block; errors of the block come out as they are.

    Raises:
        MeshError: it could not be started; see ``Backend.run``.
    """
    backend, failed = Backend(launch, terms), None
    async with anyio.create_task_group() as tasks:
        try:
            await tasks.start(backend.run)
            yield backend
        except Exception as error:  # noqa: BLE001
            failed = error
        finally:
            tasks.cancel_scope.cancel()
    if failed is not None:
        raise failed
