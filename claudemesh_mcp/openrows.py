"""What of the inbox is still to be seen: offered to one route at a time, and seen on evidence.

A row goes ``waiting → handed → seen``: handed is committed before anything is printed and holds for
30 s; seen needs evidence that came after the print. Without it the row is offered again, marked
``redelivered``. A row with a word in ``held`` lacks that grant and is handed to nobody until
``held.py`` releases it; what ``staleness.py`` objects to is taken out before each offer. Every
function is one change of a peer's file, and the standard library is all that this module imports.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from claudemesh_mcp import reports, staleness
from claudemesh_mcp.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

LEASE_MS: Final = 30_000
FAR_MS: Final = 2**53
"""The end of an offer that holds until there is evidence, or doubt; no other is later."""
_ATTACHED: Final = "attached:"
# What an earlier offer has printed is no print of this one.
_OFFERED: Final = (
    "state = 'handed', holder = ?, lease_until_ms = ?, offers = offers + 1, printed = NULL"
)
# Said twice: without the first term SQLite would not use the index of what is not seen yet.
_OPEN: Final = (
    "state <> 'seen' AND (state = 'waiting' OR (state = 'handed' AND lease_until_ms <= ?))"
    " AND held IS NULL AND (? IS NULL OR thread = ?)"
)


def hand_out(
    sql: sqlite3.Connection, limit: int, thread: str | None, holder: str, now_ms: int
) -> list[sqlite3.Row]:
    """Hand the oldest waiting rows to one route, before it prints them.

    Returns:
        The rows as they stand now; ``offers`` above 1 means that they are offered again.
    """
    staleness.withhold(sql, now_ms)
    rows = sql.execute(
        f"UPDATE inbox SET {_OFFERED} WHERE row IN"  # noqa: S608 - constants
        f" (SELECT row FROM inbox WHERE {_OPEN} ORDER BY row LIMIT ?) RETURNING *",
        (holder, now_ms + LEASE_MS, now_ms, thread, thread, limit),
    ).fetchall()
    return _in_order(rows)


def hand_over(
    sql: sqlite3.Connection, rows: Iterable[int], holder: str, now_ms: int
) -> list[sqlite3.Row]:
    """Hand rows to one route that has chosen them among the open ones in the same change.

    Returns:
        The rows as they stand now, without those that are not to be shown any more.
    """
    staleness.withhold(sql, now_ms)
    chosen = list(rows)
    marks = ", ".join("?" * len(chosen))
    handed = sql.execute(
        f"UPDATE inbox SET {_OFFERED} WHERE row IN ({marks}) AND state <> 'seen'"  # noqa: S608 - constants
        " RETURNING *",
        (holder, now_ms + LEASE_MS, *chosen),
    ).fetchall()
    return sorted(handed, key=lambda row: chosen.index(row["row"]))


def open_by_priority(
    sql: sqlite3.Connection,
    now_ms: int,
    priorities: Sequence[str],
    limit: int,
    condition: str = "1",
) -> list[sqlite3.Row]:
    """Give the oldest rows of some priorities that could be handed out.

    Args:
        sql: The peer file.
        now_ms: The time.
        priorities: The priorities.
        limit: How many rows at most.
        condition: What else must hold of them: a constant of the caller's.
    """
    marks = ", ".join("?" * len(priorities))
    rows = sql.execute(
        f"SELECT * FROM inbox WHERE {_OPEN} AND priority IN ({marks})"  # noqa: S608 - constants
        f" AND ({condition}) ORDER BY row LIMIT ?",
        (now_ms, None, None, *priorities, limit),
    ).fetchall()
    return _in_order(rows)


def peek(sql: sqlite3.Connection, limit: int, thread: str | None, now_ms: int) -> list[sqlite3.Row]:
    """Give the oldest rows that are waiting, or whose offer ended without evidence."""
    staleness.withhold(sql, now_ms)
    return _in_order(
        sql.execute(
            f"SELECT * FROM inbox WHERE {_OPEN} ORDER BY row LIMIT ?",  # noqa: S608 - a constant
            (now_ms, thread, thread, limit),
        ).fetchall()
    )


def count_open(sql: sqlite3.Connection, now_ms: int, thread: str | None = None) -> dict[str, int]:
    """Count the rows that could be handed out, by the member they came from."""
    return dict(
        sql.execute(
            f"SELECT member, count(*) FROM inbox WHERE {_OPEN} GROUP BY member",  # noqa: S608 - a constant
            (now_ms, thread, thread),
        ).fetchall()
    )


def count_all_open(sql: sqlite3.Connection, now_ms: int) -> int:
    """Count the rows that could be handed out."""
    (count,) = sql.execute(
        f"SELECT count(*) FROM inbox WHERE {_OPEN}",  # noqa: S608 - a constant
        (now_ms, None, None),
    ).fetchone()
    return int(count)


def count_by_priority(
    sql: sqlite3.Connection, now_ms: int, route: str | None = None
) -> dict[tuple[str, str], int]:
    """Count the rows that could be handed out, or those with a route, by member and priority."""
    rows = sql.execute(
        f"SELECT member, priority, count(*) FROM inbox WHERE {_OPEN}"  # noqa: S608 - a constant
        " AND (? IS NULL OR route = ?) GROUP BY member, priority",
        (now_ms, None, None, route, route),
    )
    return {(member, priority): count for member, priority, count in rows}


def whose(sql: sqlite3.Connection, now_ms: int, limit: int) -> set[str]:
    """Give the members that the next rows to be handed out came from."""
    rows = sql.execute(
        f"SELECT member FROM inbox WHERE {_OPEN} ORDER BY row LIMIT ?",  # noqa: S608 - a constant
        (now_ms, None, None, limit),
    )
    return {row["member"] for row in rows}


def open_of(sql: sqlite3.Connection, now_ms: int, member: str) -> list[sqlite3.Row]:
    """Give the rows of a member that could be handed out."""
    return sql.execute(
        f"SELECT * FROM inbox WHERE {_OPEN} AND member = ? ORDER BY row",  # noqa: S608 - a constant
        (now_ms, None, None, member),
    ).fetchall()


def give_back(sql: sqlite3.Connection, holder: str, rows: Iterable[int] | None = None) -> None:
    """Take back an offer that was never printed: the rows wait as if nothing had been.

    Args:
        sql: The peer file.
        holder: The process, or one hand-out of it, that held the offer.
        rows: Only these rows; all that the holder has if not given.
    """
    only = None if rows is None else set(rows)
    for row in sql.execute(
        "SELECT row FROM inbox WHERE state <> 'seen' AND state = 'handed' AND holder GLOB ? || '*'",
        (holder,),
    ).fetchall():
        if only is None or row["row"] in only:
            sql.execute(
                "UPDATE inbox SET state = 'waiting', holder = NULL, lease_until_ms = 0,"
                " offers = offers - 1 WHERE row = ?",
                (row["row"],),
            )


def give_back_printed(sql: sqlite3.Connection, *, but: tuple[str, str] = ("", "")) -> None:
    """Offer again, marked, what hooks have printed and nothing has proved to be seen.

    Args:
        sql: The peer file.
        but: What this route printed into this session stays as it is.
    """
    sql.execute(
        "UPDATE inbox SET lease_until_ms = 0, printed = NULL"
        " WHERE printed IS NOT NULL AND state = 'handed' AND NOT (printed_by IS ? AND printed = ?)",
        but,
    )


def turn_back(sql: sqlite3.Connection, now_ms: int) -> None:
    """Let offers end that would hold beyond their lease, because the clock went back."""
    sql.execute(
        "UPDATE inbox SET lease_until_ms = 0 WHERE state <> 'seen' AND state = 'handed'"
        " AND lease_until_ms > ? AND lease_until_ms < ?",
        (now_ms + LEASE_MS, FAR_MS),
    )


def mark_seen(sql: sqlite3.Connection, rows: Iterable[int], route: str, now_ms: int) -> int:
    """Take evidence that rows were printed; note the receipts.

    Returns:
        How many rows were not seen before.
    """
    marked = 0
    for row in rows:
        found = sql.execute(
            "UPDATE inbox SET state = 'seen', route = ?, seen_ms = ?, held = NULL, withheld = NULL"
            # What was withheld between an offer and its evidence was shown all the same.
            " WHERE row = ? AND (state <> 'seen' OR (route = ? AND offers > 0))"
            " RETURNING sender, id, header_hash",
            (route, now_ms, row, staleness.WITHHELD),
        ).fetchone()
        if found is not None:
            marked += 1
            told = (found["sender"], found["id"], found["header_hash"])
            reports.enter(sql, (*told, "seen", route, "", now_ms))
    return marked


def release_orphans(sql: sqlite3.Connection, holder: str) -> None:
    """Offer again what an earlier attached process of this peer held: it is dead."""
    sql.execute(
        "UPDATE inbox SET lease_until_ms = 0 WHERE state <> 'seen' AND state = 'handed'"
        " AND NOT holder GLOB ? || '*' AND holder GLOB ? || '*'",
        (holder, _ATTACHED),
    )


def attached_holder(nonce: str) -> str:
    """Name the offers of a process that holds the peer's lock."""
    return _ATTACHED + nonce


def _in_order(rows: list[sqlite3.Row]) -> list[sqlite3.Row]:
    """Keep arrival order, but put each sender's rows of a conversation in their own order."""
    rows = sorted(rows, key=lambda row: row["row"])
    places: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault((row["sender"], row["conv"]), []).append(place)
    ordered = list(rows)
    for spots in places.values():
        by_seq = sorted((rows[spot] for spot in spots), key=lambda row: row["seq"])
        for spot, row in zip(spots, by_seq, strict=True):
            ordered[spot] = row
    return ordered
