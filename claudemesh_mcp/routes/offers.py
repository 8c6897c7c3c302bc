"""Offers rows of the inbox to one look of a hook, and takes evidence of what was printed.

``events.py`` offers in the change in which it takes evidence; the text is printed behind that
commit, and ``printed`` noted behind the print. Killed in between, a hook has printed nothing: its
lease of 30 s ends. What it printed is held for as long as the client's session goes on, and is seen
by a later event that proves a request to the model; without one it is offered again, marked.

In the inbox ``printed`` is the session into whose context a hook has printed a row, ``printed_by``
the route that the receipt will name, and ``printed_after`` the tool call behind which that was:
nothing at the beginning of a turn, ``BUSY`` for a prompt in the midst of one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable

from claudemesh_mcp import openrows, staleness
from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple
from claudemesh_mcp.routes import facts, frames
from claudemesh_mcp.routes.facts import Mode
from claudemesh_mcp.routes.settings import (
    CONTINUATIONS,
    OUTPUT_CHARACTERS,
    SHOWN,
    TOKENS_PER_HOUR,
    Moment,
    Shown,
)
from claudemesh_mcp.routes.waking import (
    hold_excess,
    note_pushes,
    tokens_left,
    tokens_of,
    wakes_left,
    waking_rows,
)

if TYPE_CHECKING:
    from typing import Final

BUSY: Final = "busy"
_HOLDER: Final = "hook:"
_MOST: Final = 60
_SPARE: Final = 900
"""Characters for what stands around the frames."""


class Look(NamedTuple):
    """One look of a hook at the inbox.

    Args:
        moment: What the client does.
        session: The id of the session.
        client: ``PID.START`` of the client.
        member: The id of the home's own member.
        route: What a receipt calls the way by which this is shown.
        after: The tool call behind which it is; ``BUSY``, or nothing.
        room: How many characters there are for it.
        mesh: What the mesh is called, if that is to be said.
    """

    moment: Moment
    session: str
    client: str
    member: str
    route: str
    after: str = ""
    room: int = OUTPUT_CHARACTERS
    mesh: str = ""


class Offer(NamedTuple):
    """A text to print.

    Args:
        text: All of it.
        holder: Holds its rows; nothing if it has none.
    """

    text: str
    holder: str


def offer(sql: sqlite3.Connection, look: Look, now_ms: int, *, released: int = 0) -> Offer | None:
    """Hand over what this look may show, in the order of arrival, as far as it fits.

    Args:
        sql: The peer file, in a change.
        look: The look.
        now_ms: The time.
        released: How many messages this prompt has released.
    """
    if facts.is_dnd(sql):
        return None
    mode = facts.mode(sql)
    if mode is Mode.OFF:
        return None
    # Before anything is chosen or counted, so that only what may be shown takes room.
    staleness.withhold(sql, now_ms)
    if mode is Mode.INBOX:
        return _count_only(sql, look, now_ms)
    shown = SHOWN[look.moment]
    rows = _candidates(sql, look, shown, now_ms)
    nonce = os.urandom(8).hex()
    tokens = tokens_left(sql, now_ms) if shown.is_pushed else TOKENS_PER_HOUR
    limits = frames.Limits(look.room - _SPARE, tokens)
    framed = frames.fit(rows, nonce, look.member, limits)
    if not framed.rows:
        return None
    holder = f"{_HOLDER}{look.client}:{nonce}"
    _note(sql, look, framed, now_ms)
    openrows.hand_over(sql, [row["row"] for row in framed.rows], holder, now_ms)
    waiting = len(rows) if shown.is_pushed else _open(sql, now_ms) + len(framed.rows)
    remark = frames.remark(waiting - len(framed.rows), released)
    heading = frames.heading(len(framed.rows), nonce, look.mesh)
    parts = [heading, *framed.parts, *([remark] if remark else [])]
    return Offer("\n\n".join(parts), holder)


def _count_only(sql: sqlite3.Connection, look: Look, now_ms: int) -> Offer | None:
    count = _open(sql, now_ms) if look.moment in {Moment.SESSION, Moment.PROMPT} else 0
    return Offer(frames.count_only(count, look.mesh), "") if count else None


def _open(sql: sqlite3.Connection, now_ms: int) -> int:
    return openrows.count_all_open(sql, now_ms)


def _candidates(
    sql: sqlite3.Connection, look: Look, shown: Shown, now_ms: int
) -> list[sqlite3.Row]:
    attended = facts.get(sql, facts.ATTENDED) == "1"
    if look.moment is Moment.BELL:
        return _rung_for(sql, shown, now_ms)
    if not shown.causes_turn:
        there = openrows.open_by_priority(sql, now_ms, shown.priorities, _MOST)
        if look.route != Moment.TOOL.value or look.moment is Moment.TOOL:
            return there
        # Late for a prompt, and in time for what a tool boundary shows.
        urgent = openrows.open_by_priority(sql, now_ms, SHOWN[Moment.TOOL].priorities, _MOST)
        known = {row["row"] for row in urgent}
        return [*urgent, *(row for row in there if row["row"] not in known)]
    if facts.get_int(sql, facts.CONTINUED) >= CONTINUATIONS or not wakes_left(sql, now_ms):
        return []
    return hold_excess(sql, waking_rows(sql, now_ms, attended=attended), now_ms)


def _rung_for(sql: sqlite3.Connection, shown: Shown, now_ms: int) -> list[sqlite3.Row]:
    """Give first the conversations that the bell was for, then what rides along."""
    woke = hold_excess(sql, waking_rows(sql, now_ms, attended=True), now_ms)
    talks = {(row["sender"], row["conv"]) for row in woke}
    there = openrows.open_by_priority(sql, now_ms, shown.priorities, _MOST)
    known = {row["row"] for row in there}
    later = [row for row in woke if row["row"] not in known]
    first = [row for row in there if (row["sender"], row["conv"]) in talks]
    return [*first, *later, *(row for row in there if row not in first)]


def _note(sql: sqlite3.Connection, look: Look, framed: frames.Framed, now_ms: int) -> None:
    """Note what is pushed, and whose turn it is if no human asked for it."""
    turn = os.urandom(8).hex() if look.moment in {Moment.BELL, Moment.STOP} else None
    caused = set[int]()
    if turn:
        attended = facts.get(sql, facts.ATTENDED) == "1"
        caused = {row["row"] for row in waking_rows(sql, now_ms, attended=attended)}
    # One that rode along has caused no turn.
    pushed = [
        (row, tokens_of(part), turn if row["row"] in caused else None)
        for row, part in zip(framed.rows, framed.parts, strict=True)
    ]
    note_pushes(sql, look.route, pushed, now_ms)


def note_printed(sql: sqlite3.Connection, look: Look, holder: str, now_ms: int) -> None:
    """Note that a text was printed whole: its rows are held until there is evidence."""
    sql.execute(
        "UPDATE inbox SET printed = ?, printed_ms = ?, printed_by = ?, printed_after = ?,"
        " lease_until_ms = ?"
        # Said twice, as in openrows.py: else all that was ever seen would be looked through.
        " WHERE state <> 'seen' AND state = 'handed' AND holder = ?",
        (look.session, now_ms, look.route, look.after, openrows.FAR_MS, holder),
    )


def doubt_prompts(sql: sqlite3.Connection) -> None:
    """Offer again, marked, what came with a prompt that may have been refused by another hook.

    What a session began with, or a tool call brought, is in the context whatever came then.
    """
    sql.execute(
        "UPDATE inbox SET lease_until_ms = 0, printed = NULL WHERE printed IS NOT NULL"
        " AND state = 'handed' AND printed_by <> ? AND printed_after IN ('', ?)",
        (Moment.SESSION.value, BUSY),
    )


def has_unproven(sql: sqlite3.Connection) -> bool:
    """Tell whether anything that was printed waits for evidence."""
    return bool(_printed(sql))


def evidence_of_end(
    sql: sqlite3.Connection,
    session: str,
    client: str,
    now_ms: int,
    ended_ms: int = openrows.FAR_MS,
) -> int:
    """Take the end of a turn: its last request had all that was printed before.

    Args:
        sql: The peer file.
        session: The session.
        client: Its client.
        now_ms: The time.
        ended_ms: When the turn ended, if that was not now.

    Returns:
        How many rows are seen by that.
    """
    rows = [row for row in _printed_for(sql, session, client) if row["printed_ms"] <= ended_ms]
    return _see(sql, rows, now_ms)


def evidence_of_tool(
    sql: sqlite3.Connection,
    who: tuple[str, str],
    are_apart: Callable[[str], bool],
    now_ms: int,
) -> int:
    """Take a tool call that has ended.

    It was asked for behind the beginning of the turn. What was printed behind another tool call is
    before the model only if this one is of a later reply.

    Args:
        sql: The peer file.
        who: The session and its client.
        are_apart: Tells of another tool call whether it was of another reply.
        now_ms: The time.
    """
    rows = [
        row
        for row in _printed_for(sql, *who)
        if row["printed_after"] != BUSY
        and (not row["printed_after"] or are_apart(row["printed_after"]))
    ]
    return _see(sql, rows, now_ms)


def _printed(sql: sqlite3.Connection) -> list[sqlite3.Row]:
    return sql.execute(
        "SELECT * FROM inbox WHERE printed IS NOT NULL AND state = 'handed' ORDER BY row"
    ).fetchall()


def _printed_for(sql: sqlite3.Connection, session: str, client: str) -> list[sqlite3.Row]:
    mine = f"{_HOLDER}{client}:"
    return [
        row for row in _printed(sql) if row["printed"] == session and row["holder"].startswith(mine)
    ]


def _see(sql: sqlite3.Connection, rows: list[sqlite3.Row], now_ms: int) -> int:
    return sum(openrows.mark_seen(sql, [row["row"]], row["printed_by"], now_ms) for row in rows)
