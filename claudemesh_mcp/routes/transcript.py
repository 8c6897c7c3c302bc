"""Looks into a session's transcript: whether two tool calls are of one reply, what a hook brought.

``events.py`` asks for the first: a text printed behind one tool call is before the model only with
the next request, and a call of the same reply, which ends later, proves no request. The session's
server asks for the second, for ``probes.py``.

Source: what Claude Code 2.1.330 writes, a line of JSON per block of a reply, each with its id, and
one per context that a hook has brought.
"""

from __future__ import annotations

import os

from claudemesh_mcp.plain import TYPE_CHECKING, StrEnum, cast
from claudemesh_mcp.routes import jsontext

if TYPE_CHECKING:
    from typing import Any, Final

_TAIL_BYTES: Final = 1_048_576
_CONTEXT: Final = "hook_additional_context"
_NO_MODEL: Final = "<synthetic>"
"""The model of a reply that the client itself made up, as when no request came through."""


class Trace(StrEnum):
    """What a transcript shows of a text that a hook has printed."""

    ABSENT = "absent"
    BROUGHT = "brought"
    """It is in the context; whether a request with it came through is open."""
    ANSWERED = "answered"
    """It is in the context, and the model has replied behind it."""


def are_of_two_replies(path: str, first: str, second: str) -> bool:
    """Tell whether two tool calls are known to be of different replies of the model.

    Args:
        path: The transcript.
        first: The id of one call.
        second: The id of the other.
    """
    if not (path and first and second) or first == second:
        return False
    replies = {first: "", second: ""}
    for line in _tail(path):
        for call, reply in replies.items():
            if not reply and call.encode() in line:
                replies[call] = _reply(line, call)
    return all(replies.values()) and replies[first] != replies[second]


def trace(path: str, offset: int, nonce: str) -> Trace | None:
    """Say what there is of a text that a hook has printed; none if that can't be known.

    Args:
        path: The transcript.
        offset: Where to begin, in bytes.
        nonce: The text, or a part of it that nothing else has.
    """
    word, found = nonce.encode(), Trace.ABSENT
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            for line in file:
                if found is Trace.ABSENT:
                    found = Trace.BROUGHT if word in line and nonce in _brought(line) else found
                elif b'"assistant"' in line and _is_reply(line):
                    return Trace.ANSWERED
    except (OSError, ValueError):
        return None
    return found


def _tail(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).splitlines()
    except (OSError, ValueError):
        return []


def _parts(message: Any) -> list[Any]:
    content: Any = message.get("content")
    return [one for one in cast("list[Any]", content) if isinstance(one, dict)] if content else []


def _brought(line: bytes) -> str:
    """Give what a hook has brought into the context, if this line says so."""
    try:
        told: Any = jsontext.read(line)
        brought: Any = told["attachment"] if told["type"] == "attachment" else {}
        return str(brought["content"]) if brought["type"] == _CONTEXT else ""
    except (ValueError, TypeError, LookupError):
        return ""


def _is_reply(line: bytes) -> bool:
    try:
        told: Any = jsontext.read(line)
        return told["type"] == "assistant" and told["message"]["model"] != _NO_MODEL
    except (ValueError, TypeError, LookupError):
        return False


def _reply(line: bytes, call: str) -> str:
    """Give the id of the reply whose line this is, if it makes the call."""
    try:
        told: Any = jsontext.read(line)
        message: Any = told["message"] if told["type"] == "assistant" else {}
        makes_it = any(
            part.get("type") == "tool_use" and part.get("id") == call for part in _parts(message)
        )
        return str(message["id"]) if makes_it else ""
    except (ValueError, TypeError, LookupError, AttributeError):
        return ""
