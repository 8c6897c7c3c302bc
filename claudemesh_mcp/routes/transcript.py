"""Looks into a session's transcript for one thing: whether two tool calls are of one reply.

``offers.py`` asks it. A text printed behind one tool call is before the model only with the next
request; a call of the same reply, which ends later, proves no request.

Source: what Claude Code 2.1.330 writes, a line of JSON per block of a reply, each with its id.
"""

from __future__ import annotations

import os

from claudemesh_mcp.plain import TYPE_CHECKING, cast
from claudemesh_mcp.routes import jsontext

if TYPE_CHECKING:
    from typing import Any, Final

_TAIL_BYTES: Final = 1_048_576


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
