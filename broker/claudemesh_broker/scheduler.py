"""Runs what is due: one loop over one table ordered by time, which outlives restarts.

Features write rows inside their own changes (``put``, ``drop``) and register a handler per kind;
``app.py`` runs the loop. A handler runs at least once per row, so it must bear a second run.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio

from claudemesh_broker.sql import Row, Sql
from claudemesh_broker.store import Store

Payload = Mapping[str, Any]
Handler = Callable[[str, Payload, int], Awaitable[None]]
logger: Final = logging.getLogger(__name__)

MAX_SLEEP_S: Final = 60.0
"""No longer at once: the wall clock may jump, and timers of weeks overflow."""
_FIRST_RETRY_MS: Final = 1_000
_LAST_RETRY_MS: Final = 10 * 60 * 1_000


def put(sql: Sql, kind: str, key: str, due_ms: int, payload: Payload | None = None) -> None:
    """Schedule (kind, key), instead of when it was due before; call ``wake`` after the commit.

    Args:
        sql: The change's.
        kind: Which handler; it is registered by that name.
        key: Whom or what it is about; at most one row per kind and key.
        due_ms: When.
        payload: What the handler is given, as JSON values.
    """
    # Deleted first, so that the row gets a new number: a handler that runs now ends the old one.
    drop(sql, kind, key)
    sql.execute(
        "INSERT INTO schedule (kind, key, due_ms, payload) VALUES (?, ?, ?, ?)",
        kind,
        key,
        due_ms,
        json.dumps(payload or {}),
    )


def drop(sql: Sql, kind: str, key: str) -> bool:
    """Take (kind, key) off the schedule; gives whether it was on it."""
    return sql.execute("DELETE FROM schedule WHERE kind = ? AND key = ?", kind, key) > 0


@dataclass(frozen=True)
class Clock:
    """What the scheduler knows of time.

    Args:
        now_ms: Milliseconds since the epoch.
        sleep: Waits for some seconds.
    """

    now_ms: Callable[[], int]
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep


@dataclass(frozen=True)
class _Kind:
    handler: Handler
    holds_broker: bool


class Scheduler:
    """The one loop of a broker over its schedule.

    Args:
        store: Where the schedule is.
        clock: The time.
        handler_s: How long a handler may take before it counts as failed.
    """

    def __init__(self, store: Store, clock: Clock, handler_s: float = 60.0) -> None:
        self._store = store
        self._clock = clock
        self._handler_s = handler_s
        self._kinds: dict[str, _Kind] = {}
        self._awake = anyio.Event()

    def register(self, kind: str, handler: Handler, *, holds_broker: bool = True) -> None:
        """Say who handles a kind.

        Args:
            kind: The name in the rows.
            handler: Awaited with key, payload and the time it was due.
            holds_broker: Whether an idle broker stays for such a row; housekeeping is no reason.

        Raises:
            ValueError: the kind has a handler already.
        """
        if kind in self._kinds:
            raise ValueError(f"two handlers for {kind!r}")
        self._kinds[kind] = _Kind(handler, holds_broker)

    def wake(self) -> None:
        """Look at the schedule again: something may be due earlier than before."""
        self._awake.set()

    async def run(self) -> None:
        """Run what is due, when it is due, until cancelled."""
        delay_s = 0.0
        while True:
            await self._rest(delay_s)
            try:
                await self.run_due(self._clock.now_ms())
                due_ms = await self._store.read(partial(_next_due, kinds=list(self._kinds)))
            except Exception:
                # A full disk ends as well, and the schedule must outlive it.
                logger.exception("the schedule could not be read or written")
                delay_s = _FIRST_RETRY_MS / 1000
                continue
            wait_ms = MAX_SLEEP_S * 1000 if due_ms is None else due_ms - self._clock.now_ms()
            delay_s = min(max(wait_ms / 1000, 0.0), MAX_SLEEP_S)

    async def run_due(self, now_ms: int) -> int:
        """Run everything that is due now, oldest first; gives how many handlers succeeded.

        What handlers put on the schedule meanwhile waits for the next call.
        """
        newest: int = await self._store.read(_newest)
        succeeded = 0
        while True:
            # One at a time: a handler may have taken the next one off the schedule.
            row = await self._store.read(
                partial(_first_due, kinds=list(self._kinds), now_ms=now_ms, newest=newest)
            )
            if row is None:
                return succeeded
            succeeded += await self._run_one(row, now_ms)

    async def next_due_ms(self) -> int | None:
        """Give when the next row is due for which an idle broker stays, or ``None``."""
        kinds = [kind for kind, known in self._kinds.items() if known.holds_broker]
        return await self._store.read(partial(_next_due, kinds=kinds))

    async def _run_one(self, row: Row, now_ms: int) -> bool:
        try:
            with anyio.fail_after(self._handler_s):
                handler = self._kinds[row["kind"]].handler
                await handler(row["key"], json.loads(row["payload"]), row["due_ms"])
        except Exception:
            logger.exception("what was due failed: kind=%s key=%s", row["kind"], row["key"])
            again_ms = now_ms + _retry_delay_ms(row["attempts"])
            await self._store.write(partial(_postpone, fence=row["fence"], due_ms=again_ms))
            return False
        # Under its number: a handler may have scheduled the same key anew.
        await self._store.write(partial(_end, fence=row["fence"]))
        return True

    async def _rest(self, delay_s: float) -> None:
        """Sleep, or until woken; at least once everybody else has a turn."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sleep, delay_s)
            await self._awake.wait()
            tasks.cancel_scope.cancel()
        self._awake = anyio.Event()

    async def _sleep(self, delay_s: float) -> None:
        await self._clock.sleep(delay_s)
        self._awake.set()


def _retry_delay_ms(attempts: int) -> int:
    """Give 1 s, 2 s, 4 s … up to ten minutes."""
    return min(_FIRST_RETRY_MS << min(attempts, 20), _LAST_RETRY_MS)


def _newest(sql: Sql) -> int:
    number: int = sql.value("SELECT coalesce(max(fence), 0) FROM schedule")
    return number


def _first_due(sql: Sql, kinds: list[str], now_ms: int, newest: int) -> Row | None:
    return sql.one(
        "SELECT fence, kind, key, due_ms, attempts, payload FROM schedule WHERE due_ms <= ?"
        " AND fence <= ? AND kind IN (SELECT value FROM json_each(?))"
        " ORDER BY due_ms, fence LIMIT 1",
        now_ms,
        newest,
        json.dumps(kinds),
    )


def _next_due(sql: Sql, kinds: list[str]) -> int | None:
    found: int | None = sql.value(
        "SELECT due_ms FROM schedule WHERE kind IN (SELECT value FROM json_each(?))"
        " ORDER BY due_ms LIMIT 1",
        json.dumps(kinds),
    )
    return found


def _end(sql: Sql, fence: int) -> None:
    sql.execute("DELETE FROM schedule WHERE fence = ?", fence)


def _postpone(sql: Sql, fence: int, due_ms: int) -> None:
    sql.execute(
        "UPDATE schedule SET due_ms = ?, attempts = attempts + 1 WHERE fence = ?", due_ms, fence
    )
