"""What a session does that took the place of one that ended on this machine.

``attachment.py`` begins it before a connection is used and runs it until that ends. What earlier
peers had not shown moves from their files into this one; what still waits at the broker is opened
with their keys. Killed at any point, the next start does the rest: nothing is lost, and what may be
shown twice is marked.
"""

import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final

import anyio.to_thread

from claudemesh_mcp import staleness
from claudemesh_mcp.client import Client
from claudemesh_mcp.connection import pauses
from claudemesh_mcp.home import try_lock
from claudemesh_mcp.identity import read_device
from claudemesh_mcp.inbox import HEIR
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.peerfile import PeerFile, connect_to_read
from claudemesh_mcp.receiving import Keys, Receiving
from claudemesh_wire.envelope import Copy, Refusal
from claudemesh_wire.errors import MeshError, TooMuch, Unavailable
from claudemesh_wire.handshake import Facts
from claudemesh_wire.messages import Delivery
from claudemesh_wire.succession import MOST_TOLD, FetchInheritance, Inherited, ListPredecessors

_PASSING: Final = (TooMuch, Unavailable)
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


class Succession:
    """The heir's side: what it takes over, at once and later.

    What can't be had now is left where it is, in a file or at the broker. What stands in the way of
    one ended peer is noted and keeps nobody from what the others left.

    Args:
        peer: The heir.
        receiving: What takes in what waits at the broker.
    """

    def __init__(self, peer: Peer, receiving: Receiving) -> None:
        self._peer = peer
        self._receiving = receiving
        self._due = anyio.Event()
        self._files_are_due = False
        self._queue_is_due = False
        self._is_deferred = False
        self._retry_after_s = 0.0

    async def begin(self, client: Client, facts: Facts) -> None:
        """Take over what is there when a connection begins, as far as it is to be had at once."""
        # Of a predecessor that is back nothing is named, and what was entrusted before waits still.
        self._queue_is_due = bool(facts.succeeds or facts.queued)
        self._files_are_due = len(facts.succeeds) >= MOST_TOLD
        await self._move_all(facts.succeeds)
        if self._queue_is_due:
            await self._fetch(client)

    def look(self) -> None:
        """Learn that something waits for an ended peer."""
        self._queue_is_due = True
        self._due.set()

    def look_again(self) -> None:
        """Learn that something may be believed now that was not before."""
        if self._is_deferred:
            self.look()

    async def run(self, client: Client) -> None:
        """Take over what comes later, and what was not to be had, until the connection ends."""
        waits = pauses()
        while True:
            if self._files_are_due or self._queue_is_due:
                pause_s = max(next(waits), self._retry_after_s)
            else:
                waits, pause_s = pauses(), math.inf
            with anyio.move_on_after(pause_s):
                await self._due.wait()
            self._due, self._retry_after_s = anyio.Event(), 0.0
            if self._files_are_due:
                await self._move_listed(client)
            if self._queue_is_due:
                await self._fetch(client)

    async def _move_listed(self, client: Client) -> None:
        """Ask whom this peer has succeeded, since one of them may be back, and look after all."""
        self._files_are_due, after, more = False, "", True
        try:
            while more:
                found = await client.call(ListPredecessors(after=after))
                await self._move_all(found.peers)
                after = found.peers[-1] if found.peers else ""
                more = found.more and bool(found.peers)
        except MeshError as error:
            self._files_are_due |= self._is_passing(error)

    async def _move_all(self, late: Iterable[str]) -> None:
        for one in late:
            try:
                await move(self._peer, one)
            except MeshError as error:
                self._files_are_due |= self._is_passing(error)
        self._receiving.something_arrived()

    async def _fetch(self, client: Client) -> None:
        """Take in what waits at the broker for those whose place this peer has taken."""
        self._queue_is_due = self._is_deferred = False
        request = FetchInheritance()
        try:
            while True:
                got = await client.call(request)
                for late, group in groupby(got.messages, lambda one: one.of):
                    await self._take(client, late, list(group), got.certificates)
                if not got.more or not got.messages:
                    return
                last = got.messages[-1]
                request = FetchInheritance(after_row=last.row, after_peer=last.of)
        except MeshError as error:
            self._queue_is_due |= self._is_passing(error)

    async def _take(
        self, client: Client, late: str, messages: list[Inherited], certificates: list[bytes]
    ) -> None:
        peer = self._peer
        try:
            folder = peer.home.sessions / late
            messages = await anyio.to_thread.run_sync(_not_there, folder, messages)
            device = await anyio.to_thread.run_sync(read_device, peer.identity, late)
            keys = Keys(late, device.kem_key if device else lambda _: None)
            deliveries = [
                Delivery(row=one.row, envelope=one.envelope, queued_ms=one.queued_ms)
                for one in messages
            ]
            is_done = await self._receiving.take(client, deliveries, certificates, keys)
            self._is_deferred |= not is_done
            self._queue_is_due |= not is_done
        except MeshError as error:
            self._queue_is_due |= self._is_passing(error)

    def _is_passing(self, error: MeshError) -> bool:
        """Note what stands in the way; tells whether a further attempt may find it gone.

        A connection that was lost is no fault, and the next one begins anew.
        """
        if error.code == "connection_lost":
            return False
        self._peer.detect(error)
        self._retry_after_s = max(self._retry_after_s, error.retry_after_s or 0.0)
        return isinstance(error, _PASSING)


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
        with closing(connect_to_read(path)) as connection:
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
    staleness.relate_all(sql)
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


def _not_there(folder: Path, messages: list[Inherited]) -> list[Inherited]:
    """Leave to a peer that lives after all what it has taken in itself, and not yet reported."""
    lock = try_lock(folder / "attached.lock") if folder.is_dir() else None
    path = folder / "peer.db"
    if lock is not None or not path.exists():
        if lock is not None:
            lock.release()
        return messages
    try:
        with closing(connect_to_read(path)) as connection:
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
