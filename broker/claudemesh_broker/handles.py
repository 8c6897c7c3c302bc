"""Who gets which handle, and for whom one is kept that nobody holds.

``arrivals.py`` and ``features/presence.py`` call it inside their changes. A handle belongs to one
peer at a time. Whoever holds it and is here keeps it; one that was let go is kept for its member
for a while, so that nobody else can pass for it at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from claudemesh_broker import peers
from claudemesh_broker.peers import is_here
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.address import MAX_HANDLE
from claudemesh_wire.errors import NotFound

KEPT_MS: Final = 30 * 24 * 3600 * 1000
MOST_KEPT: Final = 32
"""So many of a member's former handles at most; beyond that it has the latest."""


@dataclass(frozen=True)
class Taken:
    """A handle that was given, and the row of the absent peer that held it until then."""

    handle: str
    late: Row | None = None


def take(sql: Sql, mesh: str, peer: str, wishes: Sequence[str], now_ms: int) -> Taken:
    """Give a peer the handle it has, or the first of its wishes that it may have.

    It keeps the one it has when it wishes for the same as before, also if it was renamed since.
    When no wish is to be had, the first one is numbered: ``ada-2``, ``ada-3``.
    """
    row = peers.find(sql, mesh, peer)
    if row is not None and row["handle"] and wishes[0] in {row["wish"], row["handle"]}:
        return Taken(row["handle"])
    taken = change(sql, mesh, peer, wishes, now_ms)
    sql.execute("UPDATE peers SET wish = ? WHERE mesh = ? AND peer = ?", wishes[0], mesh, peer)
    return taken


def change(sql: Sql, mesh: str, peer: str, wishes: Sequence[str], now_ms: int) -> Taken:
    """Give a peer the first of its wishes that it may have, or the first one numbered.

    A new handle wants a new certificate: until that is published nobody can address the peer.
    """
    row = peers.find(sql, mesh, peer)
    if row is None:
        raise NotFound("This peer is not known any more.", "Connect again.", code="unknown_peer")
    handle = next(one for one in _candidates(wishes) if _is_to_be_had(sql, row, one, now_ms))
    late = None if handle == row["handle"] else _holder(sql, mesh, handle)
    if late is not None:
        # Its certificate stays: by its id it can be written to as before.
        sql.execute(
            "UPDATE peers SET handle = NULL WHERE mesh = ? AND peer = ?", mesh, late["peer"]
        )
    if row["handle"] not in {None, handle}:
        keep(sql, row, now_ms)
    sql.execute(
        "UPDATE peers SET handle = ?, certificate_hash ="
        " CASE WHEN handle = ? THEN certificate_hash END WHERE mesh = ? AND peer = ?",
        handle,
        handle,
        mesh,
        peer,
    )
    sql.execute("DELETE FROM kept_handles WHERE mesh = ? AND handle = ?", mesh, handle)
    return Taken(handle, late)


def _candidates(wishes: Sequence[str]) -> Iterable[str]:
    yield from wishes
    for number in count(2):
        ending = f"-{number}"
        yield wishes[0][: MAX_HANDLE - len(ending)].rstrip("._-") + ending


def _holder(sql: Sql, mesh: str, handle: str) -> Row | None:
    return sql.one("SELECT * FROM peers WHERE mesh = ? AND handle = ?", mesh, handle)


def _is_to_be_had(sql: Sql, wisher: Row, handle: str, now_ms: int) -> bool:
    """Tell whether a handle is free, or that of an absent peer of the same member."""
    holder = _holder(sql, wisher["mesh"], handle)
    if holder is not None:
        if holder["peer"] == wisher["peer"]:
            return True
        return holder["member"] == wisher["member"] and not is_here(holder, now_ms)
    kept_for: str | None = sql.value(
        "SELECT member FROM kept_handles WHERE mesh = ? AND handle = ? AND until_ms > ?",
        wisher["mesh"],
        handle,
        now_ms,
    )
    return kept_for in {None, wisher["member"]}


def keep(sql: Sql, row: Row, now_ms: int) -> None:
    """Keep the handle that a peer lets go for its member."""
    sql.execute(
        "INSERT INTO kept_handles (mesh, handle, member, until_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (mesh, handle) DO UPDATE SET member = excluded.member,"
        " until_ms = excluded.until_ms",
        row["mesh"],
        row["handle"],
        row["member"],
        now_ms + KEPT_MS,
    )
    sql.execute(
        "DELETE FROM kept_handles WHERE mesh = ? AND handle IN (SELECT handle FROM kept_handles"
        " WHERE mesh = ? AND member = ? AND handle <> ? ORDER BY until_ms DESC LIMIT -1 OFFSET ?)",
        row["mesh"],
        row["mesh"],
        row["member"],
        row["handle"],
        MOST_KEPT - 1,
    )
