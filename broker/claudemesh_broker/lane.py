"""One thread with a database connection of its own, and the queue in front of it.

``store.py`` has two: one that changes and one that answers. Jobs come from the event loop, run in
batches on the thread, and are settled on the event loop, in the order they came.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from claudemesh_broker.sql import Sql, is_broken, storage_failure
from claudemesh_wire.errors import TooMuch, Unavailable

R = TypeVar("R")
FatalHandler = Callable[[BaseException], None]
logger: Final = logging.getLogger(__name__)

_TURN_EVERY_S: Final = 0.002
_TURN_S: Final = 0.005
_GLANCE_S: Final = 0.0001


@dataclass(frozen=True)
class LaneLimits:
    """How much may wait, and how much goes into one transaction.

    Args:
        waiting: Jobs that may wait before more are refused.
        batch: Jobs in one transaction at most, so that the first of them isn't kept waiting.
    """

    waiting: int = 20_000
    batch: int = 1_000


class Job(Generic[R]):
    """One change or query, and whom to tell."""

    __slots__ = ("error", "future", "outcome", "work")

    def __init__(self, work: Callable[[Sql], R], future: asyncio.Future[R]) -> None:
        self.work = work
        self.future = future
        self.outcome: Any = None
        self.error: Exception | None = None

    def run(self, sql: Sql) -> Exception | None:
        """Do the work and keep what came of it; damage to the file ends the whole lane.

        It may be run again, once all that it did was undone because of another's error.
        """
        self.error = None
        try:
            self.outcome = self.work(sql)
        except sqlite3.Error as error:
            if is_broken(error):
                raise
            self.error = storage_failure(error) or error
        except StopIteration as error:
            # A future refuses to carry this one.
            self.error = RuntimeError("a job ran out of its iterator")
            self.error.__cause__ = error
        except Exception as error:  # noqa: BLE001 - it belongs to whoever handed the work in
            self.error = error
        return self.error

    def settle(self) -> None:
        """Tell the outcome, unless nobody waits for it any more."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.outcome)


Batch = list[Job[Any]]


class TransactionLostError(sqlite3.OperationalError):
    """The transaction ended before its batch did; the cause is the error that ended it."""


class Transaction(Protocol):
    """How a lane runs one batch, in two steps. What either raises fails the whole batch."""

    def run(self, database: sqlite3.Connection, batch: Batch) -> None:
        """Begin, and run every job of the batch."""
        ...

    def end(self, database: sqlite3.Connection) -> None:
        """End the transaction: one long call, in which the thread needs no interpreter."""
        ...


class Lane:
    """A thread that runs what is submitted, batch by batch.

    Args:
        name: The thread's name.
        database: The connection, used by this thread alone from now on.
        transaction: How a batch is run.
        limits: How much may wait.
        on_fatal: Told on the event loop when the thread died.
    """

    def __init__(
        self,
        *,
        name: str,
        database: sqlite3.Connection,
        transaction: Transaction,
        limits: LaneLimits,
        on_fatal: FatalHandler,
    ) -> None:
        self.database = database
        self._transaction = transaction
        self._limits = limits
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._batch: Batch = []
        self._waiting = 0
        self._closing = self._dead = False
        self._ended = asyncio.Event()
        self._turns = _Turns(self._loop, lambda: self._waiting > 0)
        # A daemon: were the loop to die without drain(), the process could still end.
        threading.Thread(target=self._live, name=name, daemon=True).start()

    def submit(self, work: Callable[[Sql], R]) -> asyncio.Future[R]:
        """Hand in work.

        Raises:
            TooMuch: ``backlog``: too much waits already.
            Unavailable: ``draining``, or ``storage_failed`` when the thread has died.
        """
        if self._dead:
            raise _died()
        if self._closing:
            raise Unavailable("The broker is stopping.", "Try again in a moment.", code="draining")
        if self._waiting >= self._limits.waiting:
            raise TooMuch(
                "More is to be stored than the broker's disk takes.",
                "Try again in a second.",
                code="backlog",
                retry_after_s=1.0,
            )
        self._waiting += 1
        future: asyncio.Future[R] = self._loop.create_future()
        self._queue.put(Job(work, future))
        self._turns.begin()
        return future

    async def drain(self) -> None:
        """Take no more, finish what was handed in, and end the thread."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await self._ended.wait()

    def _live(self) -> None:
        try:
            while self._serve():
                pass
        except BaseException as error:
            # A thread that ended in silence would leave everybody waiting.
            logger.critical("a thread of the store died", exc_info=error)
            self._post(partial(self._die, error))
        else:
            self._post(self._ended.set)

    def _serve(self) -> bool:
        first = self._queue.get()
        if first is None:
            return False
        self._batch, goes_on = self._gather(first)
        try:
            self._transaction.run(self.database, self._batch)
            with self._turns.not_needed():
                self._transaction.end(self.database)
        except sqlite3.Error as error:
            if is_broken(error):
                raise
            roll_back(self.database)
            _refuse(self._batch, error)
        self._post(partial(self._settle, self._batch))
        self._turns.taken()
        return goes_on

    def _gather(self, first: Job[Any]) -> tuple[Batch, bool]:
        batch = [first]
        try:
            while len(batch) < self._limits.batch:
                job = self._queue.get_nowait()
                if job is None:
                    return batch, False
                batch.append(job)
        except queue.Empty:
            pass
        return batch, True

    def _post(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            logger.warning("the event loop ended before the store was closed")

    def _settle(self, batch: Batch) -> None:
        self._waiting -= len(batch)
        for job in batch:
            job.settle()

    def _die(self, error: BaseException) -> None:
        self._dead = True
        self._waiting = 0
        stranded = list(self._batch)
        while not self._queue.empty():
            job = self._queue.get_nowait()
            if job is not None:
                stranded.append(job)
        for job in stranded:
            job.error = _died()
            job.settle()
        self._ended.set()
        self._on_fatal(error)


class _Turns:
    """Lets the thread have the interpreter while the event loop is busy.

    A loop that never rests gives the interpreter's lock away for microseconds only, and a thread
    that waits for it can lose that race for seconds. So while work is under way the loop stops for
    it now and then: until the thread has run its statements, or only for a glance while the thread
    is in the disk's hands and needs the lock but for a moment.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, under_way: Callable[[], bool]) -> None:
        self._loop = loop
        self._under_way = under_way
        self._event = threading.Event()
        self._needed = True
        self._offering = False

    def begin(self) -> None:
        """On the loop: work has come."""
        if not self._offering:
            self._offering = True
            self._loop.call_later(_TURN_EVERY_S, self._offer)

    def taken(self) -> None:
        """On the thread: the loop need not wait any longer."""
        self._event.set()

    def not_needed(self) -> "_Turns":
        """On the thread: a context in which it needs no interpreter."""
        return self

    def __enter__(self) -> None:
        self._needed = False
        self._event.set()

    def __exit__(self, *_: object) -> None:
        self._needed = True

    def _offer(self) -> None:
        if not self._under_way():
            self._offering = False
            return
        self._event.clear()
        self._event.wait(_TURN_S if self._needed else _GLANCE_S)
        self._loop.call_later(_TURN_EVERY_S, self._offer)


def roll_back(database: sqlite3.Connection) -> None:
    """Undo the transaction, if there is one."""
    if database.in_transaction:
        database.execute("ROLLBACK")


def _refuse(batch: Iterable[Job[Any]], error: sqlite3.Error) -> None:
    logger.error("a batch was given up", exc_info=error)
    cause = error.__cause__ if isinstance(error, TransactionLostError) else error
    for job in batch:
        # A new one each: a shared error would gather the tracebacks of all who raise it.
        job.error = _not_done(cause)


def _not_done(cause: BaseException | None) -> Unavailable:
    if isinstance(cause, Unavailable):
        return Unavailable(cause.reason, cause.hint, code=cause.code)
    failure = storage_failure(cause) if isinstance(cause, sqlite3.Error) else None
    return failure or Unavailable(
        "The broker could not store this.", "Look into its log.", code="storage_failed"
    )


def _died() -> Unavailable:
    return Unavailable(
        "The broker's storage has stopped.", "The broker ends; try again.", code="storage_failed"
    )
