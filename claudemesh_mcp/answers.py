"""The shapes of what a client is answered with: results, refusals, one response or a batch.

``server.py`` and ``opencalls.py`` fill them; the finished ones go to the ``Sender``.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from claudemesh_mcp import jsonrpc
from claudemesh_mcp.jsonrpc import INVALID_PARAMS, Fault, Json
from claudemesh_mcp.streams import Then
from claudemesh_wire.errors import Invalid, MeshError


@dataclass(frozen=True, slots=True)
class Raw:
    """A result that reaches the client as it is: another server made it, for this very call.

    Args:
        result: MCP's `CallToolResult`. Nothing is taken out of it and nothing added.
    """

    result: Json


@dataclass(slots=True)
class Replies:
    """Gathers what one line is answered with: one response, or a batch of them.

    Args:
        send: Takes the line with the answer, and what to do once it has been written.
        awaited: How many answers are still to come.
        batch: Whether the line was a batch; then the answers are one too.
    """

    send: Callable[[bytes, list[Then]], None]
    awaited: int = 1
    batch: bool = False
    _responses: list[bytes] = field(default_factory=list[bytes])
    _then: list[Then] = field(default_factory=list[Then])

    def add(self, response: Json | None, then: Then | None = None) -> None:
        """Take one answer, or None where a cancelled call has none; send with the last."""
        self.awaited -= 1
        if response is not None:
            self._write(response, then)
        if not self.awaited and self._responses:
            lines = self._responses
            self.send(jsonrpc.batch(lines) if self.batch else lines[0], self._then)

    def _write(self, response: Json, then: Then | None) -> None:
        """Write it at once: what can't be written must not take a batch's other answers along."""
        try:
            self._responses.append(jsonrpc.encode(response))
        except MeshError as unwritable:
            answer = jsonrpc.success(response["id"], refusal(unwritable))
            self._responses.append(jsonrpc.encode(answer))
            return
        if then is not None:
            self._then.append(then)


def shown(content: Json) -> Json:
    """Give a tool's result in both forms: a client shows the model the one or the other."""
    # Imported with the first result, not before `initialize` is answered.
    from claudemesh_mcp.cleaning import clean_value

    content = clean_value(content).value
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return {"content": [{"type": "text", "text": text}], "structuredContent": content}


def refusal(error: MeshError, footer: Json | None = None) -> Json:
    """Give the result of a call that was refused, and what every result says besides."""
    return {**shown({"error": error.as_dict(), **(footer or {})}), "isError": True}


def internal_error() -> MeshError:
    """Name a bug of ours so that what the client is told and the log can be matched."""
    import secrets

    number = secrets.token_hex(4)
    hint = f"The log of this session tells more under {number}."
    return MeshError(f"internal error ({number})", hint, code="internal_error")


def invalid_params(reason: str, hint: str) -> Fault:
    """Give the fault of a request whose parameters can't be right."""
    return Fault(INVALID_PARAMS, Invalid(reason, hint))
