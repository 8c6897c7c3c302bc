"""Puts away the peers that nobody has seen for long, and deletes what nothing can name any more.

``upkeep.py`` calls it every hour inside its change. After 30 days a peer is archived: in no list,
no group's audience, without its handle, which its member may have back for 30 days more. Everything
else about it stays, and it is itself again when it returns; after 180 days its row goes.
"""

from typing import Final

from claudemesh_broker import handles
from claudemesh_broker.sql import Sql

_DAY_MS: Final = 24 * 3600 * 1000
ARCHIVED_AFTER_MS: Final = 30 * _DAY_MS
PEER_KEPT_MS: Final = 180 * _DAY_MS
CERTIFICATE_KEPT_MS: Final = 9 * _DAY_MS
"""So long after its end an envelope or receipt that was signed under it may still be on its way."""


def put_away(sql: Sql, now_ms: int, most: int) -> int:
    """Archive and delete what is due, so many peers at most; gives how many there were."""
    return _archive(sql, now_ms, most) + _delete(sql, now_ms, most)


def sweep(sql: Sql, now_ms: int) -> None:
    """Delete the reservations that have run out, and the certificates that nothing names."""
    sql.execute("DELETE FROM kept_handles WHERE until_ms <= ?", now_ms)
    sql.execute(
        "DELETE FROM certificates WHERE not_after_ms < ? AND hash NOT IN"
        " (SELECT certificate_hash FROM peers WHERE certificate_hash IS NOT NULL)",
        now_ms - CERTIFICATE_KEPT_MS,
    )


def _archive(sql: Sql, now_ms: int, most: int) -> int:
    unseen = sql.all(
        "SELECT mesh, peer, member, handle FROM peers"
        " WHERE attached = 0 AND archived_ms IS NULL AND last_seen_ms < ? LIMIT ?",
        now_ms - ARCHIVED_AFTER_MS,
        most,
    )
    for row in unseen:
        if row["handle"] is not None:
            handles.keep(sql, row, now_ms)
    sql.many(
        "UPDATE peers SET archived_ms = ?, handle = NULL WHERE mesh = ? AND peer = ?",
        [(now_ms, row["mesh"], row["peer"]) for row in unseen],
    )
    return len(unseen)


def _delete(sql: Sql, now_ms: int, most: int) -> int:
    old = sql.all(
        "SELECT mesh, peer FROM peers WHERE archived_ms IS NOT NULL AND last_seen_ms < ? LIMIT ?",
        now_ms - PEER_KEPT_MS,
        most,
    )
    names = [(row["mesh"], row["peer"]) for row in old]
    for table in ("groups", "queues", "peers"):
        sql.many(f"DELETE FROM {table} WHERE mesh = ? AND peer = ?", names)  # noqa: S608 - ours
    return len(names)
