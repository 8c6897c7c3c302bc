"""One look of a hook at the inbox: read the event, change the file, print, note that it is printed.

A client that is in several meshes has a file for each: all are asked, and printed as one text.

``hook.py`` calls it with what the client said; ``events.py`` knows what each event changes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping

from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple, cast
from claudemesh_mcp.routes import facts, jsontext, offers, records
from claudemesh_mcp.routes.door import change, note_fault, now_ms, open_file
from claudemesh_mcp.routes.events import EVENTS, Event, Shows, goes_on, is_of_a_machine, is_quiet
from claudemesh_mcp.routes.frames import units_of
from claudemesh_mcp.routes.offers import Look, Offer
from claudemesh_mcp.routes.places import Caller, Places
from claudemesh_mcp.routes.records import Record
from claudemesh_mcp.routes.settings import OUTPUT_CHARACTERS

if TYPE_CHECKING:
    from typing import Any, Final

_STOP: Final = "Stop"
_TOOL: Final = "PostToolUse"
_PROMPT: Final = "UserPromptSubmit"
_ID: Final = 200
_GAP: Final = "\n\n"


class _Side(NamedTuple):
    """What came of an event in the file of one peer of the client.

    Args:
        event: The event there.
        sql: The file; none if it takes nothing.
        shows: What is to be shown of it.
        is_locked: Whether it takes nothing just now.
    """

    event: Event
    sql: sqlite3.Connection | None = None
    shows: Shows = None
    is_locked: bool = False


def look(name: str, where: Places, caller: Caller, said: bytes) -> None:
    """Look at the inbox for an event, at each if the client is in several meshes.

    Args:
        name: The event's.
        where: The home.
        caller: The client.
        said: What it says of the event.

    Raises:
        ValueError: that is no event.
        OSError: nobody reads what is printed.
    """
    told = _read(said)
    # A subagent has a context of its own, and its session's messages are not for it.
    if name not in EVENTS or told.get("agent_id"):
        return
    session = _session(told, caller)
    if not session:
        return
    sides: list[_Side] = []
    try:
        room, nonce = OUTPUT_CHARACTERS, os.urandom(4).hex()
        peers = _peers(where, caller, session)
        refused = _is_refused(name, told.get("prompt"), peers)
        for record, mesh in peers:
            attended = caller.is_attended
            told_by = (told, session, record, where.data, attended)
            event = Event(*told_by, now_ms(), room, mesh, nonce, refused)
            side = _ask(name, where, event)
            if side.shows is not None:
                room -= units_of(side.shows[1].text) + len(_GAP)
            sides.append(side)
        if name == _STOP:
            _agree(where, sides)
        _print(name, where, sides, is_refused=refused)
    finally:
        for side in sides:
            if side.sql is not None:
                side.sql.close()


def _peers(where: Places, caller: Caller, session: str) -> list[tuple[Record, str]]:
    """Give the peers of a client, each with what its mesh is called if there are several."""
    found = records.of_client(where.data, caller.pid)
    if not (found or caller.pid):
        found = records.find_by_session(where.data, session)
    if len(found) <= 1:
        return [(record, "") for record in found]
    # Which one has all of the room is left to chance: none is always the last.
    first = os.urandom(1)[0] % len(found)
    return [(record, record.mesh) for record in (*found[first:], *found[:first])]


def _is_refused(name: str, prompt: Any, peers: list[tuple[Record, str]]) -> bool:
    """Tell whether this is a prompt that a waker's probe became, and that is to go no further."""
    if name != _PROMPT or not isinstance(prompt, str) or not is_of_a_machine(prompt):
        return False
    # Imported here, as few prompts are a machine's.
    from claudemesh_mcp.routes.refusing import is_refused

    return is_refused(prompt, [record.file for record, _ in peers])


def _ask(name: str, where: Places, event: Event) -> _Side:
    """Change one file by an event; what is wrong with it does not concern the others."""
    sql: sqlite3.Connection | None = None
    try:
        sql = open_file(event.record.file)
        if sql is None:
            return _Side(event)
        if os.path.exists(records.rest(event.data, event.record)):
            from claudemesh_mcp.routes import rests

            rests.take(sql, event.data, event.record)
        event = event._replace(now_ms=facts.corrected(sql, event.now_ms))
        if name == _TOOL and is_quiet(sql, event):
            return _Side(event, sql)
        with change(sql):
            return _Side(event, sql, EVENTS[name](sql, event))
    except (sqlite3.Error, OSError) as fault:
        note_fault(where, f"hook {name}", fault)
        if sql is not None:
            sql.close()
        return _Side(event, is_locked=isinstance(fault, sqlite3.OperationalError))


def _agree(where: Places, sides: list[_Side]) -> None:
    """Let all files know whether a turn goes on, or has ended."""
    is_over = all(side.shows is None for side in sides)
    for side in sides:
        try:
            if is_over and side.is_locked:
                from claudemesh_mcp.routes import rests

                rests.leave(side.event.data, side.event.record, side.event.session)
            elif not is_over and side.sql is not None and side.shows is None:
                with change(side.sql):
                    goes_on(side.sql, side.event)
        except (sqlite3.Error, OSError) as fault:
            note_fault(where, f"hook {_STOP}", fault)


def _read(said: bytes) -> Mapping[str, Any]:
    told: Any = jsontext.read(said)
    # What is no object tells nothing, not even whose event it is.
    return cast("Mapping[str, Any]", told) if isinstance(told, dict) else {"agent_id": "unknown"}


def _session(told: Mapping[str, Any], caller: Caller) -> str:
    found = told.get("session_id")
    session = found if isinstance(found, str) and found else caller.session
    # An id is compared and hashed, never a path; SQLite takes no lone surrogate.
    return session.encode("utf-8", "replace").decode()[:_ID]


def _print(name: str, where: Places, sides: list[_Side], *, is_refused: bool) -> None:
    """Print all that is shown in one write, and note behind it that it is printed."""
    if is_refused:
        from claudemesh_mcp.routes.refusing import REFUSAL

        # Whatever could be noted of it: it is no turn that anybody asked for.
        _write_whole(jsontext.write(REFUSAL).encode())
        return
    shown = [(side.sql, *side.shows) for side in sides if side.sql and side.shows]
    if not shown:
        return
    # The same line of several meshes is said once.
    text = _GAP.join(dict.fromkeys(made.text for _, _, made in shown))
    _write_whole(jsontext.write(_output(name, text)).encode())
    for sql, looked, made in shown:
        try:
            _note_printed(sql, looked, made)
        except sqlite3.Error as fault:
            note_fault(where, f"hook {name}", fault)


def _note_printed(sql: sqlite3.Connection, looked: Look, made: Offer) -> None:
    if made.holder:
        # A power cut behind this loses a note by which nothing is shown twice unmarked.
        sql.execute("PRAGMA synchronous = NORMAL")
        with change(sql):
            at_ms = facts.corrected(sql, now_ms())
            offers.note_printed(sql, looked, made.holder, at_ms)


def _output(name: str, text: str) -> dict[str, Any]:
    if name == _STOP:
        return {"decision": "block", "reason": text}
    return {"hookSpecificOutput": {"hookEventName": name, "additionalContext": text}}


def _write_whole(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
