"""Which new session takes the place of one that ended, and what it takes over.

``arrivals.py`` decides by it and ``features/messages.py`` asks for whom a message is now, inside
their changes. The late peer keeps its row, certificate and id: what was sealed to it is opened with
its keys, by the heir on the same machine. If it comes back after all it is a peer of its own again,
and what waited for it before stays with the heir.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from claudemesh_broker import queues
from claudemesh_broker.queues import Waiting
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.handshake import Session
from claudemesh_wire.succession import MOST_TOLD

CLAUDE: Final = "claude"


def may_succeed(member: str, session: Session, late: Row) -> bool:
    """Tell whether a session is one that takes the place of an absent peer.

    Both are Claude sessions of one member on one host in one folder.
    """
    here = (member, session.type, session.host, session.cwd)
    there = (late["member"], late["type"], late["host"], late["cwd"])
    return here == there and session.type == CLAUDE and bool(session.host and session.cwd)


def succeed(sql: Sql, late: Row, heir: str) -> None:
    """Give to a peer what an ended one was: groups, what is shown of it, counts, its queue.

    Args:
        sql: The change's.
        late: The ended peer's row as it was before it lost its handle.
        heir: The peer that has the handle by now.
    """
    mesh, gone = late["mesh"], late["peer"]
    _hand_down(sql, late, heir)
    # Those it had succeeded itself too, so that one look always finds the last heir.
    sql.execute(
        "UPDATE peers SET successor = ?, returned = returned AND peer <> ?"
        " WHERE mesh = ? AND (peer = ? OR successor = ?)",
        heir,
        gone,
        mesh,
        gone,
        gone,
    )
    sql.execute(
        "UPDATE peers SET successor = NULL, returned = 0 WHERE mesh = ? AND peer = ?", mesh, heir
    )
    sql.execute(
        "UPDATE OR REPLACE groups SET peer = ? WHERE mesh = ? AND peer = ?", heir, mesh, gone
    )
    sql.execute(
        "UPDATE deliveries SET heir = ? WHERE recipient = ? AND status = 'queued' AND heir IS NULL",
        heir,
        gone,
    )
    sql.execute("UPDATE deliveries SET heir = nullif(?, recipient) WHERE heir = ?", heir, gone)


def _hand_down(sql: Sql, late: Row, heir: str) -> None:
    sql.execute(
        "UPDATE peers SET role = ?, status = ?, summary = ?, profile = ?, visible = ?,"
        " share_cwd = ?, sessions = sessions + ?, sent = sent + ?, received = received + ?,"
        " online_ms = online_ms + ?, first_seen_ms = min(first_seen_ms, ?), departed_ms = ?"
        " WHERE mesh = ? AND peer = ?",
        *(late[name] for name in ("role", "status", "summary", "profile", "visible")),
        *(late[name] for name in ("share_cwd", "sessions", "sent", "received", "online_ms")),
        late["first_seen_ms"],
        late["last_seen_ms"],
        late["mesh"],
        heir,
    )
    sql.execute(
        "UPDATE peers SET sessions = 0, sent = 0, received = 0, online_ms = 0"
        " WHERE mesh = ? AND peer = ?",
        late["mesh"],
        late["peer"],
    )


def come_back(sql: Sql, mesh: str, peer: str) -> None:
    """Make an ended peer that is back a fork: what it had until now stays with its heir.

    No index finds those rows: coming back is rare, and every message would pay for one.
    """
    heir: str | None = sql.value(
        "UPDATE peers SET returned = 1 WHERE mesh = ? AND peer = ? AND NOT returned"
        " AND successor IS NOT NULL RETURNING successor",
        mesh,
        peer,
    )
    if heir is not None:
        sql.execute(
            "UPDATE deliveries SET heir = ? WHERE recipient = ? AND heir IS NULL"
            " AND status IN ('held', 'delivered', 'withheld', 'expired')",
            heir,
            peer,
        )


def succeeded_by(sql: Sql, mesh: str, peer: str) -> list[str]:
    """Give the ended peers whose place a peer has taken, the latest first, and not too many."""
    rows = sql.all(
        "SELECT peer FROM peers WHERE mesh = ? AND successor = ? AND returned = 0"
        " ORDER BY last_seen_ms DESC LIMIT ?",
        mesh,
        peer,
        MOST_TOLD,
    )
    return [row["peer"] for row in rows]


def predecessors(
    sql: Sql, mesh: str, peer: str, after: str, limit: int
) -> tuple[Sequence[str], bool]:
    """Give the ended peers whose place a peer has taken, by id; and whether more are behind."""
    rows = sql.all(
        "SELECT peer FROM peers WHERE mesh = ? AND successor = ? AND returned = 0 AND peer > ?"
        " ORDER BY peer LIMIT ?",
        mesh,
        peer,
        after,
        limit + 1,
    )
    return [row["peer"] for row in rows[:limit]], len(rows) > limit


def entrust(sql: Sql, seq: int, rows: Iterable[Row]) -> list[str]:
    """Have a message for ended peers wait for their heirs; gives the heirs.

    Args:
        sql: The change's.
        seq: The message, which has its deliveries.
        rows: Its recipients, each with ``peer``, ``successor`` and ``returned``.
    """
    heirs: dict[str, None] = {}
    for row in rows:
        if row["successor"] is not None and not row["returned"]:
            sql.execute(
                "UPDATE deliveries SET heir = ? WHERE seq = ? AND recipient = ?",
                row["successor"],
                seq,
                row["peer"],
            )
            heirs[row["successor"]] = None
    return list(heirs)


def backlog(sql: Sql, mesh: str, peer: str) -> int:
    """Give how many messages wait for a peer, those of whom it is the heir included."""
    waiting, _ = queues.backlog(sql, mesh, peer)
    taken: int = sql.value(
        "SELECT count(*) FROM deliveries"
        " WHERE recipient = ? AND status = 'queued' AND heir IS NOT NULL",
        peer,
    )
    inherited: int = sql.value(
        "SELECT count(*) FROM deliveries WHERE heir = ? AND status = 'queued'", peer
    )
    return waiting - taken + inherited


def inheritance(
    sql: Sql, mesh: str, peer: str, after: tuple[int, str], bounds: tuple[int, int]
) -> tuple[Sequence[tuple[str, Waiting]], bool]:
    """Give what waits for a peer as the heir of others, oldest first.

    Args:
        sql: The query's.
        mesh: The heir's mesh.
        peer: The heir.
        after: Row and recipient of the last one it was given.
        bounds: How many messages and how many bytes at most; one message is always given.

    Returns:
        Whose each was and the copy; and whether more wait behind them.
    """
    most, most_bytes = bounds
    rows = sql.all(
        "SELECT d.seq, d.recipient, d.slot, m.size_bytes, m.accepted_ms, m.certificate_hash"
        " FROM deliveries AS d JOIN messages AS m ON m.seq = d.seq"
        " JOIN envelopes AS e ON e.seq = d.seq"
        " WHERE d.heir = ? AND d.status = 'queued' AND (d.seq, d.recipient) > (?, ?)"
        " AND m.mesh = ? ORDER BY d.seq, d.recipient LIMIT ?",
        peer,
        *after,
        mesh,
        most + 1,
    )
    copies, more = queues.copies(sql, rows, (most, most_bytes))
    return [(row["recipient"], copy) for row, copy in zip(rows, copies, strict=False)], more
