"""The store: what is acknowledged is on disk, and what fails fails alone."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudemesh_broker.lane import LaneLimits
from claudemesh_broker.sql import Row, Sql
from claudemesh_broker.store import Store
from claudemesh_wire.errors import Conflict, MeshError, TooMuch, Unavailable
from tests.support.stores import LIMIT_S, Deaths, Gate, note, noted, noted_on_disk, opened


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[Store]:
    with anyio.fail_after(LIMIT_S):
        async with opened(tmp_path) as store:
            yield store


def refuse(sql: Sql, number: int) -> int:
    note(sql, number)
    raise Conflict("No.", code=f"no_{number}")


async def outcome(future: Awaitable[int]) -> int | str:
    try:
        return await future
    except MeshError as error:
        return error.code


async def test_what_is_acknowledged_is_on_disk(store: Store, tmp_path: Path) -> None:
    for number in range(5):
        await store.write(lambda sql, number=number: note(sql, number))
        assert number in noted_on_disk(tmp_path)


async def test_a_commit_is_synced_also_against_a_power_cut(store: Store) -> None:
    full = 2
    assert await store.write(lambda sql: sql.value("PRAGMA synchronous")) == full
    assert await store.write(lambda sql: sql.value("PRAGMA journal_mode")) == "wal"


async def test_of_a_hundred_changes_one_raises_and_99_commit(store: Store, tmp_path: Path) -> None:
    gate = Gate()
    held = store.write(gate.hold)
    gate.wait_until_held()
    futures = [
        store.write(lambda sql, n=number: refuse(sql, n) if n == 37 else note(sql, n))
        for number in range(100)
    ]
    gate.open()
    await held
    outcomes = [await outcome(future) for future in futures]
    assert outcomes == [*range(37), "no_37", *range(38, 100)]
    assert noted_on_disk(tmp_path) == set(range(100)) - {37}


async def test_whoever_makes_changes_fail_does_not_make_every_batch_run_twice(
    store: Store, tmp_path: Path
) -> None:
    runs = [0, 0]

    def counted(sql: Sql, batch: int) -> int:
        runs[batch] += 1
        return note(sql, batch)

    for batch in range(2):
        gate = Gate()
        held = store.write(gate.hold)
        gate.wait_until_held()
        futures = [
            store.write(lambda sql, n=batch: counted(sql, n)),
            store.write(lambda sql: refuse(sql, 37)),
        ]
        gate.open()
        await held
        assert [await outcome(future) for future in futures] == [batch, "no_37"]
    assert runs == [2, 1]
    assert noted_on_disk(tmp_path) == {0, 1}


async def test_what_gathers_is_one_commit(store: Store) -> None:
    statements: list[str] = []
    gate = Gate()
    held = store.write(gate.hold)
    gate.wait_until_held()
    store._writer.database.set_trace_callback(statements.append)
    futures = [store.write(lambda sql, n=number: note(sql, n)) for number in range(50)]
    gate.open()
    await held
    for future in futures:
        await future
    assert [text for text in statements if text.startswith(("BEGIN", "COMMIT"))] == [
        "COMMIT",
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]


async def test_a_lone_change_that_raises_leaves_nothing(store: Store) -> None:
    with pytest.raises(Conflict) as caught:
        await store.write(lambda sql: refuse(sql, 1))
    assert caught.value.code == "no_1"
    assert await store.read(noted) == set()


async def test_results_come_in_the_order_of_the_commits(store: Store) -> None:
    gate, order = Gate(), list[int]()

    async def wait(number: int, future: Awaitable[int]) -> None:
        await outcome(future)
        order.append(number)

    held = store.write(gate.hold)
    gate.wait_until_held()
    async with anyio.create_task_group() as tasks:
        for number in range(30):
            work = refuse if number % 7 == 3 else note
            tasks.start_soon(wait, number, store.write(lambda sql, n=number, w=work: w(sql, n)))
        await anyio.lowlevel.checkpoint()
        gate.open()
    await held
    assert order == list(range(30))


async def test_a_cancelled_awaiter_does_not_undo_its_change(store: Store) -> None:
    gate = Gate()
    held = store.write(gate.hold)
    gate.wait_until_held()
    future = store.write(lambda sql: note(sql, 1))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await future
    gate.open()
    await held
    assert future.cancelled()
    await store.write(lambda sql: note(sql, 2))
    assert await store.read(noted) == {1, 2}


async def test_a_query_sees_every_change_that_was_acknowledged(store: Store) -> None:
    for number in range(20):
        await store.write(lambda sql, number=number: note(sql, number))
        assert number in await store.read(noted)


async def test_a_query_can_change_nothing(store: Store) -> None:
    with pytest.raises(Unavailable):
        await store.read(lambda sql: note(sql, 1))
    assert await store.read(noted) == set()


async def test_a_query_that_raises_harms_no_other(store: Store) -> None:
    futures = [
        store.read(lambda sql: sql.value("SELECT 1")),
        store.read(lambda sql: sql.value("SELECT * FROM nowhere")),
        store.read(lambda sql: sql.value("SELECT 3")),
    ]
    assert await futures[0] == 1
    with pytest.raises(sqlite3.OperationalError):
        await futures[1]
    assert await futures[2] == 3


async def test_too_much_waiting_is_refused_until_it_is_done(tmp_path: Path) -> None:
    async with opened(tmp_path, LaneLimits(waiting=3)) as store:
        gate = Gate()
        held = store.write(gate.hold)
        gate.wait_until_held()
        others = [store.write(lambda sql, n=number: note(sql, n)) for number in range(2)]
        with pytest.raises(TooMuch) as caught:
            store.write(lambda sql: note(sql, 9))
        assert (caught.value.code, caught.value.retry_after_s) == ("backlog", 1.0)
        gate.open()
        await held
        for other in others:
            await other
        assert await store.write(lambda sql: note(sql, 9)) == 9


async def test_closing_finishes_what_was_handed_in(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "data" / "broker.sqlite3", Deaths())
    futures = [store.write(lambda sql, n=number: note(sql, n)) for number in range(200)]
    await store.close()
    assert [await future for future in futures] == list(range(200))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["broker.sqlite3"]
    with pytest.raises(Unavailable) as caught:
        store.write(lambda sql: note(sql, 1000))
    assert caught.value.code == "draining"


async def test_a_dead_writer_is_told_and_nobody_waits_for_it(tmp_path: Path) -> None:
    deaths, gate = Deaths(), Gate()
    store = await Store.open(tmp_path / "data" / "broker.sqlite3", deaths)

    def die(sql: Sql) -> int:
        note(sql, 2)
        raise SystemExit

    store.write(gate.hold)
    gate.wait_until_held()
    futures = [store.write(lambda sql: note(sql, 1)), store.write(die)]
    gate.open()
    with anyio.fail_after(LIMIT_S):
        assert [await outcome(future) for future in futures] == ["storage_failed"] * 2
        with pytest.raises(Unavailable):
            store.write(lambda sql: note(sql, 3))
        await store.close()
    assert [type(cause) for cause in deaths.causes] == [SystemExit]
    assert noted_on_disk(tmp_path) == set()


async def test_damage_that_is_met_while_running_stops_the_store(tmp_path: Path) -> None:
    deaths = Deaths()
    store = await Store.open(tmp_path / "data" / "broker.sqlite3", deaths)

    def damaged(sql: Sql) -> int:
        del sql
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorname = "SQLITE_CORRUPT"
        raise error

    assert await outcome(store.write(damaged)) == "storage_failed"
    await store.close()
    assert len(deaths.causes) == 1


async def test_a_change_that_ends_its_transaction_is_refused(store: Store) -> None:
    def end(sql: Sql) -> int:
        return sql.execute("COMMIT")

    assert await outcome(store.write(end)) == "storage_failed"
    gate = Gate()
    held = store.write(gate.hold)
    gate.wait_until_held()
    futures = [store.write(lambda sql: note(sql, 1)), store.write(end)]
    gate.open()
    await held
    assert [await outcome(future) for future in futures] == ["storage_failed"] * 2
    assert await store.write(lambda sql: note(sql, 2)) == 2


async def test_a_change_that_runs_out_of_an_iterator_is_an_error(store: Store) -> None:
    with pytest.raises(RuntimeError):
        await store.write(lambda sql: next(iter(sql.all("SELECT 1 WHERE 0"))))


async def test_a_change_reads_writes_and_checks_in_one(store: Store) -> None:
    def change(sql: Sql) -> tuple[int, int, list[str], Row | None]:
        many = sql.many("INSERT INTO meta (key, value) VALUES (?, ?)", [("a", "1"), ("b", "2")])
        changed = sql.execute("UPDATE meta SET value = value || ? WHERE key = ?", "!", "a")
        rows = sql.all("SELECT key, value FROM meta ORDER BY key")
        gone = sql.one("DELETE FROM meta WHERE key = ? RETURNING value", "nobody")
        return many, changed, [row["value"] for row in rows], gone

    assert await store.write(change) == (2, 1, ["1!", "2"], None)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_an_event_loop_that_never_rests_does_not_starve_the_writer(store: Store) -> None:
    written = list[int]()

    async def write() -> None:
        for number in range(10_000):
            written.append(await store.write(lambda sql, number=number: note(sql, number)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        for _ in range(5_000):
            until = time.perf_counter() + 0.0001
            while time.perf_counter() < until:
                pass
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    # Without turns for the writer there are next to none.
    assert len(written) > 100


@settings(max_examples=20, deadline=None)
@given(plan=st.lists(st.lists(st.booleans(), max_size=8), max_size=8))
def test_exactly_the_changes_that_succeed_are_stored(
    tmp_path_factory: pytest.TempPathFactory, plan: list[list[bool]]
) -> None:
    folder = tmp_path_factory.mktemp("store")

    async def run() -> set[int]:
        succeeded, number = set[int](), 0
        async with opened(folder) as store:
            for batch in plan:
                gate = Gate()
                held = store.write(gate.hold)
                gate.wait_until_held()
                futures: list[asyncio.Future[int]] = []
                for does_succeed in batch:
                    number += 1
                    work = note if does_succeed else refuse
                    futures.append(store.write(lambda sql, n=number, w=work: w(sql, n)))
                gate.open()
                await held
                results = [await outcome(future) for future in futures]
                succeeded |= {result for result in results if isinstance(result, int)}
        return succeeded

    assert asyncio.run(run()) == noted_on_disk(folder)


async def test_a_failure_of_the_disk_is_logged_once_a_batch(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        await outcome(store.write(lambda sql: sql.execute("COMMIT")))
    assert len(caplog.records) == 1
