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
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.to_thread

from claudemesh_mcp.home import create_once, file_lock
from claudemesh_mcp.peerfaults import BUSY_TIMEOUT_S, DAMAGED_HINT, batch_refusal, refusal
from claudemesh_wire.errors import Invalid, Unavailable

logger: Final = logging.getLogger(__name__)

R = TypeVar("R")
Change = Callable[[sqlite3.Connection], R]


class _Needs(IntEnum):
    """How much a job asks of the disk."""

    NOTHING = 0
    A_COMMIT = 1
    A_SYNC = 2


@dataclass(frozen=True, slots=True)
class _Job:
    """A change that was handed in, and who waits for it."""

    change: Change[Any]
    future: Future[Any]
    needs: _Needs


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
# Each brings the tables from the version before to the one of its place.
_STEPS: Final = ("peerfile.sql", "peerfile_2.sql")
SCHEMA_VERSION: Final = len(_STEPS)


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
        self._jobs.put(_Job(change, future, _Needs.A_COMMIT if lazily else _Needs.A_SYNC))
        return await _wait(future)

    async def read(self, query: Change[R]) -> R:
        """Ask the file something; it sees every change that was handed in before.

        Raises:
            Unavailable: as ``write``.
            Invalid: ``database_damaged``.
        """
        if self._closed:
            raise Unavailable("The peer file is closed.", code="closed")
        future: Future[R] = _kept_future()
        self._jobs.put(_Job(query, future, _Needs.NOTHING))
        return await _wait(future)

    def post(self, change: Change[Any]) -> None:
        """Make a change lazily without waiting for it; it comes after those handed in before."""
        if not self._closed:
            future: Future[Any] = _kept_future()
            future.add_done_callback(_log_failure)
            self._jobs.put(_Job(change, future, _Needs.A_COMMIT))

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
            worker = _Worker(connection)
            while batch := self._gather():
                worker.run(batch)

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


class _Worker:
    """Runs batches on the open connection, each of them in at most one transaction.

    Statements are few on purpose: around each the driver gives up the interpreter and takes it
    back, which in a busy process costs more than the statement.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._syncs = True

    def run(self, batch: Sequence[_Job]) -> None:
        """Do all of it and resolve the futures after the commit."""
        try:
            outcomes = self._outcomes(batch, max(job.needs for job in batch))
        except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to live on
            # A new error each: a shared one would gather the tracebacks of all who raise it.
            outcomes = [_Outcome(error=batch_refusal(error)) for _ in batch]
            self._give_up()
        for job, outcome in zip(batch, outcomes, strict=True):
            if outcome.error is None:
                job.future.set_result(outcome.result)
            else:
                job.future.set_exception(outcome.error)

    def _outcomes(self, batch: Sequence[_Job], needs: _Needs) -> list[_Outcome]:
        connection = self._connection
        if needs is _Needs.NOTHING:
            return [self._alone(job.change) for job in batch]
        if self._syncs != (needs is _Needs.A_SYNC):
            # Without a sync the commit is in the system's hands: a killed process loses nothing.
            self._syncs = needs is _Needs.A_SYNC
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._syncs else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        if len(batch) == 1:
            outcome = self._alone(batch[0].change)
            connection.execute("COMMIT" if outcome.error is None else "ROLLBACK")
            return [outcome]
        outcomes = [_apply(connection, job.change) for job in batch]
        connection.execute("COMMIT")
        return outcomes

    def _alone(self, change: Change[Any]) -> _Outcome:
        inside = self._connection.in_transaction
        try:
            return _Outcome(change(self._connection))
        except Exception as error:
            if inside and not self._connection.in_transaction:
                # A full disk can make SQLite give up the transaction by itself.
                raise
            return _Outcome(error=refusal(error))

    def _give_up(self) -> None:
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")


def _apply(connection: sqlite3.Connection, change: Change[Any]) -> _Outcome:
    """Run one change of several, so that an error undoes it alone."""
    connection.execute("SAVEPOINT change")
    try:
        outcome = _Outcome(change(connection))
    except Exception as error:
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO change")
        outcome = _Outcome(error=refusal(error))
    connection.execute("RELEASE change")
    return outcome


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
