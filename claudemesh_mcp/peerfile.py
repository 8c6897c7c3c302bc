"""The SQLite file of one peer: inbox, outbox, receipts to report, names seen.

``inbox.py`` and ``outbox.py`` own its tables and hand changes in; hooks read it with the standard
library alone, so opened messages stand in clear in it (mode 0600). One thread does all the work:
what has gathered is committed together, and a change is acknowledged only after that commit.
"""

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.to_thread

from claudemesh_mcp.home import create_once, file_lock
from claudemesh_wire.errors import Invalid, MeshError, Unavailable

logger: Final = logging.getLogger(__name__)

R = TypeVar("R")
Change = Callable[[sqlite3.Connection], R]


@dataclass(frozen=True, slots=True)
class _Job:
    """A change that was handed in, and who waits for it."""

    change: Change[Any]
    future: Future[Any]
    lazily: bool


SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 10.0
_BATCH: Final = 256
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
# A quota or a limit on file sizes reaches SQLite as a failed write, not as a full disk.
_FULL: Final = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})
_BROKEN: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_BUSY: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")
_FAILING: Final = (
    "SQLITE_CANTOPEN",
    "SQLITE_IOERR",
    "SQLITE_NOMEM",
    "SQLITE_PERM",
    "SQLITE_PROTOCOL",
    "SQLITE_READONLY",
)
_DAMAGED_HINT: Final = (
    "Move it away to start this session with an empty inbox; messages not yet received wait at"
    " the broker."
)

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
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ready: Future[None] = _kept_future()
        self._thread = threading.Thread(target=self._run, name="peerfile", daemon=True)
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open the file.

        Raises:
            Invalid: ``database_damaged`` or ``database_newer``; the file is left as it is.
            Unavailable: ``storage_full``, ``storage_failed`` or ``locked``.
        """
        opened = cls(path)
        opened._thread.start()
        try:
            await _wait(opened._ready)
        except BaseException:
            opened._jobs.put(None)
            raise
        return opened

    async def write(self, change: Change[R], *, lazily: bool = False) -> R:
        """Make a change; it is on disk when this returns.

        An exception in the change undoes that change alone. The change is made even if the caller
        is cancelled meanwhile.

        Args:
            change: Works on the open connection.
            lazily: It survives the death of this process but may be lost with the machine's power:
                only for what the next start does again by itself.

        Raises:
            Unavailable: ``storage_full``, ``storage_failed``, ``locked``, or ``closed``.
            Invalid: ``database_damaged``.
        """
        if self._closed:
            raise Unavailable("The peer file is closed.", code="closed")
        future: Future[R] = _kept_future()
        self._jobs.put(_Job(change, future, lazily))
        return await _wait(future)

    def post(self, change: Change[Any]) -> None:
        """Make a change lazily without waiting for it; it comes after those handed in before."""
        if not self._closed:
            future: Future[Any] = _kept_future()
            future.add_done_callback(_log_failure)
            self._jobs.put(_Job(change, future, lazily=True))

    async def close(self) -> None:
        """Finish what was handed in and close the file."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join)

    def _run(self) -> None:
        try:
            # One opens at a time: SQLite does not wait for its turn to change the journal mode.
            with file_lock(self.path.with_name(f"{self.path.name}.lock")):
                connection = _connect(self.path)
        except Exception as error:  # noqa: BLE001 - it belongs to the one who opens
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        with closing(connection):
            while batch := self._gather():
                _commit(connection, batch)

    def _gather(self) -> list[_Job]:
        """Wait for a job, then take what else is there; an empty list is the end."""
        first = self._jobs.get()
        batch: list[_Job] = []
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


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a change gave, or the error that undid it."""

    result: Any = None
    error: Exception | None = None


def _commit(connection: sqlite3.Connection, batch: Sequence[_Job]) -> None:
    """Run a batch in one transaction and resolve its futures after the commit."""
    try:
        # Without a sync the commit is in the system's hands: a killed process loses nothing.
        durably = not all(job.lazily for job in batch)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durably else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [_apply(connection, job.change) for job in batch]
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to live on
        # A new error each: a shared one would gather the tracebacks of all who raise it.
        outcomes = [_Outcome(error=_batch_refusal(error)) for _ in batch]
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
    for job, outcome in zip(batch, outcomes, strict=True):
        if outcome.error is None:
            job.future.set_result(outcome.result)
        else:
            job.future.set_exception(outcome.error)


def _apply(connection: sqlite3.Connection, change: Change[Any]) -> _Outcome:
    connection.execute("SAVEPOINT change")
    try:
        outcome = _Outcome(change(connection))
    except Exception as error:
        if not connection.in_transaction:
            # A full disk can make SQLite give up the whole transaction, not the change alone.
            raise
        connection.execute("ROLLBACK TO change")
        outcome = _Outcome(error=_refusal(error))
    connection.execute("RELEASE change")
    return outcome


def _refusal(error: Exception) -> Exception:
    """Say in our words what the file did not do; an error of the change itself stays as it is."""
    if isinstance(error, StopIteration):
        # A future refuses to carry this one.
        wrapped = RuntimeError("a change ran out of its iterator")
        wrapped.__cause__ = error
        return wrapped
    return _storage_error(error) or error


def _batch_refusal(error: Exception) -> MeshError:
    return _storage_error(error) or Unavailable(
        "The session's file could not be written.",
        "Nothing was lost; look into the log.",
        code="storage_failed",
    )


def _storage_error(error: Exception) -> MeshError | None:
    # Errors that the driver raises by itself carry no name.
    name: str = getattr(error, "sqlite_errorname", "")
    if name in _FULL:
        return Unavailable(
            "There is no space left for this session's messages.",
            "Free some space on that disk; nothing was lost.",
            code="storage_full",
        )
    if name.startswith(_BUSY):
        return Unavailable(
            f"Another process has held this session's file for {BUSY_TIMEOUT_S:g} s.",
            "Try again; nothing was lost.",
            code="locked",
        )
    if name.startswith(_BROKEN):
        return Invalid("This session's file is damaged.", _DAMAGED_HINT, code="database_damaged")
    if name.startswith(_FAILING):
        return Unavailable(
            f"This session's file can't be read or written ({name}).",
            "Check the disk and the permissions of its folder.",
            code="storage_failed",
        )
    return None


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        # Private from its first moment; SQLite gives its log and index the same mode.
        create_once(path, b"")
    _check(path)
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, cached_statements=256
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
        raise _batch_refusal(error) from error
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
        with closing(_connect_to_read(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        refusal = _batch_refusal(error)
        raise (_damaged(path) if isinstance(refusal, Invalid) else refusal) from error
    if version > SCHEMA_VERSION:
        raise Invalid(
            f"{path} was written by a newer claudemesh (data version {version}).",
            "Upgrade claudemesh; the file was not touched.",
            code="database_newer",
        )
    if tables and not version:
        raise _damaged(path)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)


def _damaged(path: Path) -> Invalid:
    return Invalid(
        f"{path} is damaged, or no file of claudemesh.", _DAMAGED_HINT, code="database_damaged"
    )


def _migrate(connection: sqlite3.Connection) -> None:
    """Make the tables, unless another process has just done so."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _kept_future() -> Future[Any]:
    """Give a future whose work is done even if nobody waits for it any more."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _log_failure(future: Future[Any]) -> None:
    error = future.exception()
    if error is not None:
        logger.warning("a change that nobody waits for was not made", exc_info=error)


async def _wait(future: Future[R]) -> R:
    """Wait for a result of the file's thread."""
    import asyncio

    return await asyncio.wrap_future(future)
