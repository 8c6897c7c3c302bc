"""The tool calls of one client that are open: run, cancelled, answered, and proved to have arrived.

``server.py`` hands it each `tools/call` that may be right, and says when requests begin. It hands
the call to the ``Session``, the finished answer to the ``Replies`` of its line.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from claudemesh_mcp import jsonrpc
from claudemesh_mcp.answers import Raw, Replies, internal_error, refusal, shown
from claudemesh_mcp.behind import Session
from claudemesh_mcp.calls import CallContext, Caller, meta_of
from claudemesh_mcp.jsonrpc import Fault, Id, Json, Request
from claudemesh_mcp.proofs import Printed, Proofs
from claudemesh_wire.errors import Conflict, MeshError, TooMuch, Unavailable

MAX_AT_ONCE: Final = 64

logger = logging.getLogger(__name__)


class OpenCalls:
    """What one client has called and not been answered yet.

    Args:
        session: What runs the calls.
        tasks: Where they run.
        caller: The client.
        ended: Told of each call that is over.
    """

    def __init__(
        self,
        session: Session,
        tasks: asyncio.TaskGroup,
        caller: Caller,
        ended: Callable[[CallContext], None],
    ) -> None:
        self._session = session
        self._tasks = tasks
        self._caller = caller
        self._ended = ended
        self._running: dict[Id, asyncio.Task[Json]] = {}
        self._cancelled: set[Id] = set()
        self._proofs = Proofs()

    def begin(self, request: Request, replies: Replies) -> Json | Fault | None:
        """Start a call in a task of its own.

        Args:
            request: A `tools/call` whose parameters are of the right types.
            replies: Where the answer goes; it may be long until then.

        Returns:
            The answer, if the call can't be started.
        """
        if request.id in self._running:
            error = Conflict(
                "A request with this id is still open.",
                "Give each an id of its own.",
                code="id_in_use",
            )
            return Fault(jsonrpc.INVALID_REQUEST, error)
        if len(self._running) >= MAX_AT_ONCE:
            reason = f"{MAX_AT_ONCE} calls are open already."
            return refusal(TooMuch(reason, "Wait for some of them.", retry_after_s=1))
        name: str = request.params["name"]
        arguments: Json = request.params.get("arguments") or {}
        context = CallContext(meta_of(request.params), self._caller)
        task = self._tasks.create_task(self._call(name, arguments, context))
        self._running[request.id] = task
        task.add_done_callback(partial(self._end, request.id, context, replies))
        return None

    def cancel(self, request_id: object) -> None:
        """Stop a call that the client no longer waits for."""
        if not isinstance(request_id, str | int):
            return
        if task := self._running.get(request_id):
            self._cancelled.add(request_id)
            task.cancel()
        else:
            # It crossed the answer on its way: the client has thrown that away.
            self._tell(self._session.withdrawn, self._proofs.request_cancelled(request_id))

    def request_began(self, start: int) -> None:
        """Learn at which byte of the client's stream a request begins: it proves what came before.

        Args:
            start: How many bytes were before it.
        """
        self._tell(self._session.evidence, self._proofs.request_began(start))

    async def finish(self) -> None:
        """Wait for all that run now."""
        if self._running:
            await asyncio.wait(list(self._running.values()))

    async def stop(self, within_s: float) -> None:
        """Stop what still runs, so that every row is given back before the session closes."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=within_s)

    async def _call(self, name: str, arguments: Json, context: CallContext) -> Json:
        try:
            result = await self._session.call(name, arguments, context)
            if isinstance(result, Raw):
                return result.result
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

    def _end(
        self, request_id: Id, context: CallContext, replies: Replies, task: asyncio.Task[Json]
    ) -> None:
        del self._running[request_id]
        context.ended = True
        self._ended(context)
        if request_id in self._cancelled:
            self._cancelled.discard(request_id)
            self._tell(self._session.withdrawn, context.tokens)
            replies.add(None)
            return
        stopped = Unavailable("The call was interrupted.", "Try it again.", code="interrupted")
        result = refusal(stopped) if task.cancelled() else task.result()
        then = None
        if result.get("isError"):
            self._tell(self._session.withdrawn, context.tokens)
        elif context.tokens:
            printed = self._proofs.add(request_id, context.tokens)
            then = partial(self._mark, printed)
        replies.add(jsonrpc.success(request_id, result), then)

    def _mark(self, printed: Printed, received: int) -> None:
        """Note what had come from the client when this result was written out."""
        self._tell(self._session.evidence, self._proofs.written(printed, received))

    def _tell(self, told: Callable[[tuple[str, ...]], None], tokens: tuple[str, ...]) -> None:
        if not tokens:
            return
        try:
            told(tokens)
        except Exception:
            logger.exception("The session could not note what became of a result.")
