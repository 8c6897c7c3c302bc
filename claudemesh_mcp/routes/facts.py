"""The facts of a session that its server, hooks and monitor tell each other in the peer's file.

Each is one row of ``facts``; this module is the list of their keys. ``events.py`` writes most
of them; the server ``MODE``, ``DND``, ``CHANNEL``, ``OFFSET_MS``, and it calls ``begin`` when its
peer is open; it settles ``PROBE`` and writes ``HOOKS``.
"""

from __future__ import annotations

import sqlite3

from claudemesh_mcp import openrows
from claudemesh_mcp.plain import TYPE_CHECKING, StrEnum

if TYPE_CHECKING:
    from typing import Final

FILE_VERSION: Final = 4
"""The newest version of a peer's file that these modules know; they touch no other."""
FIRST_FILE_VERSION: Final = 4

CLIENT: Final = "route.client"
"""The client that the other facts are of: ``PID.START``, as ``str(Living)`` gives it."""
SESSION: Final = "route.session"
"""The id of the client's session now; it changes on /clear, /resume and /branch."""
ACTIVITY: Final = "route.activity"
"""``working``, ``idle`` or ``ended``: an ``Activity``."""
ACTIVITY_MS: Final = "route.activity_ms"
"""When a hook last said so, in ms."""
PROMPT_MS: Final = "route.prompt_ms"
"""When a human last sent a prompt, in ms."""
ATTENDED: Final = "route.attended"
"""``1`` if somebody sits at the client, ``0`` in a run of ``claude -p``."""
CONTINUED: Final = "route.continued"
"""How often the Stop hook went on with the present turn."""
MODE: Final = "route.mode"
"""A ``Mode``: what this session's user wants of messages. Written by the server."""
DND: Final = "route.dnd"
"""``1`` while the peer's status is ``dnd``. Written by the server."""
CHANNEL: Final = "route.channel"
"""``PID.START`` of the server that can send channel notifications, while it can."""

STARTED: Final = "route.started"
"""The servers that were started because they come back, one a line, until a hook has told it.
Written by the server."""

PROBE: Final = "route.probe"
"""The probe of the hooks that is not settled yet, as ``probes.py`` writes it; empty if none is."""
HOOKS: Final = "route.hooks"
"""What the last probe that was settled says of the hooks, a ``Health``; empty before the first."""
PROMPTS: Final = "route.prompts"
"""``1`` once the client was seen to have heard the hook of a prompt."""
FORMER: Final = "former:"
"""Before the route of a bell that was rung for an earlier client."""
WAKER_PROBES: Final = {route: f"route.probe.{route}" for route in ("monitor", "rewake", "channel")}
"""The probe of each waker, as ``wakerprobes.py`` writes it; empty before there was one."""
BACKGROUND: Final = "route.background"
"""``1`` if something ran in the background, beside monitors, when the last turn ended."""
OFFSET_MS: Final = "route.offset_ms"
"""What the broker's time is ahead of this machine's, as far as the server corrects for it."""


class Activity(StrEnum):
    """What a session does."""

    WORKING = "working"
    IDLE = "idle"
    ENDED = "ended"


class Health(StrEnum):
    """What is known of a route."""

    REACHES = "reaches"
    SILENT = "silent"
    UNTRIED = "untried"


class Mode(StrEnum):
    """What a session's user wants of messages that arrive."""

    PUSH = "push"
    INBOX = "inbox"
    OFF = "off"


def get(sql: sqlite3.Connection, key: str, default: str = "") -> str:
    """Give a fact."""
    found = sql.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
    return default if found is None else str(found[0])


def get_int(sql: sqlite3.Connection, key: str) -> int:
    """Give a fact that is a number; 0 if there is none."""
    told = get(sql, key)
    return int(told) if told.isascii() and told.isdigit() else 0


def put(sql: sqlite3.Connection, key: str, value: str | int) -> bool:
    """Set a fact; gives whether that changed it."""
    if get(sql, key) == str(value):
        return False
    sql.execute(
        "INSERT INTO facts (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, str(value)),
    )
    return True


def begin(sql: sqlite3.Connection, client: str, session: str, *, attended: bool) -> bool:
    """Note whose client the facts are of from now on; a server calls it when its peer is open.

    Whoever comes first, server or hook, begins; for the same client nothing is changed.

    Args:
        sql: The peer file.
        client: ``PID.START``.
        session: The id of its session.
        attended: Whether somebody sits at it.

    Returns:
        Whether it was another client before.
    """
    if not put(sql, CLIENT, client):
        return False
    # What an earlier client printed without proof may have been seen by nobody.
    openrows.give_back_printed(sql)
    put(sql, STARTED, "")
    put(sql, SESSION, session)
    put(sql, ATTENDED, "1" if attended else "0")
    # Before its first prompt a client at a terminal waits for one.
    put(sql, ACTIVITY, (Activity.IDLE if attended else Activity.WORKING).value)
    # When a human last sent a prompt stays: what its senders caused before that is forgiven.
    for key in (ACTIVITY_MS, CONTINUED):
        put(sql, key, 0)
    for key in (PROBE, HOOKS, PROMPTS, BACKGROUND):
        put(sql, key, "")
    # They count among the wakes of the hour, and say nothing of this client's wakers.
    sql.execute("UPDATE bells SET route = ? || route WHERE route NOT GLOB ? || '*'", (FORMER,) * 2)
    return True


def set_offset(sql: sqlite3.Connection, offset_ms: int) -> bool:
    """Note by how much the server corrects its clock; gives whether that is new."""
    return put(sql, OFFSET_MS, offset_ms)


def corrected(sql: sqlite3.Connection, now_ms: int) -> int:
    """Give this machine's time as the server has it: both say how long an offer holds."""
    told = get(sql, OFFSET_MS, "0")
    return now_ms + (int(told) if told.removeprefix("-").isdecimal() else 0)


def mode(sql: sqlite3.Connection) -> Mode:
    """Give what the session's user wants of messages."""
    try:
        return Mode(get(sql, MODE, Mode.PUSH.value))
    except ValueError:
        return Mode.PUSH


def set_mode(sql: sqlite3.Connection, wanted: Mode) -> bool:
    """Set what the session's user wants of messages; gives whether that is new."""
    return put(sql, MODE, wanted.value)


def set_dnd(sql: sqlite3.Connection, *, on: bool) -> bool:
    """Note whether the peer asks for quiet; gives whether that is new."""
    return put(sql, DND, "1" if on else "0")


def is_dnd(sql: sqlite3.Connection) -> bool:
    """Tell whether the peer asks for quiet."""
    return get(sql, DND) == "1"


def add_started(sql: sqlite3.Connection, line: str) -> bool:
    """Note that a server was started because it comes back: its name and command line."""
    return put(sql, STARTED, "\n".join(filter(None, (get(sql, STARTED), line))))


def take_started(sql: sqlite3.Connection) -> str:
    """Give what is noted of servers that were started, for who tells it now."""
    told = get(sql, STARTED)
    if told:
        put(sql, STARTED, "")
    return told


def hooks(sql: sqlite3.Connection) -> Health:
    """Give what is known of the hooks since the start of the session."""
    try:
        return Health(get(sql, HOOKS))
    except ValueError:
        return Health.UNTRIED


def activity(sql: sqlite3.Connection) -> Activity | None:
    """Give what the session does; none if no hook or server of a client has ever said so."""
    try:
        return Activity(get(sql, ACTIVITY))
    except ValueError:
        return None
