"""The peer file: what it acknowledged is on disk, and what it can't use it leaves as it is."""

import asyncio
import sqlite3
import stat
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.peerfile import SCHEMA_VERSION, PeerFile
from claudemesh_wire.errors import Invalid, MeshError, Unavailable

LIMIT_S = 20


@pytest.fixture
async def file(path: Path) -> AsyncGenerator[PeerFile]:
    opened = await PeerFile.open(path)
    yield opened
    await opened.close()


def insert(name: str) -> Callable[[sqlite3.Connection], str]:
    def change(sql: sqlite3.Connection) -> str:
        sql.execute("INSERT INTO names (name, member, first_ms) VALUES (?, 'mem', 0)", (name,))
        return name

    return change


def names(sql: sqlite3.Connection) -> list[str]:
    return [name for (name,) in sql.execute("SELECT name FROM names ORDER BY name")]


def look(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def refused(path: Path, kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught, anyio.fail_after(LIMIT_S):
        await PeerFile.open(path)
    assert caught.value.hint
    return caught.value.code


async def test_a_change_is_on_disk_when_it_returns(file: PeerFile) -> None:
    assert await file.write(insert("ada")) == "ada"
    assert look(file.path, "SELECT name FROM names") == [("ada",)]


async def test_what_was_written_is_there_at_the_next_opening(path: Path) -> None:
    first = await PeerFile.open(path)
    await first.write(insert("ada"))
    await first.close()
    again = await PeerFile.open(path)
    assert await again.write(names) == ["ada"]
    await again.close()


async def test_nobody_else_can_read_the_file_or_its_log(file: PeerFile) -> None:
    await file.write(insert("ada"))
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in file.path.parent.iterdir()}
    assert modes == dict.fromkeys(("peer.db", "peer.db-wal", "peer.db-shm", "peer.db.lock"), 0o600)


async def test_a_power_cut_takes_nothing_that_was_acknowledged(file: PeerFile) -> None:
    def settings(sql: sqlite3.Connection) -> list[Any]:
        asked = ("synchronous", "journal_mode", "secure_delete")
        return [sql.execute(f"PRAGMA {name}").fetchone()[0] for name in asked]

    full, fast = 2, 2
    assert await file.write(settings) == [full, "wal", fast]


async def test_of_a_hundred_changes_one_that_raises_undoes_itself_alone(file: PeerFile) -> None:
    def fail(sql: sqlite3.Connection) -> str:
        insert("half-done")(sql)
        raise LookupError("on purpose")

    changes = [fail if number == 50 else insert(f"{number:03}") for number in range(100)]
    outcomes: dict[int, str | Exception] = {}

    async def write(number: int) -> None:
        try:
            outcomes[number] = await file.write(changes[number])
        except LookupError as error:
            outcomes[number] = error

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(write, number)
    kept = [f"{number:03}" for number in range(100) if number != 50]
    assert [one for one in outcomes.values() if isinstance(one, str)] == kept
    assert isinstance(outcomes[50], LookupError)
    assert await file.write(names) == kept


async def test_a_change_that_runs_out_of_its_iterator_is_told_as_an_error(file: PeerFile) -> None:
    def fail(sql: sqlite3.Connection) -> str:
        return next(iter(names(sql)))

    with pytest.raises(RuntimeError), anyio.fail_after(LIMIT_S):
        await file.write(fail)
    assert await file.write(insert("ada")) == "ada"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_no_error_of_a_change_ends_the_thread_that_others_wait_for(
    file: PeerFile, kind: type[BaseException]
) -> None:
    def fail(sql: sqlite3.Connection) -> None:
        insert("half-done")(sql)
        raise kind("on purpose")

    with anyio.fail_after(LIMIT_S):
        with pytest.raises(RuntimeError) as caught:
            await file.write(fail)
        assert isinstance(caught.value.__cause__, kind)
        assert await file.write(names) == []


async def test_a_mistake_in_a_statement_is_not_called_a_failure_of_the_disk(file: PeerFile) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await file.write(lambda sql: sql.execute("SELECT * FROM nothing"))
    with pytest.raises(sqlite3.IntegrityError):
        await file.write(lambda sql: sql.execute("INSERT INTO names (name) VALUES ('ada')"))
    assert await file.write(names) == []


async def test_a_change_that_ends_the_transaction_is_refused_and_the_next_one_works(
    file: PeerFile,
) -> None:
    with pytest.raises(Unavailable), anyio.fail_after(LIMIT_S):
        await file.write(lambda sql: sql.execute("ROLLBACK"))
    assert await file.write(insert("ada")) == "ada"


async def test_changes_are_made_in_the_order_they_were_handed_in(file: PeerFile) -> None:
    seen: list[int] = []
    for number in range(600):
        file.post(lambda _sql, number=number: seen.append(number))
    await file.write(names)
    assert seen == list(range(600))


async def test_a_change_is_made_although_its_awaiter_was_cancelled(file: PeerFile) -> None:
    blocked, free = anyio.Event(), anyio.Event()

    def hold(_sql: sqlite3.Connection) -> None:
        anyio.from_thread.run_sync(blocked.set, token=token)
        anyio.from_thread.run(free.wait, token=token)

    token = anyio.lowlevel.current_token()
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(file.write, hold)
            await blocked.wait()
            tasks.start_soon(file.write, insert("cancelled while it ran or waited"))
            tasks.cancel_scope.cancel()
        free.set()
        assert await file.write(names) == ["cancelled while it ran or waited"]


async def test_awaiters_cancelled_at_any_moment_do_not_end_the_thread(file: PeerFile) -> None:
    with anyio.fail_after(LIMIT_S):
        for turn in range(200):
            with anyio.move_on_after(0.0005 * (turn % 4)):
                await file.write(insert(f"{turn:03}"))
        assert len(await file.write(names)) == 200


async def test_a_posted_change_that_fails_disturbs_nobody(
    file: PeerFile, caplog: pytest.LogCaptureFixture
) -> None:
    file.post(lambda sql: sql.execute("SELECT * FROM nothing"))
    assert await file.write(insert("ada")) == "ada"
    told = [one.levelname for one in caplog.records if one.name == "claudemesh_mcp.peerthread"]
    assert told == ["WARNING"]


async def test_whoever_posts_a_change_is_told_when_it_was_not_made(file: PeerFile) -> None:
    told = anyio.Event()
    file.post(insert("ada"), lambda: pytest.fail("this one was made"))
    file.post(lambda sql: sql.execute("SELECT * FROM nothing"), told.set)
    with anyio.fail_after(LIMIT_S):
        await told.wait()
    assert await file.read(names) == ["ada"]


async def test_a_closed_file_says_so_and_has_finished_what_was_handed_in(path: Path) -> None:
    file = await PeerFile.open(path)
    for number in range(300):
        file.post(insert(f"{number:03}"))
    await file.close()
    await file.close()
    file.post(insert("late"))
    with pytest.raises(Unavailable) as caught:
        await file.write(names)
    assert caught.value.code == "closed"
    assert look(path, "SELECT count(*) FROM names") == [(300,)]


async def test_closing_leaves_one_tidy_file(path: Path) -> None:
    file = await PeerFile.open(path)
    await file.write(insert("ada"))
    await file.close()
    assert {one.name for one in path.parent.iterdir()} == {"peer.db", "peer.db.lock"}


async def test_an_opening_that_is_cancelled_leaves_no_thread_behind(path: Path) -> None:
    with anyio.move_on_after(0):
        await PeerFile.open(path)
    with anyio.fail_after(LIMIT_S):
        again = await PeerFile.open(path)
        await again.write(insert("ada"))
        await again.close()
    assert look(path, "SELECT name FROM names") == [("ada",)]


@pytest.mark.parametrize(
    "content", [b"no database at all" * 400, b"SQLite format 3\0" + bytes(4080), b"S"]
)
async def test_a_damaged_file_is_refused_and_stays_as_it_is(path: Path, content: bytes) -> None:
    overwrite(path, content)
    assert await refused(path, Invalid) == "database_damaged"
    assert content_of(path) == content


async def test_a_file_damaged_in_the_middle_is_refused_when_it_is_met(path: Path) -> None:
    file = await PeerFile.open(path)
    for number in range(2000):
        file.post(insert(f"{number:05}" * 20))
    await file.close()
    whole = content_of(path)
    overwrite(path, whole[:8192] + b"\xff" * (len(whole) - 8192))
    broken = await PeerFile.open(path)
    with pytest.raises(Invalid) as caught:
        await broken.write(names)
    assert (caught.value.code, bool(caught.value.hint)) == ("database_damaged", True)
    await broken.close()


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
async def test_a_newer_file_is_refused_and_stays_as_it_is(path: Path, mode: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.execute("CREATE TABLE future (what TEXT)")
    before = content_of(path)
    assert await refused(path, Invalid) == "database_newer"
    assert content_of(path) == before


async def test_a_newer_file_that_a_kill_left_with_a_log_is_refused_and_keeps_it(path: Path) -> None:
    log = path.with_name("peer.db-wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        left = content_of(path), content_of(log)
    overwrite(path, left[0])
    overwrite(log, left[1])
    assert left[1]
    assert await refused(path, Invalid) == "database_newer"
    assert (content_of(path), content_of(log)) == left


async def test_a_database_of_another_program_is_refused_and_stays_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE cookies (what TEXT)")
    before = content_of(path)
    assert await refused(path, Invalid) == "database_damaged"
    assert content_of(path) == before


async def test_an_empty_file_that_a_kill_left_is_made_use_of(path: Path) -> None:
    overwrite(path, b"")
    file = await PeerFile.open(path)
    assert await file.write(insert("ada")) == "ada"
    await file.close()


async def test_a_file_that_can_not_be_made_is_a_typed_error(tmp_path: Path) -> None:
    assert await refused(tmp_path / "nowhere" / "peer.db", Unavailable) == "storage_failed"
    (tmp_path / "folder").mkdir()
    assert await refused(tmp_path / "folder", Unavailable) == "storage_failed"


async def test_two_openings_of_one_file_write_side_by_side(path: Path) -> None:
    one, other = await PeerFile.open(path), await PeerFile.open(path)
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one.write, insert(f"one {number:02}"))
                tasks.start_soon(other.write, insert(f"other {number:02}"))
    assert len(await one.write(names)) == 200
    await one.close()
    await other.close()


async def test_a_file_that_another_process_holds_too_long_is_a_typed_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudemesh_mcp.peerfile.BUSY_TIMEOUT_S", 0.01)
    file = await PeerFile.open(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable) as caught:
            await file.write(insert("ada"))
        other.execute("ROLLBACK")
    assert caught.value.code == "locked"
    assert await file.write(insert("ada")) == "ada"
    await file.close()
