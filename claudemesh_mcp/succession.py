"""What a session does that took the place of one that ended on this machine.

``attachment.py`` calls it when the broker names earlier peers, before the connection is used. What
those had not shown moves from their files into this one; what still waits at the broker is opened
with their keys. Killed at any point, the next start does the rest: nothing is lost, and what may be
shown twice is marked.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final

import anyio.to_thread

from claudemesh_mcp.client import Client
from claudemesh_mcp.home import try_lock
from claudemesh_mcp.identity import read_device
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.peerfile import PeerFile
from claudemesh_mcp.receiving import Keys, Receiving
from claudemesh_wire.envelope import Copy, Refusal
from claudemesh_wire.errors import MeshError
from claudemesh_wire.messages import Delivery
from claudemesh_wire.succession import FetchInheritance, Inherited

HEIR: Final = "heir"
"""Holds, and ends, the rows that another file has; as a route it is no way into a context."""

# A row whose receipt was never handed over may be delivered by the broker once more.
_LEFT: Final = (
    "state <> 'seen' OR EXISTS (SELECT 1 FROM reports AS r"
    " WHERE r.sender = inbox.sender AND r.id = inbox.id)"
)


@dataclass(frozen=True)
class Left:
    """What an ended peer's file holds that its heir has to have."""

    messages: list[dict[str, object]]
    reports: list[dict[str, object]]
    highest: list[tuple[str, str, int]]
    names: list[tuple[str, str, int]]


async def take_over(peer: Peer, client: Client, receiving: Receiving, late: Iterable[str]) -> None:
    """Take what earlier peers left in their files, then what waits for them at the broker.

    What can't be had now is left where it is; the next connection tries again.
    """
    for one in late:
        try:
            await move(peer, one)
        except MeshError as error:
            peer.detect(error)
    receiving.something_arrived()
    await fetch(peer, client, receiving)


async def move(peer: Peer, late: str) -> None:
    """Move what an ended peer has not shown, and not reported, into the file of its heir.

    Its outbox stays: what it sealed can only be sent by itself. So does everything if a process of
    that peer lives after all.
    """
    folder = peer.home.sessions / late
    path = folder / "peer.db"
    if not await anyio.to_thread.run_sync(_has_left, path):
        return
    lock = try_lock(folder / "attached.lock")
    if lock is None:
        return
    try:
        file = await PeerFile.open(path)
        try:
            left = await file.write(hold)
            await peer.file.write(partial(keep, left=left))
            await file.write(partial(end, left=left, now_ms=peer.now_ms()))
        finally:
            await file.close()
    finally:
        lock.release()


def _has_left(path: Path) -> bool:
    """Look into a file without changing it; most ended peers left nothing."""
    if not path.exists():
        return False
    try:
        with closing(_open_to_read(path)) as connection:
            (left,) = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM inbox WHERE state <> 'seen')"
                " OR EXISTS (SELECT 1 FROM reports)"
            ).fetchone()
    except sqlite3.Error:
        return True  # Opening it in earnest says what is the matter.
    return bool(left)


def hold(sql: sqlite3.Connection) -> Left:
    """Read what a file has left, after noting there that it may be shown elsewhere.

    From then on the ended peer itself, should it come back, shows these rows as redelivered.
    """
    messages = [
        dict(row)
        for row in sql.execute(
            f"SELECT * FROM inbox WHERE {_LEFT} ORDER BY row"  # noqa: S608 - a constant
        )
    ]
    sql.execute(
        "UPDATE inbox SET state = 'waiting', lease_until_ms = 0, offers = offers + 1, holder = ?"
        " WHERE state <> 'seen' AND holder IS NOT ?",
        (HEIR, HEIR),
    )
    for row in messages:
        if row["state"] != "seen":
            # What is held here was noted by a move that did not come to its end.
            noted = row["holder"] == HEIR
            offers = int(str(row["offers"])) - noted
            row |= {"state": "waiting", "holder": None, "lease_until_ms": 0, "offers": offers}
    return Left(
        messages,
        [dict(row) for row in sql.execute("SELECT * FROM reports ORDER BY row")],
        [tuple(row) for row in sql.execute("SELECT sender, conv, highest FROM inbox_seq")],
        [tuple(row) for row in sql.execute("SELECT name, member, first_ms FROM names")],
    )


def keep(sql: sqlite3.Connection, left: Left) -> None:
    """Put what an ended peer left into the heir's file; what is there already stays as it is."""
    for table, rows in (("inbox", left.messages), ("reports", left.reports)):
        for row in rows:
            values = {name: value for name, value in row.items() if name != "row"}
            names, marks = ", ".join(values), ", ".join("?" * len(values))
            sql.execute(
                f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})",  # noqa: S608 - columns of our table
                tuple(values.values()),
            )
    sql.executemany(
        "INSERT INTO inbox_seq (sender, conv, highest) VALUES (?, ?, ?) ON CONFLICT (sender, conv)"
        " DO UPDATE SET highest = max(highest, excluded.highest)",
        left.highest,
    )
    sql.executemany(
        "INSERT OR IGNORE INTO names (name, member, first_ms) VALUES (?, ?, ?)", left.names
    )


def end(sql: sqlite3.Connection, left: Left, now_ms: int) -> None:
    """Note in the ended peer's file that its heir has what it left."""
    sql.executemany(
        "UPDATE inbox SET state = 'seen', route = ?, seen_ms = ? WHERE row = ? AND state <> 'seen'",
        [(HEIR, now_ms, row["row"]) for row in left.messages],
    )
    sql.executemany("DELETE FROM reports WHERE row = ?", [(row["row"],) for row in left.reports])


async def fetch(peer: Peer, client: Client, receiving: Receiving) -> None:
    """Take in what waits at the broker for those whose place this peer has taken."""
    after: tuple[int, str] = (0, "")
    try:
        while True:
            got = await client.call(FetchInheritance(after_row=after[0], after_peer=after[1]))
            for late, group in groupby(got.messages, lambda one: one.of):
                await _take(peer, client, receiving, (late, list(group), got.certificates))
            if not got.more or not got.messages:
                return
            after = (got.messages[-1].row, got.messages[-1].of)
    except MeshError as error:
        if error.code != "connection_lost":
            peer.detect(error)


def _not_there(folder: Path, messages: list[Inherited]) -> list[Inherited]:
    """Leave to a peer that lives after all what it has taken in itself, and not yet reported."""
    lock = try_lock(folder / "attached.lock") if folder.is_dir() else None
    path = folder / "peer.db"
    if lock is not None or not path.exists():
        if lock is not None:
            lock.release()
        return messages
    try:
        with closing(_open_to_read(path)) as connection:
            return [one for one in messages if not _has(connection, one)]
    except sqlite3.Error:
        return []  # What can't be told apart stays at the broker.


def _has(connection: sqlite3.Connection, one: Inherited) -> bool:
    try:
        header = Copy.parse(one.envelope).fields
    except Refusal:
        return False  # Whoever takes it in says what is the matter with it.
    found = connection.execute(
        "SELECT 1 FROM inbox WHERE sender = ? AND id = ?", (header.sender, header.id)
    )
    return found.fetchone() is not None


def _open_to_read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


async def _take(
    peer: Peer,
    client: Client,
    receiving: Receiving,
    got: tuple[str, list[Inherited], list[bytes]],
) -> None:
    late, messages, certificates = got
    messages = await anyio.to_thread.run_sync(_not_there, peer.home.sessions / late, messages)
    device = await anyio.to_thread.run_sync(read_device, peer.identity, late)
    keys = Keys(late, device.kem_key if device else lambda _: None)
    deliveries = [
        Delivery(row=one.row, envelope=one.envelope, queued_ms=one.queued_ms) for one in messages
    ]
    await receiving.take(client, deliveries, certificates, keys)
