"""The SQLite file of one peer: inbox, outbox, receipts to report, names seen.

``inbox.py`` and ``outbox.py`` own its tables and hand changes in; hooks read it with the standard
library alone, so opened messages stand in clear in it (mode 0600). One thread does all the work:
what has gathered is committed together, and a change is acknowledged only after that commit.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.to_thread

from claudemesh_mcp.home import FILE_MODE
from claudemesh_wire.errors import Invalid, MeshError, Unavailable

R = TypeVar("R")
Change = Callable[[sqlite3.Connection], R]

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 10.0
_BATCH: Final = 256

_SCHEMA: Final = """
CREATE TABLE inbox (
    row INTEGER PRIMARY KEY,
    sender TEXT NOT NULL, id TEXT NOT NULL, header_hash BLOB NOT NULL, certificate BLOB NOT NULL,
    conv TEXT NOT NULL, seq INTEGER NOT NULL, handle TEXT NOT NULL, member TEXT NOT NULL,
    member_name TEXT NOT NULL, text TEXT NOT NULL, stripped INTEGER NOT NULL,
    priority TEXT NOT NULL, thread TEXT, re TEXT, via TEXT, e2e INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL, received_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'handed', 'seen')),
    holder TEXT, lease_until_ms INTEGER NOT NULL DEFAULT 0, offers INTEGER NOT NULL DEFAULT 0,
    route TEXT, seen_ms INTEGER,
    UNIQUE (sender, id)
) STRICT;
CREATE INDEX inbox_open ON inbox (row) WHERE state <> 'seen';
CREATE INDEX inbox_received ON inbox (received_ms);
CREATE TABLE inbox_seq (
    sender TEXT NOT NULL, conv TEXT NOT NULL, highest INTEGER NOT NULL,
    PRIMARY KEY (sender, conv)
) STRICT, WITHOUT ROWID;
CREATE TABLE reports (
    row INTEGER PRIMARY KEY,
    sender TEXT NOT NULL, id TEXT NOT NULL, header_hash BLOB NOT NULL, status TEXT NOT NULL,
    route TEXT NOT NULL, reason TEXT NOT NULL, at_ms INTEGER NOT NULL,
    UNIQUE (sender, id, status)
) STRICT;
CREATE TABLE outbox (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE, conv TEXT NOT NULL, seq INTEGER NOT NULL,
    request_hash BLOB NOT NULL, addresses TEXT NOT NULL, plaintext BLOB, sealed BLOB,
    header_hash BLOB NOT NULL, audience TEXT NOT NULL, resolved_ms INTEGER NOT NULL,
    re TEXT, ttl_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL, sealings INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'accepted', 'refused')),
    answer TEXT
) STRICT;
CREATE INDEX outbox_waiting ON outbox (conv, seq) WHERE state = 'waiting';
CREATE TABLE outbox_seq (conv TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE names (
    name TEXT PRIMARY KEY, member TEXT NOT NULL, first_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""


class PeerFile:
    """An open peer file and the thread that works on it.

    Args:
        path: The file; made with its tables when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._jobs: queue.SimpleQueue[tuple[Change[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="peerfile", daemon=True)
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the file.

        Raises:
            Invalid: ``database_damaged`` or ``database_newer``; the file is left as it is.
            Unavailable: ``storage_full`` or ``storage_failed``.
        """
        opened = cls(path)
        opened._thread.start()
        await _wait(opened._ready)
        return opened

    async def write(self, change: Change[R]) -> R:
        """Make a change; it is on disk when this returns.

        An exception in the change undoes that change alone; cancelling the caller does not.

        Raises:
            Unavailable: the disk is full, or the file was closed.
        """
        if self._closed:
            raise Unavailable("The peer file is closed.", code="closed")
        future: Future[R] = Future()
        self._jobs.put((change, future))
        return await _wait(future)

    def post(self, change: Change[Any]) -> None:
        """Hand a change in without waiting for it; it comes after those handed in before."""
        if not self._closed:
            self._jobs.put((change, Future()))

    async def close(self) -> None:
        """Finish what was handed in and close the file."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._thread.join)

    def _run(self) -> None:
        try:
            connection = _connect(self.path)
        except MeshError as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        while batch := self._gather():
            _commit(connection, batch)
        connection.close()

    def _gather(self) -> list[tuple[Change[Any], Future[Any]]]:
        """Wait for a job, then take what else is there; an empty list is the end."""
        first = self._jobs.get()
        batch: list[tuple[Change[Any], Future[Any]]] = []
        while first is not None:
            batch.append(first)
            if len(batch) >= _BATCH:
                break
            try:
                first = self._jobs.get_nowait()
            except queue.Empty:
                break
            if first is None:
                self._jobs.put(None)
        return batch


def _commit(
    connection: sqlite3.Connection, batch: Iterable[tuple[Change[Any], Future[Any]]]
) -> None:
    """Run a batch in one transaction and resolve its futures after the commit."""
    done: list[tuple[Future[Any], Any]] = []
    failed: list[tuple[Future[Any], BaseException]] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for change, future in batch:
            if not future.set_running_or_notify_cancel():
                continue
            connection.execute("SAVEPOINT change")
            try:
                done.append((future, change(connection)))
            except Exception as error:  # noqa: BLE001 - it belongs to the one who handed it in
                connection.execute("ROLLBACK TO change")
                failed.append((future, _translated(error)))
            connection.execute("RELEASE change")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        refusal = _storage_error(error)
        failed = [(future, refusal) for _, future in batch if not future.cancelled()]
        done = []
    for future, result in done:
        future.set_result(result)
    for future, error in failed:
        future.set_exception(error)


def _translated(error: Exception) -> Exception:
    return _storage_error(error) if isinstance(error, sqlite3.OperationalError) else error


def _storage_error(error: sqlite3.Error) -> MeshError:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return Unavailable(
            "There is no space left for this session's messages.",
            "Free some space on that disk; nothing was lost.",
            code="storage_full",
        )
    return Unavailable(f"The session's file can't be written: {error}.", code="storage_failed")


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.touch(FILE_MODE, exist_ok=True)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, cached_statements=256
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.row_factory = sqlite3.Row
        _migrate(connection, path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise _storage_error(error) from error
        raise Invalid(
            f"{path} is damaged.",
            "Move it away to start this session with an empty inbox; messages not yet"
            " received wait at the broker.",
            code="database_damaged",
        ) from error
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}.", code="storage_failed") from error
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise Invalid(
            f"{path} was written by a newer claudemesh (data version {version}).",
            "Upgrade claudemesh; the file was not touched.",
            code="database_newer",
        )
    if version == 0:
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


async def _wait(future: Future[R]) -> R:
    """Wait for a result of the file's thread."""
    import asyncio

    return await asyncio.wrap_future(future)
