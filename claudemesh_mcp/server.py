"""The MCP front of a session: serves one client over any pair of byte streams.

``stdio.py`` hands it stdin and stdout, tests hand it memory; it hands every `tools/call` to
``OpenCalls``, and by that to a ``Session``. It imports nothing beyond asyncio and json, keeps no
state outside of a ``Connection`` and writes nothing but protocol. Only the handshake era of MCP is
spoken: `server/discover` is refused, whereupon clients fall back to `initialize`.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any, Final, cast

from claudemesh_mcp import jsonrpc
from claudemesh_mcp.answers import Replies, internal_error, invalid_params
from claudemesh_mcp.asking import Questions
from claudemesh_mcp.behind import Session
from claudemesh_mcp.calls import Caller
from claudemesh_mcp.clientlog import LEVELS, ClientLog
from claudemesh_mcp.jsonrpc import Answer, Fault, Json, Line, Message, Notification, Request
from claudemesh_mcp.offer import BATCHING, LIST_CHANGED, NEWEST, PROTOCOL_VERSIONS, Offer
from claudemesh_mcp.opencalls import OpenCalls
from claudemesh_mcp.streams import Reader, Sender, Writer
from claudemesh_mcp.suggestions import did_you_mean, quoted
from claudemesh_wire.errors import Conflict, Invalid, MeshError, NotFound

FINISH_S: Final = 1.0
CLOSE_S: Final = 3.0

logger = logging.getLogger(__name__)


async def serve(
    reader: Reader,
    writer: Writer,
    session: Session,
    offer: Offer,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve a client until it is gone, or until ``stop``; close the session in any case."""
    await Connection(reader, writer, session, offer).run(stop or asyncio.Event())


class Connection:
    """One client: what it negotiated, what it asked, and what it has been told."""

    def __init__(self, reader: Reader, writer: Writer, session: Session, offer: Offer) -> None:
        self._reader = reader
        self._sender = Sender(writer)
        self._session = session
        self._offer = offer
        self._version = ""
        self._initialized = False
        self._tasks = asyncio.TaskGroup()
        self._stopping = False
        self._starting: asyncio.Task[None] | None = None
        self._list_changed = False
        self._log = ClientLog(self._notify)
        self._questions = Questions(self._sender.send)
        self._client = Caller("", self._pass_on, self._log.hears, self._questions.ask)
        self._calls = OpenCalls(session, self._tasks, self._client, self._questions.end)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until the client's streams end or break, or somebody sets ``stop``."""
        async with self._tasks:
            # A task of its own has the time to close the session when this one is cancelled.
            self._tasks.create_task(self._serve(stop))

    async def _serve(self, stop: asyncio.Event) -> None:
        with self._log:
            writing = self._tasks.create_task(self._write())
            reading = self._tasks.create_task(self._read())
            stopped = self._tasks.create_task(stop.wait())
            try:
                await _first_of(reading, writing, stopped)
                if not writing.done():
                    # What was asked before the end of the input is answered, if that is soon.
                    finished = self._tasks.create_task(self._calls.finish())
                    await _first_of(finished, stopped, timeout_s=FINISH_S)
            finally:
                stopped.cancel()
                reading.cancel()
                await self._stop(writing)

    async def _stop(self, writing: asyncio.Task[None]) -> None:
        self._stopping = True
        try:
            await self._calls.stop(FINISH_S)
            async with asyncio.timeout(CLOSE_S):
                await self._session.close()
        except TimeoutError:
            logger.warning("The session did not close in time.")
        except Exception:
            logger.exception("The session failed while it closed.")
        finally:
            if self._starting:
                self._starting.cancel()
            self._sender.end()
            await asyncio.wait({writing}, timeout=FINISH_S)
            writing.cancel()

    async def _write(self) -> None:
        # A client that no longer reads has gone, as one that no longer writes.
        with suppress(OSError):
            await self._sender.run()

    async def _read(self) -> None:
        lines = jsonrpc.Lines()
        with suppress(OSError):
            while chunk := await self._reader.read():
                for line in lines.feed(chunk):
                    self._take(line)
                await self._sender.room()
        for line in lines.end():
            self._take(line)

    def _take(self, line: Line) -> None:
        """Act on one line; whatever it holds, the next one is read."""
        message = None
        try:
            message = jsonrpc.read(line)
            if isinstance(message, list):
                self._take_batch(message, line.start)
            elif message is not None:
                self._take_message(message, line.start, Replies(self._sender.send))
        except Exception:
            error = internal_error()
            logger.exception("A line could not be handled: %s", error.reason)
            request_id = message.id if isinstance(message, Request) else None
            self._send(Fault(jsonrpc.INTERNAL_ERROR, error, request_id).response())

    def _take_batch(self, messages: list[Message], start: int) -> None:
        if self._version != BATCHING or not messages:
            hint = f"Only protocol version {BATCHING} has batches, of one message or more."
            error = Invalid("This batch is not accepted.", hint, code="invalid_request")
            self._send(Fault(jsonrpc.INVALID_REQUEST, error).response())
            return
        answered = sum(isinstance(one, Request | Fault) for one in messages)
        replies = Replies(self._sender.send, answered, batch=True)
        for message in messages:
            self._take_message(message, start, replies)

    def _take_message(self, message: Message, start: int, replies: Replies) -> None:
        match message:
            case Request():
                self._calls.request_began(start)
                self._answer(message, replies)
            case Notification("notifications/cancelled", params):
                self._calls.cancel(params.get("requestId"))
            case Notification("notifications/initialized") if self._version:
                self._hand_over_notices()
            case Answer():
                self._questions.take(message)
            case Fault():
                self._questions.fail(message)
                replies.add(message.response())
            case _:
                pass

    def _answer(self, request: Request, replies: Replies) -> None:
        answer = self._result(request, replies)
        if isinstance(answer, Fault):
            replies.add(Fault(answer.code, answer.error, request.id).response())
        elif answer is not None:
            then = self._begin if request.method == "initialize" else None
            replies.add(jsonrpc.success(request.id, answer), then)

    def _result(self, request: Request, replies: Replies) -> Json | Fault | None:
        """Give a request's result, or None when its call has been started."""
        params = request.params
        match request.method:
            case "initialize":
                return self._initialize(params)
            case "ping":
                return {}
            case "tools/list" | "tools/call" | "logging/setLevel" if not self._version:
                error = Conflict(
                    "There was no `initialize` yet.", "Begin with it.", code="not_initialized"
                )
                return Fault(jsonrpc.INVALID_REQUEST, error)
            case "tools/list":
                return self._list_tools(params.get("cursor"))
            case "tools/call":
                return self._begin_call(request, replies)
            case "logging/setLevel":
                return self._set_level(params.get("level"))
            case _:
                reason = f"There is no method {quoted(request.method)}."
                error = NotFound(
                    reason, "Use those for tools: no others are served.", code="unknown_method"
                )
                return Fault(jsonrpc.METHOD_NOT_FOUND, error)

    def _initialize(self, params: Json) -> Json | Fault:
        wanted, client = params.get("protocolVersion"), params.get("clientInfo")
        if self._version:
            error = Conflict(
                "`initialize` was answered before.", "Go on without it.", code="already_initialized"
            )
            return Fault(jsonrpc.INVALID_REQUEST, error)
        if not isinstance(wanted, str):
            return invalid_params("`protocolVersion` is not a text.", f"Ask for {NEWEST}.")
        self._version = wanted if wanted in PROTOCOL_VERSIONS else NEWEST
        if isinstance(client, dict):
            self._client.name = str(cast("Json", client).get("name", ""))
        self._questions.learn(params.get("capabilities"))
        return self._offer.greeting(self._version)

    def _hand_over_notices(self) -> None:
        """Let the session notify: a client that was not there yet would miss it."""
        if not self._initialized:
            self._initialized = True
            self._session.initialized(self._notify)

    def _begin(self, _received: int) -> None:
        """Connect in the background, now that the client has its answer."""
        if not self._stopping:
            self._starting = self._tasks.create_task(self._start())

    async def _start(self) -> None:
        try:
            await self._session.start()
        except MeshError as refused:
            logger.warning("The session could not start: %s", refused)
        except Exception:
            logger.exception("The session failed.")

    def _list_tools(self, cursor: object) -> Json | Fault:
        if cursor is not None:
            return invalid_params("There is no such cursor.", "The list has one page.")
        return {"tools": [*self._offer.tools, *self._extra_tools()]}

    def _extra_tools(self) -> list[Json]:
        """Give what the session has besides; it takes no name away from the offer."""
        try:
            extra = self._session.extra_tools()
            return [one for one in extra if one["name"] not in self._offer.names]
        except Exception:
            logger.exception("The session could not say which tools it has besides.")
            return []

    def _set_level(self, level: object) -> Json | Fault:
        if not isinstance(level, str) or level not in LEVELS:
            return invalid_params("`level` is no log level.", f"There are: {', '.join(LEVELS)}.")
        self._log.setLevel(LEVELS[level])
        return {}

    def _begin_call(self, request: Request, replies: Replies) -> Json | Fault | None:
        """Start a call, unless its parameters can't be right."""
        name, arguments = request.params.get("name"), request.params.get("arguments")
        if not isinstance(name, str):
            return invalid_params("`name` is not a text.", "Name a tool of `tools/list`.")
        if not isinstance(arguments, dict | None):
            return invalid_params("`arguments` is not an object.", "Name the arguments.")
        if name not in self._offer.names:
            extra = {one["name"] for one in self._extra_tools()}
            if name not in extra:
                nearest = did_you_mean(name, self._offer.names | extra)
                error = NotFound(f"There is no tool {quoted(name)}.", nearest)
                return Fault(jsonrpc.INVALID_PARAMS, error)
        return self._calls.begin(request, replies)

    def _notify(self, method: str, params: Json) -> None:
        if method == LIST_CHANGED:
            self._announce_list()
        elif self._version:
            self._send(jsonrpc.notification(method, params))

    def _announce_list(self) -> None:
        """Say that the list has changed: once, however much of it changes in this turn."""
        if not self._list_changed:
            self._list_changed = True
            asyncio.get_running_loop().call_soon(self._tell_of_list)

    def _tell_of_list(self) -> None:
        self._list_changed = False
        self._send(jsonrpc.notification(LIST_CHANGED, {}))

    def _pass_on(self, method: str, params: Json) -> None:
        """Notify of what a call does meanwhile; a client that does not read misses some of it."""
        if self._sender.is_full:
            return
        try:
            self._notify(method, params)
        except MeshError as unwritable:
            logger.warning("A notification was left out: %s", unwritable)

    def _send(self, message: Json) -> None:
        self._sender.send(jsonrpc.encode(message))


async def _first_of(*tasks: asyncio.Task[Any], timeout_s: float | None = None) -> None:
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
