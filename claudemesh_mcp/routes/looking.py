"""One look of a hook at the inbox: read the event, change the file, print, note that it is printed.

``hook.py`` calls it with what the client said; ``events.py`` knows what each event changes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping

from claudemesh_mcp.plain import TYPE_CHECKING, cast, closing
from claudemesh_mcp.routes import facts, jsontext, offers, records
from claudemesh_mcp.routes.door import change, now_ms, open_file
from claudemesh_mcp.routes.events import EVENTS, Event, is_quiet
from claudemesh_mcp.routes.offers import Look, Offer
from claudemesh_mcp.routes.places import Caller, Places

if TYPE_CHECKING:
    from typing import Any, Final

_STOP: Final = "Stop"
_TOOL: Final = "PostToolUse"
_ID: Final = 200


def look(name: str, where: Places, caller: Caller, said: bytes) -> None:
    """Look at the inbox for an event.

    Args:
        name: The event's.
        where: The home.
        caller: The client.
        said: What it says of the event.

    Raises:
        ValueError: that is no event.
        sqlite3.Error: the file can't be used.
        OSError: the file can't be reached, or nobody reads what is printed.
    """
    told = _read(said)
    # A subagent has a context of its own, and its session's messages are not for it.
    if name not in EVENTS or told.get("agent_id"):
        return
    session = _session(told, caller)
    record = records.find(where.data, caller.pid)
    if record is None and not caller.pid:
        record = records.find_by_session(where.data, session)
    if record is None or not session:
        return
    sql = open_file(record.file)
    if sql is None:
        return
    with closing(sql):
        at_ms = facts.corrected(sql, now_ms())
        event = Event(told, session, record, where.data, caller.is_attended, at_ms)
        if name == _TOOL and is_quiet(sql, event):
            return
        with change(sql):
            shows = EVENTS[name](sql, event)
        if shows is not None:
            _print(sql, name, shows)


def _read(said: bytes) -> Mapping[str, Any]:
    told: Any = jsontext.read(said)
    # What is no object tells nothing, not even whose event it is.
    return cast("Mapping[str, Any]", told) if isinstance(told, dict) else {"agent_id": "unknown"}


def _session(told: Mapping[str, Any], caller: Caller) -> str:
    found = told.get("session_id")
    session = found if isinstance(found, str) and found else caller.session
    # An id is compared and hashed, never a path; SQLite takes no lone surrogate.
    return session.encode("utf-8", "replace").decode()[:_ID]


def _print(sql: sqlite3.Connection, name: str, shows: tuple[Look, Offer]) -> None:
    shown, made = shows
    _write_whole(jsontext.write(_output(name, made.text)).encode())
    if made.holder:
        # A power cut behind this loses a note by which nothing is shown twice unmarked.
        sql.execute("PRAGMA synchronous = NORMAL")
        with change(sql):
            at_ms = facts.corrected(sql, now_ms())
            offers.note_printed(sql, shown, made.holder, at_ms)


def _output(name: str, text: str) -> dict[str, Any]:
    if name == _STOP:
        return {"decision": "block", "reason": text}
    return {"hookSpecificOutput": {"hookEventName": name, "additionalContext": text}}


def _write_whole(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
