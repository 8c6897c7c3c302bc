"""The MCP front of a session: serves one client over any pair of byte streams.

``stdio.py`` hands it stdin and stdout, tests hand it memory; it hands every `tools/call` to a
``Session``. It imports nothing beyond asyncio and json, keeps no state outside of a ``Connection``
and writes nothing but protocol. Only the handshake era of MCP is spoken: `server/discover` is
refused, whereupon clients fall back to `initialize`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, cast

from claudemesh_mcp import jsonrpc
from claudemesh_mcp.answers import Replies, internal_error, invalid_params, refusal, shown
from claudemesh_mcp.calls import CallContext, Notify
from claudemesh_mcp.clientlog import LEVELS, ClientLog
from claudemesh_mcp.jsonrpc import Fault, Id, Json, Line, Message, Notification, Request
from claudemesh_mcp.offer import BATCHING, NEWEST, PROTOCOL_VERSIONS, Offer
from claudemesh_mcp.proofs import Printed, Proofs
from claudemesh_mcp.streams import Reader, Sender, Then, Writer
from claudemesh_mcp.suggestions import did_you_mean, quoted
from claudemesh_wire.errors import Conflict, Invalid, MeshError, NotFound, TooMuch, Unavailable

MAX_CALLS_AT_ONCE: Final = 64
FINISH_S: Final = 1.0
CLOSE_S: Final = 3.0

logger = logging.getLogger(__name__)


class Session(Protocol):
    """What stands behind the front: the mesh, as one client uses it."""

    async def start(self) -> None:
        """Connect. Called once `initialize` has been answered; may last as long as the session."""
        ...

    async def call(self, name: str, arguments: Json, context: CallContext) -> Json:
        """Run a tool; a call that the client cancels ends with ``asyncio.CancelledError``.

        Raises:
            MeshError: it was refused.
        """
        ...

    def initialized(self, notify: Notify) -> None:
        """Learn that the client takes notifications from now on, and how it gets them; once."""
        ...

    async def footer(self, name: str) -> Json:
        """Give what the result of a tool says besides, of messages that wait; nothing if none do.

        Args:
            name: The tool.
        """
        ...

    def evidence(self, tokens: Iterable[str]) -> None:
        """Learn that the results which handed out these rows arrived; each token comes once."""
        ...

    def withdrawn(self, tokens: Iterable[str]) -> None:
        """Learn that these rows may not have been read: their call was cancelled or failed."""
        ...

    async def close(self) -> None:
        """Disconnect; called once, also when ``start`` still runs or never began."""
        ...


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
        self._client = ""
        self._initialized = False
        self._tasks = asyncio.TaskGroup()
        self._stopping = False
        self._starting: asyncio.Task[None] | None = None
        self._calls: dict[Id, asyncio.Task[Json]] = {}
        self._cancelled: set[Id] = set()
        self._proofs = Proofs()
        self._log = ClientLog(self._notify)

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
                if self._calls and not writing.done():
                    # What was asked before the end of the input is answered, if that is soon.
                    finished = self._tasks.create_task(_all_of(self._calls.values()))
                    await _first_of(finished, stopped, timeout_s=FINISH_S)
            finally:
                stopped.cancel()
                reading.cancel()
                await self._stop(writing)

    async def _stop(self, writing: asyncio.Task[None]) -> None:
        self._stopping = True
        try:
            await self._cancel_calls()
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

    async def _cancel_calls(self) -> None:
        """Stop what still runs, so that every row is given back before the session closes."""
        calls = list(self._calls.values())
        for task in calls:
            task.cancel()
        if calls:
            await asyncio.wait(calls, timeout=FINISH_S)

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
                self._take_message(message, line.start, Replies(self._send))
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
        replies = Replies(self._send, answered, batch=True)
        for message in messages:
            self._take_message(message, start, replies)

    def _take_message(self, message: Message, start: int, replies: Replies) -> None:
        match message:
            case Request():
                self._tell(self._session.evidence, self._proofs.request_began(start))
                self._answer(message, replies)
            case Notification("notifications/cancelled", params):
                self._cancel(params.get("requestId"))
            case Notification("notifications/initialized") if self._version:
                self._hand_over_notices()
            case Fault():
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
                error = Conflict("There was no `initialize` yet.", code="not_initialized")
                return Fault(jsonrpc.INVALID_REQUEST, error)
            case "tools/list":
                return self._list_tools(params.get("cursor"))
            case "tools/call":
                return self._begin_call(request, replies)
            case "logging/setLevel":
                return self._set_level(params.get("level"))
            case _:
                reason = f"There is no method {quoted(request.method)}."
                error = NotFound(reason, code="unknown_method")
                return Fault(jsonrpc.METHOD_NOT_FOUND, error)

    def _initialize(self, params: Json) -> Json | Fault:
        wanted, client = params.get("protocolVersion"), params.get("clientInfo")
        if self._version:
            error = Conflict("`initialize` was answered before.", code="already_initialized")
            return Fault(jsonrpc.INVALID_REQUEST, error)
        if not isinstance(wanted, str):
            return invalid_params("`protocolVersion` is not a text.", f"Ask for {NEWEST}.")
        self._version = wanted if wanted in PROTOCOL_VERSIONS else NEWEST
        if isinstance(client, dict):
            self._client = str(cast("Json", client).get("name", ""))
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
        return {"tools": self._offer.tools}

    def _set_level(self, level: object) -> Json | Fault:
        if not isinstance(level, str) or level not in LEVELS:
            return invalid_params("`level` is no log level.", f"There are: {', '.join(LEVELS)}.")
        self._log.setLevel(LEVELS[level])
        return {}

    def _begin_call(self, request: Request, replies: Replies) -> Json | Fault | None:
        """Start a call in a task of its own, unless its parameters can't be right."""
        name, arguments = request.params.get("name"), request.params.get("arguments")
        if not isinstance(name, str):
            return invalid_params("`name` is not a text.", "Name a tool of `tools/list`.")
        if not isinstance(arguments, dict | None):
            return invalid_params("`arguments` is not an object.", "Name the arguments.")
        if name not in self._offer.names:
            nearest = did_you_mean(name, self._offer.names)
            error = NotFound(f"There is no tool {quoted(name)}.", nearest)
            return Fault(jsonrpc.INVALID_PARAMS, error)
        if request.id in self._calls:
            error = Conflict("A request with this id is still open.", code="id_in_use")
            return Fault(jsonrpc.INVALID_REQUEST, error)
        if len(self._calls) >= MAX_CALLS_AT_ONCE:
            reason = f"{MAX_CALLS_AT_ONCE} calls are open already."
            return refusal(TooMuch(reason, "Wait for some of them.", retry_after_s=1))
        context = CallContext(_progress_token(request.params), self._client, self._notify)
        task = self._tasks.create_task(self._call(name, cast("Json", arguments or {}), context))
        self._calls[request.id] = task
        task.add_done_callback(partial(self._end_call, request.id, context, replies))
        return None

    async def _call(self, name: str, arguments: Json, context: CallContext) -> Json:
        try:
            result = await self._session.call(name, arguments, context)
            return shown({**result, **await self._footer(name)})
        except MeshError as refused:
            return refusal(refused, await self._footer(name))
        except Exception:
            error = internal_error()
            logger.exception("The tool %s failed: %s", name, error.reason)
            return refusal(error)

    async def _footer(self, name: str) -> Json:
        """Give the footer of a result, which is no reason to lose the result."""
        try:
            return await self._session.footer(name)
        except Exception:
            logger.exception("What waits could not be counted.")
            return {}

    def _end_call(
        self, request_id: Id, context: CallContext, replies: Replies, task: asyncio.Task[Json]
    ) -> None:
        del self._calls[request_id]
        if request_id in self._cancelled:
            self._cancelled.discard(request_id)
            self._tell(self._session.withdrawn, context.tokens)
            replies.add(None)
            return
        stopped = Unavailable("The call was interrupted.", "Try it again.", code="interrupted")
        result = refusal(stopped) if task.cancelled() else task.result()
        then = None
        if "isError" in result:
            self._tell(self._session.withdrawn, context.tokens)
        elif context.tokens:
            printed = self._proofs.add(request_id, context.tokens)
            then = partial(self._mark, printed)
        replies.add(jsonrpc.success(request_id, result), then)

    def _mark(self, printed: Printed, received: int) -> None:
        """Note what had come from the client when this result was written out."""
        self._tell(self._session.evidence, self._proofs.written(printed, received))

    def _cancel(self, request_id: object) -> None:
        if not isinstance(request_id, str | int):
            return
        if task := self._calls.get(request_id):
            self._cancelled.add(request_id)
            task.cancel()
        else:
            # It crossed the answer on its way: the client has thrown that away.
            self._tell(self._session.withdrawn, self._proofs.request_cancelled(request_id))

    def _tell(self, told: Callable[[tuple[str, ...]], None], tokens: tuple[str, ...]) -> None:
        if not tokens:
            return
        try:
            told(tokens)
        except Exception:
            logger.exception("The session could not note what became of a result.")

    def _notify(self, method: str, params: Json) -> None:
        if self._version:
            self._send(jsonrpc.notification(method, params))

    def _send(self, message: Json | list[Json], then: Iterable[Then] = ()) -> None:
        self._sender.send(jsonrpc.encode(message), then)


async def _first_of(*tasks: asyncio.Task[Any], timeout_s: float | None = None) -> None:
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


async def _all_of(tasks: Iterable[asyncio.Task[Any]]) -> None:
    await asyncio.wait(list(tasks))


def _progress_token(params: Json) -> str | int | None:
    meta = params.get("_meta")
    token = cast("Json", meta).get("progressToken") if isinstance(meta, dict) else None
    return token if isinstance(token, str | int) else None
