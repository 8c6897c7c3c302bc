"""The SQLite file of one peer: inbox, outbox, receipts to report, names seen.

``inbox.py``, ``openrows.py`` and ``outbox.py`` own its tables and hand changes in; hooks read it
with the standard library alone, so opened messages stand in clear in it (mode 0600). A thread of
``peerthread.py`` does the work: what has gathered is committed together, and a change is
acknowledged only after that commit.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.to_thread

from claudemesh_mcp.home import create_once, file_lock
from claudemesh_mcp.peerfaults import BUSY_TIMEOUT_S, DAMAGED_HINT, batch_refusal
from claudemesh_mcp.peerthread import Job, Needs, PeerThread, Worker
from claudemesh_wire.errors import Invalid, Unavailable

R = TypeVar("R")
Change = Callable[[sqlite3.Connection], R]


_MAGIC: Final = b"SQLite format 3\0"
_SETUP: Final = (
    "PRAGMA journal_mode = WAL",
    # What is acknowledged must survive a power cut too.
    "PRAGMA synchronous = FULL",
    # A burst may grow the log; afterwards the disk space comes back.
    "PRAGMA journal_size_limit = 16777216",
    # A text that is cleared leaves no copy in a page that is written anyway.
    "PRAGMA secure_delete = FAST",
)
# Each brings the tables from the version before to the one of its place.
_STEPS: Final = ("peerfile.sql", "peerfile_2.sql", "peerfile_3.sql", "peerfile_4.sql")
SCHEMA_VERSION: Final = len(_STEPS)


class PeerFile:
    """An open peer file.

    Args:
        path: The file.
        connection: Open on it, with its tables.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._worker = Worker(connection, self._loop)
        self._thread = PeerThread.for_one_more()
        self._ended: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the file; it is made with its tables when it is missing.

        Raises:
            Invalid: ``database_damaged`` or ``database_newer``; the file is left as it is.
            Unavailable: ``storage_full``, ``storage_failed`` or ``locked``.
        """
        return cls(path, await anyio.to_thread.run_sync(_open, path))

    async def belong_to(self, mesh: str) -> None:
        """Note whose file it is, for those who look into the files of all peers of a home."""
        known = "INSERT OR IGNORE INTO facts (key, value) VALUES ('mesh', ?)"
        await self.write(lambda sql: sql.execute(known, (mesh,)), lazily=True)

    async def write(self, change: Change[R], *, lazily: bool = False) -> R:
        """Make a change; it is on disk when this returns.

        An exception in the change undoes that change alone. The change is made even if the caller
        is cancelled meanwhile.

        Args:
            change: Works on the open connection. It may be undone and run again, up to three times
                in all: because another that is committed with it raised an error, and because the
                disk had no room for all of them together. So it touches nothing else, or bears it.
            lazily: It survives the death of this process but may be lost with the machine's power:
                only for what the next start does again by itself.

        Raises:
            Unavailable: ``storage_full``, ``storage_failed``, ``locked``, or ``closed``.
            Invalid: ``database_damaged``.
        """
        return await self._hand_in(change, Needs.A_COMMIT if lazily else Needs.A_SYNC)

    async def read(self, query: Change[R]) -> R:
        """Ask the file something; it sees every change that was handed in before.

        Raises:
            Unavailable: as ``write``.
            Invalid: ``database_damaged``.
        """
        return await self._hand_in(query, Needs.NOTHING)

    async def changes_elsewhere(self) -> int:
        """Give a number that another process's change of the file makes another one."""
        return await self.read(changes_elsewhere)

    def post(self, change: Change[Any], failed: Callable[[], None] | None = None) -> None:
        """Make a change lazily without waiting for it; it comes after those handed in before.

        Args:
            change: As for ``write``.
            failed: Called on the loop if the change could not be made, which is logged.
        """
        if self._ended is None:
            job = Job(self._worker, change, Needs.A_COMMIT, None)
            job.failed = failed
            self._thread.put(job)

    async def close(self) -> None:
        """Finish what was handed in and close the file."""
        if self._ended is None:
            self._ended = self._loop.create_future()
            self._thread.put(Job(self._worker, None, Needs.NOTHING, self._ended))
            self._thread.leave()
        with anyio.CancelScope(shield=True):
            await asyncio.shield(self._ended)

    def _hand_in(self, change: Change[R], needs: Needs) -> asyncio.Future[R]:
        if self._ended is not None:
            raise Unavailable("The peer file is closed.", "Open its session again.", code="closed")
        future: asyncio.Future[R] = self._loop.create_future()
        self._thread.put(Job(self._worker, change, needs, future))
        return future


def changes_elsewhere(sql: sqlite3.Connection) -> int:
    """Give a number that another connection's change of the file makes another one."""
    (version,) = sql.execute("PRAGMA data_version").fetchone()
    return int(version)


def _open(path: Path) -> sqlite3.Connection:
    # One opens at a time: SQLite does not wait for its turn to change the journal mode.
    with file_lock(path.with_name(f"{path.name}.lock")):
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        # Private from its first moment; SQLite gives its log and index the same mode.
        create_once(path, b"")
    _check(path)
    try:
        connection = sqlite3.connect(
            path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            cached_statements=256,
            # Opened in one thread, then used by the one that works on it alone.
            check_same_thread=False,
        )
        try:
            for statement in _SETUP:
                connection.execute(statement)
            connection.row_factory = sqlite3.Row
            _migrate(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise batch_refusal(error) from error
    return connection


def _check(path: Path) -> None:
    """Refuse a file that is damaged, foreign or newer before a byte of it is changed."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise Unavailable(
            f"{path}: {error.strerror}.",
            "Check the disk and the permissions of its folder.",
            code="storage_failed",
        ) from error
    if not start:
        return  # It was made just now, or its maker was killed before the first page.
    if start != _MAGIC:
        raise _damaged(path)
    try:
        with closing(connect_to_read(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        refusal = batch_refusal(error)
        raise (_damaged(path) if isinstance(refusal, Invalid) else refusal) from error
    if version > SCHEMA_VERSION:
        raise Invalid(
            f"{path} was written by a newer claudemesh (data version {version}).",
            "Upgrade claudemesh; the file was not touched.",
            code="database_newer",
        )
    if tables and not version:
        raise _damaged(path)


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a file that another process may have open, to look into it; nothing is made or changed.

    Raises:
        sqlite3.Error: it can't be read.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)


def _damaged(path: Path) -> Invalid:
    return Invalid(
        f"{path} is damaged, or no file of claudemesh.", DAMAGED_HINT, code="database_damaged"
    )


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables to this version, unless another process has just done so."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for step in _STEPS[version:]:
        for statement in Path(__file__).with_name(step).read_text("utf-8").split(";\n"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
