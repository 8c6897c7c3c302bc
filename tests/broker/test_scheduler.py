"""The scheduler: what is due runs at least once, in order, whatever fails or restarts."""

from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import anyio
import pytest

from claudemesh_broker import scheduler
from claudemesh_broker.scheduler import MAX_SLEEP_S, Clock, Payload, Scheduler
from claudemesh_broker.sql import Sql
from claudemesh_broker.store import Store
from tests.support.stores import LIMIT_S, opened

NOW_MS = 1_700_000_000_000


class FakeTime:
    """A clock that stands until it is moved, and sleepers that wake when it has."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.slept_s: list[float] = []
        self._moved = anyio.Event()
        self._asleep = anyio.Event()

    def clock(self) -> Clock:
        return Clock(now_ms=lambda: self.now_ms, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        until_ms = self.now_ms + seconds * 1000
        while self.now_ms < until_ms:
            self._asleep.set()
            await self._moved.wait()

    async def move(self, seconds: float) -> None:
        """Move on, once somebody sleeps, and wait until somebody sleeps again."""
        await self._asleep.wait()
        self._asleep = anyio.Event()
        self.now_ms += round(seconds * 1000)
        self._moved.set()
        self._moved = anyio.Event()
        await self._asleep.wait()


class Ran:
    """A handler that notes what it was given, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.keys: list[str] = []
        self.given: list[tuple[Payload, int]] = []
        self.failures = failures

    async def __call__(self, key: str, payload: Payload, due_ms: int) -> None:
        self.keys.append(key)
        self.given.append((payload, due_ms))
        if len(self.keys) <= self.failures:
            raise RuntimeError("told to fail")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store]:
    with anyio.fail_after(LIMIT_S):
        async with opened(tmp_path) as store:
            yield store


def made(store: Store, time: FakeTime, **handlers: Ran) -> Scheduler:
    schedule = Scheduler(store, time.clock())
    for kind, handler in handlers.items():
        schedule.register(kind, handler)
    return schedule


async def put(store: Store, key: str, due_ms: int, kind: str = "tea") -> None:
    await store.write(partial(scheduler.put, kind=kind, key=key, due_ms=due_ms))


def left(sql: Sql) -> list[str]:
    return [row["key"] for row in sql.all("SELECT key FROM schedule ORDER BY key")]


async def test_what_is_due_runs_once_and_in_order(store: Store) -> None:
    ran = Ran()
    schedule = made(store, FakeTime(), tea=ran)
    for key, late_ms in (("third", 0), ("first", 20), ("second", 10), ("later", -1)):
        await put(store, key, NOW_MS - late_ms)
    assert await schedule.run_due(NOW_MS) == 3
    assert ran.keys == ["first", "second", "third"]
    assert await schedule.run_due(NOW_MS) == 0
    assert await store.read(left) == ["later"]


async def test_a_handler_is_given_what_was_put(store: Store) -> None:
    ran = Ran()
    schedule = made(store, FakeTime(), tea=ran)
    payload = {"cups": 2, "kind": ["green"]}
    await store.write(partial(scheduler.put, kind="tea", key="a", due_ms=7, payload=payload))
    await schedule.run_due(NOW_MS)
    assert ran.given == [(payload, 7)]


async def test_everything_overdue_runs_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(5):
            await put(store, f"{number}", NOW_MS + number)
    ran = Ran()
    async with opened(tmp_path) as store:
        schedule = made(store, FakeTime(), tea=ran)
        assert await schedule.run_due(NOW_MS + 10**9) == 5
        assert await store.read(left) == []


async def test_a_failure_is_tried_again_later_and_later(store: Store) -> None:
    ran, good = Ran(failures=3), Ran()
    schedule = made(store, FakeTime(), tea=ran, coffee=good)
    await put(store, "a", NOW_MS)
    await put(store, "b", NOW_MS, kind="coffee")
    assert await schedule.run_due(NOW_MS) == 1
    waits = list[int]()
    now_ms = NOW_MS
    while (due_ms := await schedule.next_due_ms()) is not None:
        waits.append(due_ms - now_ms)
        now_ms = due_ms
        await schedule.run_due(now_ms)
    assert waits == [1_000, 2_000, 4_000]
    assert (ran.keys, good.keys) == (["a"] * 4, ["b"])


async def test_retries_are_never_further_apart_than_ten_minutes(store: Store) -> None:
    ran = Ran(failures=1000)
    schedule = made(store, FakeTime(), tea=ran)
    await put(store, "a", NOW_MS)
    now_ms = NOW_MS
    for _ in range(40):
        await schedule.run_due(now_ms)
        due_ms = await schedule.next_due_ms()
        assert due_ms is not None
        assert 0 < due_ms - now_ms <= 600_000
        now_ms = due_ms


async def test_what_is_put_anew_replaces_what_was_due(store: Store) -> None:
    ran = Ran()
    schedule = made(store, FakeTime(), tea=ran)
    await put(store, "a", NOW_MS)
    await put(store, "a", NOW_MS + 50)
    assert await schedule.run_due(NOW_MS) == 0
    assert await schedule.run_due(NOW_MS + 50) == 1
    assert ran.keys == ["a"]


async def test_a_handler_may_put_its_own_key_anew(store: Store) -> None:
    time = FakeTime()
    schedule = Scheduler(store, time.clock())

    async def again(key: str, payload: Payload, due_ms: int) -> None:
        del payload
        await put(store, key, due_ms)

    schedule.register("tea", again)
    await put(store, "a", NOW_MS)
    assert await schedule.run_due(NOW_MS) == 1
    assert await store.read(left) == ["a"]
    assert await schedule.run_due(NOW_MS) == 1


async def test_what_was_dropped_does_not_run_even_if_it_was_due(store: Store) -> None:
    time, second = FakeTime(), Ran()
    schedule = Scheduler(store, time.clock())

    async def drop_the_other(key: str, payload: Payload, due_ms: int) -> None:
        del key, payload, due_ms
        assert await store.write(partial(scheduler.drop, kind="coffee", key="b"))

    schedule.register("tea", drop_the_other)
    schedule.register("coffee", second)
    await put(store, "a", NOW_MS - 1)
    await put(store, "b", NOW_MS, kind="coffee")
    assert await schedule.run_due(NOW_MS) == 1
    assert second.keys == []


async def test_a_handler_that_hangs_counts_as_failed(store: Store) -> None:
    ran = Ran()
    schedule = Scheduler(store, FakeTime().clock(), handler_s=0.01)

    async def hang(key: str, payload: Payload, due_ms: int) -> None:
        del key, payload, due_ms
        await anyio.sleep_forever()

    schedule.register("tea", hang)
    schedule.register("coffee", ran)
    await put(store, "a", NOW_MS - 1)
    await put(store, "b", NOW_MS, kind="coffee")
    assert await schedule.run_due(NOW_MS) == 1
    assert ran.keys == ["b"]
    assert await store.read(left) == ["a"]


async def test_rows_of_an_unknown_kind_wait_for_who_knows_it(store: Store) -> None:
    schedule = made(store, FakeTime(), tea=Ran())
    await put(store, "a", NOW_MS - 1, kind="from_a_later_version")
    assert await schedule.run_due(NOW_MS) == 0
    assert await schedule.next_due_ms() is None
    assert await store.read(left) == ["a"]


async def test_housekeeping_does_not_hold_an_idle_broker(store: Store) -> None:
    schedule = made(store, FakeTime(), tea=Ran())
    schedule.register("dust", Ran(), holds_broker=False)
    await put(store, "a", NOW_MS, kind="dust")
    assert await schedule.next_due_ms() is None
    await put(store, "b", NOW_MS + 5)
    assert await schedule.next_due_ms() == NOW_MS + 5


async def test_a_kind_has_one_handler(store: Store) -> None:
    schedule = made(store, FakeTime(), tea=Ran())
    with pytest.raises(ValueError, match="tea"):
        schedule.register("tea", Ran())


async def test_the_loop_runs_what_becomes_due_and_outlives_failures(store: Store) -> None:
    time, ran = FakeTime(), Ran(failures=1)
    schedule = made(store, time, tea=ran)
    await put(store, "a", NOW_MS + 10_000)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(schedule.run)
        await time.move(9.999)
        assert ran.keys == []
        await time.move(0.001)
        assert ran.keys == ["a"]
        await time.move(1)
        assert ran.keys == ["a", "a"]
        tasks.cancel_scope.cancel()
    assert await store.read(left) == []


async def test_the_loop_never_sleeps_for_long_at_once(store: Store) -> None:
    time, ran = FakeTime(), Ran()
    schedule = made(store, time, tea=ran)
    await put(store, "a", NOW_MS + 40 * 24 * 3600 * 1000)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(schedule.run)
        await time.move(40 * 24 * 3600)
        assert ran.keys == ["a"]
        tasks.cancel_scope.cancel()
    assert max(time.slept_s) <= MAX_SLEEP_S


async def test_the_loop_is_woken_for_what_is_due_earlier(store: Store) -> None:
    time, ran = FakeTime(), Ran()
    schedule = made(store, time, tea=ran)
    done = anyio.Event()

    async def tell(key: str, payload: Payload, due_ms: int) -> None:
        del key, payload, due_ms
        done.set()

    schedule.register("bell", tell)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(schedule.run)
        await time.move(0)
        await put(store, "now", NOW_MS, kind="bell")
        schedule.wake()
        await done.wait()
        tasks.cancel_scope.cancel()


async def test_the_loop_outlives_a_store_that_refuses(tmp_path: Path) -> None:
    time, ran = FakeTime(), Ran()
    store = await Store.open(tmp_path / "data" / "broker.sqlite3", lambda _: None)
    await store.close()
    schedule = made(store, time, tea=ran)
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(schedule.run)
            for _ in range(3):
                await time.move(1)
            tasks.cancel_scope.cancel()
    assert time.slept_s[1:] == [1.0] * (len(time.slept_s) - 1)
