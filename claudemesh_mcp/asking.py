"""What a client is asked in the middle of a call, and to whom its answers go.

``opencalls.py`` gives every call a way in through ``CallContext.ask``; ``server.py`` hands in what
the client answers. A question belongs to its call: it is taken back when that ends.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from claudemesh_mcp import jsonrpc
from claudemesh_mcp.calls import CallContext, client_cannot
from claudemesh_mcp.jsonrpc import Answer, Fault, Json
from claudemesh_mcp.suggestions import quoted
from claudemesh_wire.errors import TooMuch, Unavailable

ELICIT: Final = "elicitation/create"
MAX_OPEN: Final = 64


@dataclass(frozen=True, slots=True)
class _Question:
    """A question that waits: whose it is, and where its answer goes."""

    call: CallContext
    answer: asyncio.Future[Json]


class Questions:
    """The questions to one client that it has not answered.

    Args:
        send: Takes a written line to the client.
    """

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._elicitation: Json | None = None
        self._numbers = itertools.count(1)
        self._open: dict[object, _Question] = {}

    def learn(self, capabilities: object) -> None:
        """Take note of what the client said at `initialize` that it can."""
        if isinstance(capabilities, dict):
            elicitation = cast("Json", capabilities).get("elicitation")
            self._elicitation = cast("Json", elicitation) if isinstance(elicitation, dict) else None

    async def ask(self, call: CallContext, method: str, params: Json, timeout_s: float) -> Json:
        """Ask, and wait for the result; see ``CallContext.ask``."""
        if not self._can(method, params):
            raise client_cannot(quoted(method))
        if call.ended:
            raise _ended()
        if len(self._open) >= MAX_OPEN:
            hint = "Wait until the user has answered some."
            raise TooMuch(f"{MAX_OPEN} questions to this client are open.", hint, retry_after_s=5)
        # A name that no client's own requests have: they could not be told apart in a log.
        number = f"claudemesh-{next(self._numbers)}"
        self._send(jsonrpc.encode(jsonrpc.request(number, method, params)))
        answer = asyncio.get_running_loop().create_future()
        self._open[number] = _Question(call, answer)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            reason = f"The client did not answer within {timeout_s:g} s."
            hint = "Its user may be away; try again later."
            raise Unavailable(reason, hint, code="client_silent") from None
        finally:
            if self._open.pop(number, None):
                self._take_back(number)

    def take(self, answer: Answer) -> None:
        """Hand on an answer; one to a question that is not open means nothing."""
        question = self._open.pop(answer.id, None)
        if question is None or question.answer.done():
            return
        result: Any = answer.result
        if isinstance(result, dict):
            question.answer.set_result(cast("Json", result))
        else:
            question.answer.set_exception(_refused(answer.error))

    def fail(self, fault: Fault) -> None:
        """Learn that a line could not be read which may have been an answer."""
        if fault.id is not None and fault.id in self._open:
            self.take(Answer(fault.id, error={"code": fault.code, "message": str(fault.error)}))

    def end(self, call: CallContext) -> None:
        """Learn that a call is over: whoever still asks for it is told so."""
        for question in self._open.values():
            if question.call is call and not question.answer.done():
                question.answer.set_exception(_ended())

    def _can(self, method: str, params: Json) -> bool:
        declared = self._elicitation
        if method != ELICIT or declared is None:
            return False
        # A client that names no mode shows forms, which were all there was at first.
        if params.get("mode", "form") == "form":
            return "form" in declared or "url" not in declared
        return params["mode"] == "url" and "url" in declared

    def _take_back(self, number: str) -> None:
        params = {"requestId": number, "reason": "The answer is no longer waited for."}
        self._send(jsonrpc.encode(jsonrpc.notification("notifications/cancelled", params)))


def _ended() -> Unavailable:
    hint = "There is nobody left to ask."
    return Unavailable("The call that asks is over.", hint, code="call_ended")


def _refused(error: Any) -> Unavailable:
    return Unavailable(
        "The client answered the question with an error.",
        "The details have it.",
        code="client_refused",
        details={"error": error},
    )
