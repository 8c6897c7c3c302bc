"""Commits changes in groups on one thread and answers queries on another.

Handlers hand in a synchronous function of ``Sql`` and await its result. The writer takes whatever
has gathered, runs it in one transaction, commits once, and only then resolves everything, in the
order it was handed in: a result that is seen is on disk. ``datafile.py`` opens the file and
``lane.py`` is the threads.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.to_thread

from claudemesh_broker.datafile import open_datafile
from claudemesh_broker.lane import (
    Batch,
    FatalHandler,
    Job,
    Lane,
    LaneLimits,
    TransactionLostError,
    roll_back,
)
from claudemesh_broker.sql import Sql

R = TypeVar("R")
logger: Final = logging.getLogger(__name__)

_CAREFUL_BATCHES: Final = 64


class Store:
    """The broker's database: ``write`` changes it, ``read`` asks it."""

    def __init__(self, writer: Lane, reader: Lane) -> None:
        self._writer = writer
        self._reader = reader

    @classmethod
    async def open(
        cls, path: Path, on_fatal: FatalHandler, limits: LaneLimits | None = None
    ) -> Self:
        """Open the database, made or migrated if need be, and start its two threads.

        Args:
            path: The SQLite file.
            on_fatal: Called on the event loop when a thread died: nothing can be stored any more,
                and the process has to say so and exit.
            limits: How much may wait, for changes and for queries.

        Raises:
            MeshError: as ``open_datafile`` lists; a file that is refused was not touched.
        """
        bounds = limits or LaneLimits()
        made = await anyio.to_thread.run_sync(open_datafile, path)
        lanes = (("writer", made.writer, _Change()), ("reader", made.reader, _Question()))
        return cls(
            *(
                Lane(
                    name=f"store-{name}",
                    database=database,
                    transaction=transaction,
                    limits=bounds,
                    on_fatal=on_fatal,
                )
                for name, database, transaction in lanes
            )
        )

    def write(self, change: Callable[[Sql], R]) -> asyncio.Future[R]:
        """Hand in a change: its reads, checks and writes happen together, or not at all.

        The change runs even if the awaiter is cancelled. What it raises undoes it alone; what the
        disk refuses undoes all that were to be committed with it, and each is told so.

        Args:
            change: Runs on the writer's thread. It must touch nothing but its ``Sql``: it may be
                undone and run a second time, because another that was run with it failed.

        Returns:
            The change's result, once it is on disk. Of two changes, the one handed in first is
            committed no later and resolved first.

        Raises:
            TooMuch: ``backlog``: too many changes wait.
            Unavailable: ``draining``; from the result ``storage_full`` or ``storage_failed``, and
                then nothing of it was stored.
        """
        return self._writer.submit(change)

    def read(self, query: Callable[[Sql], R]) -> asyncio.Future[R]:
        """Hand in a query; it sees one moment, no older than every change resolved so far.

        Args:
            query: Runs on the reader's thread and can't change anything.

        Returns:
            The query's result.

        Raises:
            TooMuch: ``backlog``: too many queries wait.
            Unavailable: ``draining``, ``storage_failed``.
        """
        return self._reader.submit(query)

    async def close(self) -> None:
        """Refuse more, finish what was handed in, and leave one tidy file."""
        with anyio.CancelScope(shield=True):
            await self._writer.drain()
            await self._reader.drain()
            await anyio.to_thread.run_sync(_tidy, self._writer.database, self._reader.database)

    async def __aenter__(self) -> Self:
        """Use it for a block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()


class _Change:
    """One commit for a batch; what a job raises undoes that job alone.

    Most batches need no way back from each job. After one that did the next have it, so that
    whoever makes changes fail can't make every batch run twice.
    """

    def __init__(self) -> None:
        self._careful = 0

    def run(self, database: sqlite3.Connection, batch: Batch) -> None:
        database.execute("BEGIN IMMEDIATE")
        sql = Sql(database)
        if len(batch) == 1:
            _apply_alone(database, sql, batch[0])
            return
        if not self._careful:
            if _together(database, sql, batch):
                return
            self._careful = _CAREFUL_BATCHES
            database.execute("BEGIN IMMEDIATE")
        self._careful -= 1
        for job in batch:
            _apply(database, sql, job)

    def end(self, database: sqlite3.Connection) -> None:
        if database.in_transaction:
            database.execute("COMMIT")


class _Question:
    """One moment for all queries of a batch."""

    def run(self, database: sqlite3.Connection, batch: Batch) -> None:
        database.execute("BEGIN")
        sql = Sql(database)
        for job in batch:
            job.run(sql)

    def end(self, database: sqlite3.Connection) -> None:
        roll_back(database)


def _apply_alone(database: sqlite3.Connection, sql: Sql, job: Job[Any]) -> None:
    failed = job.run(sql)
    if failed:
        roll_back(database)
    elif not database.in_transaction:
        raise TransactionLostError("the change ended the transaction")


def _together(database: sqlite3.Connection, sql: Sql, batch: Batch) -> bool:
    """Run all jobs without a way back from each; when one fails, undo them all."""
    for job in batch:
        failed = job.run(sql)
        if not database.in_transaction:
            raise TransactionLostError("the transaction was given up") from failed
        if failed:
            roll_back(database)
            return False
    return True


def _apply(database: sqlite3.Connection, sql: Sql, job: Job[Any]) -> None:
    database.execute("SAVEPOINT change")
    failed = job.run(sql)
    if not database.in_transaction:
        # A full disk can make SQLite give up the whole transaction, not the statement alone.
        raise TransactionLostError("the transaction was given up") from failed
    if failed:
        database.execute("ROLLBACK TO change")
    database.execute("RELEASE change")


def _tidy(writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
    reader.close()
    try:
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        # The log stays beside the file and is read at the next start.
        logger.warning("the log was not folded into the database", exc_info=error)
    writer.close()
