"""Remembers the end of a turn that the peer's file could not take, because somebody had it locked.

``looking.py`` leaves a small file beside the client's record; the next hook, monitor or server of
the client takes it in. Without it the session would be called working for ten minutes.
"""

from __future__ import annotations

import os
import sqlite3

from claudemesh_mcp.plain import TYPE_CHECKING, suppress
from claudemesh_mcp.routes import bells, facts, jsontext, offers, records
from claudemesh_mcp.routes.door import change, now_ms
from claudemesh_mcp.routes.facts import Activity
from claudemesh_mcp.routes.places import Folder
from claudemesh_mcp.routes.processes import replace_file
from claudemesh_mcp.routes.records import Record

if TYPE_CHECKING:
    from typing import Any, Final

_MOST_BYTES: Final = 4096


def leave(data: Folder, record: Record, session: str) -> None:
    """Say that a turn has ended.

    Args:
        data: The home.
        record: Whose turn it was.
        session: The id of the client's session.

    Raises:
        OSError: the disk refuses.
    """
    # By this machine's clock: how far that is off stands in the file that is locked.
    told = {"client": str(record.client), "session": session, "at_ms": str(now_ms())}
    replace_file(records.rest(data, record), jsontext.write(told).encode())


def take(sql: sqlite3.Connection, data: Folder, record: Record) -> None:
    """Take in the end of a turn, if one is left, in a change of its own.

    Raises:
        sqlite3.Error: the file takes nothing yet; what was left stays.
    """
    found = left(data, record)
    if found:
        with change(sql):
            note(sql, record, found)
        drop(data, record, found)


def left(data: Folder, record: Record) -> bytes:
    """Give what is left to be taken in; nothing if there is nothing."""
    try:
        with open(records.rest(data, record), "rb") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return b""


def drop(data: Folder, record: Record, taken: bytes) -> None:
    """Remove what was taken in, behind the commit; not what a later turn has left meanwhile."""
    if left(data, record) == taken:
        with suppress(OSError):
            os.unlink(records.rest(data, record))


def note(sql: sqlite3.Connection, record: Record, found: bytes) -> None:
    """Note in a peer's file, inside a change, that a turn has ended; once or more is the same.

    Args:
        sql: The peer file.
        record: Whose turn it was.
        found: As ``left`` gave it.
    """
    try:
        told: Any = jsontext.read(found)
        client, session = str(told["client"]), str(told["session"])
        at_ms = facts.corrected(sql, min(int(told["at_ms"]), now_ms()))
    except (ValueError, TypeError, LookupError):
        return
    # Whoever has spoken since knows better; a file of an earlier client says nothing.
    if client != str(record.client) or facts.get(sql, facts.CLIENT) != client:
        return
    if facts.get_int(sql, facts.ACTIVITY_MS) > at_ms:
        return
    offers.evidence_of_end(sql, session, client, at_ms, at_ms)
    bells.overtake(sql, at_ms, by_human=False)
    # What else the client said of it is not known.
    facts.put(sql, facts.BACKGROUND, "")
    facts.put(sql, facts.ACTIVITY, Activity.IDLE.value)
    facts.put(sql, facts.ACTIVITY_MS, at_ms)
