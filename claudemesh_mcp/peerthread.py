"""The threads that work on peer files, and how a batch of changes to one file is run.

``peerfile.py`` hands jobs in on the event loop. A thread takes what has gathered, runs the jobs of
each file in one transaction, and only after that commit tells the loop, once for all of them. One
session has one file and one thread; a program that is many peers has few threads for all, since
threads that wait for the interpreter take more time than the statements they wait to run.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any, ClassVar, Final, Self

from claudemesh_mcp.peerfaults import batch_refusal, refusal

logger: Final = logging.getLogger(__name__)

MOST_THREADS: Final = 2
_BATCH: Final = 256


class Needs(IntEnum):
    """How much a job asks of the disk."""

    NOTHING = 0
    A_COMMIT = 1
    A_SYNC = 2


class Job:
    """A change that was handed in, what came of it, and who waits for it.

    Args:
        worker: Of the file that is meant.
        change: Works on the open connection; ``None`` to close it.
        needs: What it asks of the disk.
        future: Of whoever waits.
    """

    __slots__ = ("change", "error", "failed", "future", "needs", "result", "worker")

    def __init__(
        self,
        worker: "Worker",
        change: Callable[[sqlite3.Connection], Any] | None,
        needs: Needs,
        future: asyncio.Future[Any] | None,
    ) -> None:
        self.worker = worker
        self.change = change
        self.needs = needs
        self.future = future
        self.failed: Callable[[], None] | None = None
        """Called if it fails and nobody waits for it."""
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> BaseException | None:
        """Make the change and keep what came of it; gives the error that undoes it.

        It may be run again, once all that it did was undone because of another's error.
        """
        try:
            self.result = self.change(connection) if self.change else None
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever handed the change in
            # Also one that would end the thread, for which all others of its files would then wait.
            self.error = refusal(error)
            return error
        self.error = None
        return None

    def settle(self) -> None:
        """Tell whoever waits, if anybody still does."""
        if self.future is None:
            if self.error is not None:
                logger.warning("a change that nobody waits for was not made", exc_info=self.error)
                if self.failed is not None:
                    # Behind this batch: whatever it does keeps nobody else of it waiting.
                    asyncio.get_running_loop().call_soon(self.failed)
        elif not self.future.done():
            if self.error is None:
                self.future.set_result(self.result)
            else:
                self.future.set_exception(self.error)


class PeerThread:
    """A thread that does the jobs of some files, batch by batch. Use ``for_one_more``."""

    _all: ClassVar[list[Self]] = []
    _choosing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self.files = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        # A daemon: were a file never closed, the process could still end.
        threading.Thread(target=self._live, name="peerfile", daemon=True).start()

    @classmethod
    def for_one_more(cls) -> "PeerThread":
        """Give the thread that a further file belongs to; ``leave`` it in the end."""
        with cls._choosing:
            if len(cls._all) < MOST_THREADS:
                cls._all.append(cls())
            chosen = min(cls._all, key=lambda one: one.files)
            chosen.files += 1
            return chosen

    def leave(self) -> None:
        """Say that one file is closed; with the last one the thread ends."""
        with self._choosing:
            self.files -= 1
            if self.files == 0:
                self._all.remove(self)
                self._jobs.put(None)

    def put(self, job: Job) -> None:
        """Hand in a job."""
        self._jobs.put(job)

    def _live(self) -> None:
        while batches := self._gather():
            for worker, batch in batches.items():
                worker.run(batch)

    def _gather(self) -> "dict[Worker, list[Job]]":
        """Wait for a job, then take what else is there, by file; nothing is the end."""
        batches: dict[Worker, list[Job]] = {}
        job = self._jobs.get()
        count = 0
        while job is not None:
            batches.setdefault(job.worker, []).append(job)
            count += 1
            if count >= _BATCH:
                break
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
        return batches


class Worker:
    """Runs batches on the open connection of one file, each in at most one transaction.

    Statements are few on purpose: around each the driver gives up the interpreter and takes it
    back, which in a busy process costs more than the statement.

    Args:
        connection: Open; from now on it is the thread's.
        loop: Where those who wait are told.
    """

    def __init__(self, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._syncs = True

    def run(self, batch: Sequence[Job]) -> None:
        """Do all of it and tell those who wait after the commit."""
        try:
            self._run(batch, max(job.needs for job in batch))
        except BaseException as error:  # noqa: BLE001 - whatever it is, this thread has to live on
            self._give_up()
            refused = batch_refusal(error)
            if refused.code == "storage_full" and len(batch) > 1:
                self._one_by_one(batch)
            else:
                for job in batch:
                    # A new one each: a shared one would gather the tracebacks of all who raise it.
                    job.error = batch_refusal(error)
        if batch[-1].change is None:
            with suppress(sqlite3.Error):
                self._connection.close()
        # The loop may have ended without closing the file: then nobody waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, batch)

    def _one_by_one(self, batch: Sequence[Job]) -> None:
        """Run each by itself what together did not fit: there may be room, or no need of any."""
        for job in batch:
            try:
                self._run([job], job.needs)
            except BaseException as error:  # noqa: BLE001 - as in `run`
                job.error = batch_refusal(error)
                self._give_up()

    def _run(self, batch: Sequence[Job], needs: Needs) -> None:
        connection = self._connection
        if needs is Needs.NOTHING:
            for job in batch:
                self._alone(job)
            return
        if self._syncs != (needs is Needs.A_SYNC):
            # Without a sync the commit is in the system's hands: a killed process loses nothing.
            self._syncs = needs is Needs.A_SYNC
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._syncs else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        if len(batch) == 1:
            failed = self._alone(batch[0])
            connection.execute("ROLLBACK" if failed else "COMMIT")
            return
        # A savepoint for each would double the statements, and errors are rare.
        if not _together(connection, batch):
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                _apply(connection, job)
        connection.execute("COMMIT")

    def _alone(self, job: Job) -> BaseException | None:
        inside = self._connection.in_transaction
        error = job.run(self._connection)
        if error is not None and inside and not self._connection.in_transaction:
            # A full disk can make SQLite give up the transaction by itself.
            raise error
        return error

    def _give_up(self) -> None:
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")


def _together(connection: sqlite3.Connection, batch: Sequence[Job]) -> bool:
    """Run all changes without a way back from each; when one fails, undo them all."""
    for job in batch:
        error = job.run(connection)
        if error is not None and not connection.in_transaction:
            raise error
        # What only asks leaves nothing to undo.
        if error is not None and job.needs is not Needs.NOTHING:
            connection.execute("ROLLBACK")
            return False
    return True


def _apply(connection: sqlite3.Connection, job: Job) -> None:
    """Run one change of several, so that an error undoes it alone."""
    if job.needs is Needs.NOTHING:
        # What only asks leaves nothing to undo.
        error = job.run(connection)
        if error is not None and not connection.in_transaction:
            raise error
        return
    connection.execute("SAVEPOINT change")
    error = job.run(connection)
    if error is not None:
        if not connection.in_transaction:
            raise error
        connection.execute("ROLLBACK TO change")
    connection.execute("RELEASE change")


def _settle(batch: Sequence[Job]) -> None:
    for job in batch:
        job.settle()
