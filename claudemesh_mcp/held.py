"""What is held: counted, found in all peers of a home, and released by the home's human.

``inbox.py`` files a message as held when ``policy.py`` says so; no model is handed one. ``cli/``
and ``granting.py`` look into the files of peers that other processes have open, by short
transactions.
A held message stays until it is released, whatever its sender set as its end.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread

from claudemesh_mcp import reports
from claudemesh_mcp.home import Home
from claudemesh_mcp.peerfile import SCHEMA_VERSION, PeerFile, connect_to_read

logger: Final = logging.getLogger(__name__)
_LINE: Final = 200
_FIRST_VERSION: Final = 2
# What an heir has taken over is seen in the file of the one that ended.
_HELD: Final = "held IS NOT NULL AND state <> 'seen'"
_OF_MESH: Final = "(SELECT value FROM facts WHERE key = 'mesh') = ?"


@dataclass(frozen=True)
class Held:
    """A message that waits for its reader's human.

    Args:
        peer: The peer of this home that it was sent to.
        text: The beginning of its first line.
        lacks: The capability its sender lacks.
    """

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
class Choice:
    """Which held messages are meant: those of one member that lack something, or one by its id."""

    member: str
    lacks: str
    id: str | None = None


def count(sql: sqlite3.Connection, member: str | None = None) -> int:
    """Count what is held in one peer's file: of one member, or all of it."""
    (found,) = sql.execute(
        f"SELECT count(*) FROM inbox WHERE {_HELD} AND (? IS NULL OR member = ?)",  # noqa: S608 - a constant
        (member, member),
    ).fetchone()
    return int(found)


def count_wakes(sql: sqlite3.Connection, member: str, since_ms: int) -> int:
    """Count the messages of a member that were to wake this peer since a moment."""
    (found,) = sql.execute(
        "SELECT count(*) FROM inbox WHERE received_ms > ? AND member = ? AND wakes = 1",
        (since_ms, member),
    ).fetchone()
    return int(found)


def find(home: Home, mesh: str) -> list[Held]:
    """Give all that is held in a home for a mesh, the oldest first; call it in a worker thread.

    A file that can't be read is left out and logged: its own session says what is the matter.
    """
    found: list[Held] = []
    for path in _files(home):
        try:
            found += _held_in(path, mesh)
        except sqlite3.Error as error:
            logger.warning("what is held in %s can't be read: %s", path, error)
    return sorted(found, key=lambda one: one.received_ms)


def _files(home: Home) -> Iterator[Path]:
    """Give the files of the peers that this version can work on."""
    for path in sorted(home.sessions.glob("p_*/peer.db")):
        try:
            with closing(connect_to_read(path)) as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            logger.warning("%s can't be read: %s", path, error)
            continue
        # An older one holds nothing; a newer one is another version's business.
        if _FIRST_VERSION <= version <= SCHEMA_VERSION:
            yield path


def _held_in(path: Path, mesh: str) -> list[Held]:
    with closing(connect_to_read(path)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(
            f"SELECT * FROM inbox WHERE {_HELD} AND {_OF_MESH}",  # noqa: S608 - constants
            (mesh,),
        ).fetchall()
    return [_shown(row, path.parent.name) for row in rows]


def _shown(row: sqlite3.Row, peer: str) -> Held:
    return Held(
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


async def release(home: Home, mesh: str, choice: Choice, now_ms: int) -> list[Held]:
    """Let held messages be read, each once, however often this is asked; gives which those were.

    The peers' own sessions sign and report that they are delivered.
    """
    released: list[Held] = []
    for path in await anyio.to_thread.run_sync(lambda: list(_files(home))):
        file = await PeerFile.open(path)
        try:
            rows = await file.write(lambda sql: _release(sql, mesh, choice, now_ms))
        finally:
            await file.close()
        released += [_shown(row, path.parent.name) for row in rows]
    return released


def _release(sql: sqlite3.Connection, mesh: str, choice: Choice, now_ms: int) -> list[sqlite3.Row]:
    rows = sql.execute(
        "SELECT * FROM inbox WHERE held = ? AND member = ? AND (? IS NULL OR id = ?)"  # noqa: S608 - a constant
        f" AND {_HELD} AND {_OF_MESH} ORDER BY row",
        (choice.lacks, choice.member, choice.id, choice.id, mesh),
    ).fetchall()
    for row in rows:
        sql.execute("UPDATE inbox SET held = NULL WHERE row = ?", (row["row"],))
        reports.note_delivered(sql, row, now_ms)
    return rows
