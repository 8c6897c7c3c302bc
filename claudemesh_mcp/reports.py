"""Receipts that are due: noted with the change they speak of, until the broker has taken them.

``inbox.py``, ``openrows.py`` and ``held.py`` note them in their changes; ``receiving.py`` signs and
reports them. To note one takes the standard library alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from claudemesh_mcp.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from claudemesh_wire.envelope import Header
    from claudemesh_wire.receipts import ReceiptItem, ReceiptStatus

    DueReports = dict[str, list[tuple[int, ReceiptItem]]]


def due(sql: sqlite3.Connection) -> DueReports:
    """Give receipts not yet reported, by sender, each list at most one signature long."""
    from claudemesh_wire.receipts import MAX_BATCH, ReceiptItem

    found_due: DueReports = {}
    for found in sql.execute("SELECT * FROM reports ORDER BY row LIMIT 2048"):
        group = found_due.setdefault(found["sender"], [])
        if len(group) < MAX_BATCH:
            item = ReceiptItem(
                id=found["id"],
                header_hash=found["header_hash"],
                status=found["status"],
                route=found["route"],
                reason=found["reason"],
                at_ms=found["at_ms"],
            )
            group.append((found["row"], item))
    return found_due


def note_again(
    sql: sqlite3.Connection, row: sqlite3.Row, said: tuple[ReceiptStatus, str, int]
) -> None:
    """Note what becomes of a row behind all that was said of it, the same perhaps among it.

    Args:
        sql: The peer file.
        row: Of the inbox.
        said: The status, its reason, and the time.
    """
    status, reason, at_ms = said
    known = (row["sender"], row["id"], str(status))
    sql.execute("DELETE FROM reports WHERE sender = ? AND id = ? AND status = ?", known)
    told = (row["sender"], row["id"], row["header_hash"])
    enter(sql, (*told, str(status), "", reason, at_ms))


def reported(sql: sqlite3.Connection, rows: Iterable[int]) -> DueReports:
    """Forget receipts that the broker has taken, and give those that are due now."""
    sql.executemany("DELETE FROM reports WHERE row = ?", [(row,) for row in rows])
    return due(sql)


def note(
    sql: sqlite3.Connection,
    header: Header,
    header_hash: bytes,
    said: tuple[ReceiptStatus, str, int],
) -> None:
    """Note a receipt that is due: its status, the reason of a refusal, and the time."""
    status, reason, at_ms = said
    enter(sql, (header.sender, header.id, header_hash, str(status), "", reason, at_ms))


def enter(sql: sqlite3.Connection, values: tuple[str, str, bytes, str, str, str, int]) -> None:
    """Note a receipt by its columns: sender, id, header hash, status, route, reason, time."""
    sql.execute(
        "INSERT OR IGNORE INTO reports (sender, id, header_hash, status, route, reason, at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        values,
    )
