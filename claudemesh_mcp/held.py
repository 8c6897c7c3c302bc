"""What is held: counted, found in all peers of a home, released or discarded by the home's human.

``inbox.py`` files a message as held when ``policy.py`` says so; no model is handed one. ``cli/``
and ``granting.py`` look into the files of peers that other processes have open, by short
transactions. A held message stays until somebody decides, whatever its sender set as its end.
"""

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import anyio.to_thread

from claudemesh_mcp import reports
from claudemesh_mcp.home import Home
from claudemesh_mcp.peerfile import SCHEMA_VERSION, PeerFile, connect_to_read
from claudemesh_mcp.textindex import RECEIVED, forget
from claudemesh_wire.errors import Conflict, MeshError, NotFound, Unavailable
from claudemesh_wire.receipts import ReceiptStatus

logger: Final = logging.getLogger(__name__)
_LINE: Final = 200
FIRST_VERSION: Final = 2
"""The version of a peer's file that knows what is held."""
DECLINED: Final = "declined"
"""The route of a row that is kept only so that its message is not taken in again."""
RELEASED: Final = "released"
"""The route of a row that waits because it alone was let through, whatever its member may."""
# What an heir has taken over is seen in the file of the one that ended.
_HELD: Final = "held IS NOT NULL AND state <> 'seen'"
_MESH: Final = "(SELECT value FROM facts WHERE key = 'mesh')"


@dataclass(frozen=True)
class Held:
    """A message that waits for its reader's human.

    Args:
        mesh: The mesh it came by.
        peer: The peer of this home that it was sent to.
        text: The beginning of its first line.
        lacks: The capability its sender lacks.
    """

    mesh: str
    peer: str
    id: str
    sender: str
    handle: str
    member: str
    member_name: str
    text: str
    lacks: str
    received_ms: int


@dataclass(frozen=True)
class Found:
    """What is held in a home, the oldest first.

    Args:
        skipped: Of each file that could not be looked into, a sentence that says so.
    """

    messages: list[Held] = field(default_factory=list[Held])
    skipped: list[str] = field(default_factory=list[str])

    def within(self, known: Collection[str]) -> "Found":
        """Give what came by these meshes alone: by one that was left nothing can be done any more.

        Args:
            known: The ids of meshes.
        """
        return replace(self, messages=[one for one in self.messages if one.mesh in known])


@dataclass(frozen=True)
class Choice:
    """Which held messages are meant.

    Args:
        member: Those of this member, by its id or the name it had.
        lacks: Only those that lack this capability.
        id: Only those with this id.
        mesh: Only those of this mesh.
    """

    member: str | None = None
    lacks: str | None = None
    id: str | None = None
    mesh: str | None = None

    def selects(self) -> tuple[str, tuple[str | None, ...]]:
        """Give it as a condition with its values."""
        condition = (
            f"{_HELD} AND (? IS NULL OR member = ? OR member_name = ?) AND (? IS NULL OR held = ?)"
            f" AND (? IS NULL OR id = ?) AND (? IS NULL OR {_MESH} = ?)"
        )
        return condition, (
            self.member,
            *(self.member,) * 2,
            *_twice(self.lacks, self.id, self.mesh),
        )


def _twice(*values: str | None) -> Iterator[str | None]:
    for value in values:
        yield from (value, value)


def count(sql: sqlite3.Connection, member: str | None = None) -> int:
    """Count what is held in one peer's file: of one member, or all of it."""
    (found,) = sql.execute(
        f"SELECT count(*) FROM inbox WHERE {_HELD} AND (? IS NULL OR member = ?)",  # noqa: S608 - a constant
        (member, member),
    ).fetchone()
    return int(found)


def mesh_of(sql: sqlite3.Connection) -> str:
    """Give the mesh whose peer's file it is."""
    (found,) = sql.execute(f"SELECT {_MESH}").fetchone()
    return found or ""


def count_wakes(sql: sqlite3.Connection, member: str, since_ms: int) -> int:
    """Count the messages of a member that were to wake this peer since a moment."""
    (found,) = sql.execute(
        "SELECT count(*) FROM inbox WHERE received_ms > ? AND member = ? AND wakes = 1",
        (since_ms, member),
    ).fetchone()
    return int(found)


def find(home: Home, mesh: str | None = None) -> Found:
    """Give what is held in a home, for one mesh or all of them; call it in a worker thread."""
    found, skipped = list[Held](), list[str]()
    for path in _files(home, skipped):
        try:
            found += _held_in(path, Choice(mesh=mesh))
        except sqlite3.Error as error:
            skipped.append(_skipped(path, f"can't be read: {error}"))
    return Found(sorted(found, key=lambda one: one.received_ms), skipped)


def _skipped(path: Path, why: str) -> str:
    logger.warning("%s %s", path, why)
    return f"{path} {why}."


def _files(home: Home, skipped: list[str]) -> Iterator[Path]:
    """Give the files of the peers that this version can work on; note which others there are."""
    for path in sorted(home.sessions.glob("p_*/peer.db")):
        try:
            with closing(connect_to_read(path)) as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            skipped.append(_skipped(path, f"can't be read: {error}"))
            continue
        if version > SCHEMA_VERSION:
            skipped.append(_skipped(path, "was written by a newer claudemesh"))
        # An older one holds nothing.
        elif version >= FIRST_VERSION:
            yield path


def _held_in(path: Path, choice: Choice) -> list[Held]:
    with closing(connect_to_read(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [_shown(row, path.parent.name) for row in _chosen(connection, choice)]


def _chosen(sql: sqlite3.Connection, choice: Choice) -> list[sqlite3.Row]:
    condition, values = choice.selects()
    return sql.execute(
        f"SELECT *, {_MESH} AS mesh FROM inbox WHERE {condition} ORDER BY row",  # noqa: S608 - constants
        values,
    ).fetchall()


def _shown(row: sqlite3.Row, peer: str) -> Held:
    return Held(
        mesh=row["mesh"] or "",
        peer=peer,
        id=row["id"],
        sender=row["sender"],
        handle=row["handle"],
        member=row["member"],
        member_name=row["member_name"],
        text=row["text"].strip().partition("\n")[0][:_LINE],
        lacks=row["held"],
        received_ms=row["received_ms"],
    )


async def release(home: Home, choice: Choice, now_ms: int) -> Found:
    """Let held messages be read, each once, however often this is asked; gives which those were.

    The peers' own sessions sign and report that they are delivered.
    """
    route = RELEASED if choice.id else None

    def change(sql: sqlite3.Connection) -> list[sqlite3.Row]:
        rows = _chosen(sql, choice)
        for row in rows:
            sql.execute(
                "UPDATE inbox SET held = NULL, route = ? WHERE row = ?", (route, row["row"])
            )
            reports.note_again(sql, row, (ReceiptStatus.DELIVERED, "", now_ms))
        return rows

    return await _in_all(home, change)


async def discard(home: Home, choice: Choice, now_ms: int) -> Found:
    """Decline held messages for good, and clear their texts; gives which those were."""

    def change(sql: sqlite3.Connection) -> list[sqlite3.Row]:
        rows = _chosen(sql, choice)
        decline(sql, rows, "discarded", now_ms)
        return rows

    return await _in_all(home, change)


async def _in_all(home: Home, change: Callable[[sqlite3.Connection], list[sqlite3.Row]]) -> Found:
    """Make a change in the file of each peer; one that can't be opened keeps back no other."""
    done, skipped = list[Held](), list[str]()
    for path in await anyio.to_thread.run_sync(lambda: list(_files(home, skipped))):
        try:
            file = await PeerFile.open(path)
            try:
                rows = await file.write(change)
            finally:
                await file.close()
        except MeshError as error:
            skipped.append(_skipped(path, f"can't be used: {error.reason.rstrip('.')}"))
            continue
        done += [_shown(row, path.parent.name) for row in rows]
    return Found(done, skipped)


def only_member(messages: Sequence[Held]) -> str:
    """Give the one member that some held messages are of.

    Raises:
        Conflict: ``ambiguous``: they are of several.
    """
    members = {one.member for one in messages}
    if len(members) > 1:
        raise Conflict(
            "Messages of several members are held under this name or id.",
            f"Name one of the members by its id: {', '.join(sorted(members))}",
            code="ambiguous",
        )
    return members.pop()


def refuse_if_skipped(found: Found) -> None:
    """Refuse to say that something is not held when not all could be looked into.

    Raises:
        Unavailable: ``not_looked_into``.
    """
    if found.skipped:
        raise Unavailable(
            f"Not all could be looked into: {found.skipped[0]}",
            "claudemesh doctor says what is the matter.",
            code="not_looked_into",
        )


def not_held(what: str, mesh: str | None = None) -> NotFound:
    """Say that something is not held here, and where it is if that is known."""
    return NotFound(
        f"No {what} is held here.",
        f"It is held in another mesh: put --mesh {mesh} behind claudemesh."
        if mesh
        else "claudemesh inbox --held lists those that are.",
        code="not_held",
    )


def hold_back(
    sql: sqlite3.Connection, rows: Iterable[sqlite3.Row], lacks: str, now_ms: int
) -> None:
    """Hold rows that had waited to be shown, or are being shown: evidence of that may yet come."""
    for row in rows:
        sql.execute(
            "UPDATE inbox SET held = ?, route = NULL, wakes = 0 WHERE row = ?",
            (lacks, row["row"]),
        )
        reports.note_again(sql, row, (ReceiptStatus.HELD, lacks, now_ms))


def decline(sql: sqlite3.Connection, rows: Iterable[sqlite3.Row], reason: str, now_ms: int) -> None:
    """Decline rows that nobody was shown: their texts go, what proves that they came stays."""
    rows = list(rows)
    for row in rows:
        sql.execute(
            "UPDATE inbox SET state = 'seen', route = ?, held = ?, seen_ms = ?, text = '',"
            " holder = NULL, wakes = 0 WHERE row = ?",
            (DECLINED, reason, now_ms, row["row"]),
        )
        reports.note_again(sql, row, (ReceiptStatus.DECLINED, reason, now_ms))
    forget(sql, RECEIVED, rows)
