"""JSON-RPC 2.0 as MCP uses it over lines of text: bytes become requests, answers become bytes.

``server.py`` feeds it what arrived and writes what it gives. It reads no stream and knows no
method; whatever can't be a message is a ``Fault`` that says why, so that the reader can go on.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, cast

from claudemesh_wire.errors import Invalid, MeshError, TooMuch

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 64
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

Id = str | int
Json = dict[str, Any]

_KEPT_BYTES: Final = 512
_SCALAR_ID: Final = rb'"id"\s*:\s*(-?[0-9]{1,15}|"[^"\\]{0,200}")\s*'
# Compiled by those who need them: it takes longer than all else before `initialize` is answered.
_ID_FIRST: Final = (
    rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?(?:"method"\s*:\s*"[^"\\]*"\s*,\s*)?'
    + _SCALAR_ID
    + rb","
)
# Nothing but the outermost object can end with one brace at the end of the line.
_ID_LAST: Final = rb",\s*" + _SCALAR_ID + rb"\}\s*\Z"


@dataclass(frozen=True, slots=True)
class Request:
    """A question that has to be answered under its id, unless it is cancelled."""

    id: Id
    method: str
    params: Json


@dataclass(frozen=True, slots=True)
class Notification:
    """Something told; it is never answered."""

    method: str
    params: Json


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client answered to something that it was asked; neither part has been looked at.

    Args:
        id: The request it answers; None if it named none.
        result: What it gave.
        error: What it gave instead.
    """

    id: Id | None
    result: Any = None
    error: Any = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that could not be read or done, and why.

    Args:
        code: JSON-RPC's number for it.
        error: The fact and the remedy.
        id: The request it answers, if that could be told.
    """

    code: int
    error: MeshError
    id: Id | None = None

    def response(self) -> Json:
        """Give the error as a JSON-RPC response, typed in its `data`."""
        error = {
            "code": self.code,
            "message": str(self.error),
            "data": {"error": self.error.as_dict()},
        }
        return {"jsonrpc": "2.0", "id": self.id, "error": error}


Message = Request | Notification | Answer | Fault


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end.

    Args:
        start: How many bytes had come before it since the stream began.
        data: The line; of one that was too long, no more than its beginning.
        tail: The end of a line that was too long; None for one that was not.
    """

    start: int
    data: bytes
    tail: bytes | None = None


@dataclass(slots=True)
class Lines:
    """Cuts a stream of bytes into lines, and never holds more than one line may have."""

    _rest: bytearray = field(default_factory=bytearray)
    _start: int = 0
    _skipped: int = 0
    _tail: bytes = b""

    def feed(self, chunk: bytes) -> list[Line]:
        """Take what arrived; give the lines that are complete with it."""
        *ends, rest = chunk.split(b"\n")
        lines = [self._end(part) for part in ends]
        self._add(rest)
        return lines

    def end(self) -> list[Line]:
        """Give what is left when the stream has ended without an end of line."""
        return [self._end(b"")] if self._rest else []

    def _add(self, part: bytes) -> None:
        self._rest += part
        if self._skipped or len(self._rest) > MAX_LINE_BYTES:
            beyond = bytes(self._rest[_KEPT_BYTES:])
            self._tail = (self._tail + beyond)[-_KEPT_BYTES:]
            self._skipped += len(beyond)
            del self._rest[_KEPT_BYTES:]

    def _end(self, part: bytes) -> Line:
        self._add(part)
        line = Line(self._start, bytes(self._rest), self._tail if self._skipped else None)
        self._start += len(self._rest) + self._skipped + 1
        self._rest, self._skipped, self._tail = bytearray(), 0, b""
        return line


def read(line: Line) -> list[Message] | Message | None:
    """Read a line: one message, a batch as a list, or None for an empty line."""
    if line.tail is not None:
        return _too_long(line)
    if not line.data.strip():
        return None
    try:
        value = json.loads(line.data.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError:
        return _unreadable("The line is not UTF-8 text.")
    except RecursionError:
        return _unreadable("The line is nested too deeply.")
    except ValueError as wrong:  # also a number with more digits than Python reads
        return _unreadable(f"The line is not JSON: {wrong}.")
    if nests_deeper(line.data, value, MAX_DEPTH):
        return _unreadable(f"The line is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, list):
        return [_message(item) for item in cast("list[Any]", value)]
    return _message(value)


def success(request_id: Id, result: Mapping[str, Any]) -> Json:
    """Give the response that answers a request with its result."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def notification(method: str, params: Json) -> Json:
    """Give a notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def request(request_id: Id, method: str, params: Json) -> Json:
    """Give a request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def encode(message: Json) -> bytes:
    """Write a message as one line.

    ASCII only: it carries every text, also one that UTF-8 can't, and no reader takes a character
    in it for an end of line.

    Raises:
        Invalid: ``unwritable``: there is something in it that JSON has not.
    """
    try:
        return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except (ValueError, TypeError, RecursionError) as wrong:
        reason = "What was to be sent can't be written as JSON."
        hint = "It has an infinite number, or is nested too deeply; whoever made it has to mend it."
        raise Invalid(reason, hint, code="unwritable") from wrong


def batch(lines: Sequence[bytes]) -> bytes:
    """Put written messages into one line."""
    return b"[" + b",".join(line.rstrip() for line in lines) + b"]\n"


def nests_deeper(data: bytes, value: Any, levels: int) -> bool:
    """Tell whether what was read from this text is nested deeper than so many levels."""
    # Few brackets can't nest deeply: most lines need no second look.
    if data.count(b"[") + data.count(b"{") <= levels:
        return False
    level = [value]
    for _ in range(levels + 1):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _message(value: Any) -> Message:
    if not isinstance(value, dict):
        return _invalid("A message is an object, or a batch of objects.")
    message = cast("Json", value)
    request_id = message.get("id")
    known = request_id if isinstance(request_id, str | int) else None
    if _is_answer(message):
        # Also one without an id, to a question that could not be read: it is never answered, or
        # two that don't understand each other would never end.
        return Answer(known, message.get("result"), message.get("error"))
    if isinstance(request_id, bool) or (known is None and "id" in message):
        return _invalid("An `id` is a text or a whole number.")
    if message.get("jsonrpc") != "2.0":
        return _invalid('A message has "jsonrpc": "2.0".', known)
    method = message.get("method")
    if not isinstance(method, str):
        return _invalid("A message has a `method`, which is a text.", known)
    params = message.get("params", {})
    if not isinstance(params, dict):
        wrong = Invalid("`params` is not an object.", "Name the parameters.")
        return Fault(INVALID_PARAMS, wrong, known)
    if known is None:
        return Notification(method, cast("Json", params))
    return Request(known, method, cast("Json", params))


def _is_answer(message: Json) -> bool:
    if message.get("jsonrpc") != "2.0" or message.get("method") is not None:
        return False
    return "result" in message or "error" in message


def _too_long(line: Line) -> Fault:
    found = re.match(_ID_FIRST, line.data) or re.search(_ID_LAST, line.tail or b"")
    request_id = json.loads(found[1]) if found else None
    reason = f"The line is longer than {MAX_LINE_BYTES} bytes and was not read."
    return Fault(INVALID_REQUEST, TooMuch(reason, "Send less at once."), request_id)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("Json", value).values())
    return cast("list[Any]", value) if isinstance(value, list) else []


def _unreadable(reason: str) -> Fault:
    hint = "Send one JSON-RPC message per line."
    return Fault(PARSE_ERROR, Invalid(reason, hint, code="parse_error"))


def _invalid(reason: str, request_id: Id | None = None) -> Fault:
    hint = "Send one JSON-RPC message per line."
    return Fault(INVALID_REQUEST, Invalid(reason, hint, code="invalid_request"), request_id)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
