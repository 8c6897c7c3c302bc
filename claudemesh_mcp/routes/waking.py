"""Which messages may cause a turn that no human asked for, and how many such turns there may be.

``offers.py`` asks it when a turn ends, ``bells.py`` before it wakes a session. What one peer sends
beyond its turns is held until a human's prompt.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from claudemesh_mcp import openrows, reports
from claudemesh_mcp.plain import TYPE_CHECKING
from claudemesh_mcp.routes import facts, wakerprobes
from claudemesh_mcp.routes.settings import (
    CHARACTERS_PER_TOKEN,
    HOUR_MS,
    NOW,
    TOKENS_PER_HOUR,
    TURNS_PER_SENDER,
    WAKES_PER_HOUR,
    WAKING,
)

if TYPE_CHECKING:
    from typing import Final

AUTO_REPLY_LIMIT: Final = "auto_reply_limit"
"""The word in ``held``, and the reason of the receipt, of what exceeded a sender's turns."""
_RELEASED: Final = "released"
_MOST: Final = 60
# In the text of an audience nothing but the first word of an entry follows such a bracket: within a
# text of JSON its quotation mark would be escaped.
_IS_ANSWER: Final = (
    "EXISTS (SELECT 1 FROM outbox WHERE outbox.id = inbox.re AND outbox.state <> 'refused'"
    " AND instr(outbox.audience, '[\"' || inbox.sender || '\",'))"
)
_WAKES: Final = f"(wakes = 1 OR {_IS_ANSWER}) AND (priority = '{NOW}' OR conv GLOB 'd_*')"
_BACK_MS: Final = 60_000
"""By less than that two hooks, or the server's corrections of its clock, may differ."""
_KEPT_MS: Final = 8 * 24 * HOUR_MS


def waking_rows(sql: sqlite3.Connection, now_ms: int, *, attended: bool) -> list[sqlite3.Row]:
    """Give the open rows that may cause a turn by themselves.

    A message of a group or of all does so as `now` only; with nobody at the client, only an answer
    does: by a peer to which the session sent what is answered. Anybody may name a message's id.
    """
    # Chosen by SQLite: behind any number of others the one that may is found.
    wakes = _WAKES if attended else _IS_ANSWER
    return openrows.open_by_priority(sql, now_ms, WAKING, _MOST, wakes)


def hold_excess(
    sql: sqlite3.Connection, rows: Sequence[sqlite3.Row], now_ms: int
) -> list[sqlite3.Row]:
    """Hold the rows of senders that have had their turns; gives the others."""
    since_ms = facts.get_int(sql, facts.PROMPT_MS)
    turns = dict(
        sql.execute(
            "SELECT sender, count(DISTINCT turn) FROM pushes"
            " WHERE at_ms > ? AND turn IS NOT NULL GROUP BY sender",
            (since_ms,),
        ).fetchall()
    )
    kept: list[sqlite3.Row] = []
    for row in rows:
        # What a human let through is not held a second time.
        if turns.get(row["sender"], 0) < TURNS_PER_SENDER or row["route"] == _RELEASED:
            kept.append(row)
        else:
            _hold(sql, row, now_ms)
    return kept


def _hold(sql: sqlite3.Connection, row: sqlite3.Row, now_ms: int) -> None:
    sql.execute(
        "UPDATE inbox SET held = ?, state = 'waiting', holder = NULL, lease_until_ms = 0"
        " WHERE row = ?",
        (AUTO_REPLY_LIMIT, row["row"]),
    )
    # Later than that it was delivered, or the broker would take it for the older word.
    at_ms = max(now_ms, row["received_ms"] + 1)
    reports.note_again(sql, row, ("held", AUTO_REPLY_LIMIT, at_ms))  # pyright: ignore[reportArgumentType]


def limited(sql: sqlite3.Connection, member: str | None = None) -> list[sqlite3.Row]:
    """Give what is held for its sender's turns: of one member, or all of it."""
    return sql.execute(
        "SELECT * FROM inbox WHERE held = ? AND state <> 'seen' AND (? IS NULL OR member = ?)",
        (AUTO_REPLY_LIMIT, member, member),
    ).fetchall()


def release_excess(sql: sqlite3.Connection, now_ms: int) -> int:
    """Let wait what was held for its sender's turns; gives how much that is."""
    rows = sql.execute(
        "UPDATE inbox SET held = NULL WHERE held = ? AND state <> 'seen' RETURNING *",
        (AUTO_REPLY_LIMIT,),
    ).fetchall()
    for row in rows:
        reports.note_again(sql, row, ("delivered", "", now_ms))  # pyright: ignore[reportArgumentType]
    return len(rows)


def wakes_left(sql: sqlite3.Connection, now_ms: int) -> int:
    """Say how many more turns messages may cause in this hour."""
    since_ms = now_ms - HOUR_MS
    (rung,) = sql.execute(
        # A bell that a prompt overtook woke nobody.
        "SELECT count(*) FROM bells WHERE rung_ms > ? AND answered_ms IS NOT 0",
        (since_ms,),
    ).fetchone()
    (continued,) = sql.execute(
        "SELECT count(DISTINCT turn) FROM pushes WHERE at_ms > ? AND route = 'stop'", (since_ms,)
    ).fetchone()
    return max(0, WAKES_PER_HOUR - rung - continued)


def tokens_left(sql: sqlite3.Connection, now_ms: int) -> int:
    """Say how much more may be pushed in this hour."""
    (pushed,) = sql.execute(
        "SELECT coalesce(sum(tokens), 0) FROM pushes WHERE at_ms > ? AND route NOT IN"
        " ('session-start', 'prompt')",
        (now_ms - HOUR_MS,),
    ).fetchone()
    return max(0, TOKENS_PER_HOUR - pushed)


def follow_clock(sql: sqlite3.Connection, now_ms: int) -> None:
    """Let what is noted of a time that has not come be of now, if the clock went back.

    Else no bell could ring until that time is there, or a sender's turns would count for nothing.
    A hook's word on what the session does shows it; ask before ``facts.begin`` forgets that.
    """
    if facts.get_int(sql, facts.ACTIVITY_MS) <= now_ms + _BACK_MS:
        return
    facts.put(sql, facts.ACTIVITY_MS, now_ms)
    openrows.turn_back(sql, now_ms)
    sql.execute("UPDATE bells SET rung_ms = ? WHERE rung_ms > ?", (now_ms, now_ms))
    sql.execute("UPDATE pushes SET at_ms = ? WHERE at_ms > ?", (now_ms, now_ms))
    wakerprobes.follow_clock(sql, now_ms)
    if facts.get_int(sql, facts.PROMPT_MS) >= now_ms:
        # Before what was pushed behind it.
        facts.put(sql, facts.PROMPT_MS, now_ms - 1)


def tokens_of(text: str) -> int:
    """Estimate what a text costs its reader."""
    return -(-len(text.encode("utf-8", "replace")) // CHARACTERS_PER_TOKEN)


def note_pushes(
    sql: sqlite3.Connection,
    route: str,
    pushed: Iterable[tuple[sqlite3.Row, int, str | None]],
    now_ms: int,
) -> None:
    """Note what is pushed.

    Args:
        sql: The peer file.
        route: The way by which it is.
        pushed: Each message, what it costs, and the turn that it caused if it did.
        now_ms: The time.
    """
    sql.execute("DELETE FROM pushes WHERE at_ms < ?", (now_ms - _KEPT_MS,))
    sql.executemany(
        "INSERT INTO pushes (at_ms, sender, member, handle, tokens, route, turn)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (now_ms, row["sender"], row["member"], row["handle"], tokens, route, turn)
            for row, tokens, turn in pushed
        ],
    )


def pushed_since(sql: sqlite3.Connection, since_ms: int) -> dict[str, int]:
    """Give the tokens that were pushed since a moment, by the sender's handle, most first."""
    return dict(
        sql.execute(
            "SELECT handle, sum(tokens) AS much FROM pushes WHERE at_ms >= ?"
            " GROUP BY handle ORDER BY much DESC, handle",
            (since_ms,),
        ).fetchall()
    )
