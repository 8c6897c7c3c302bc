"""Migrations: every earlier version's file is brought to this version's tables, or refused."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from claudemesh_broker.datafile import open_datafile
from claudemesh_broker.migrations import (
    DATA_VERSION,
    Migration,
    applied_checksums,
    in_order,
    migrate,
    released,
)
from claudemesh_wire import DATA_VERSION as KNOWN_TO_SESSIONS
from claudemesh_wire.errors import Conflict

FILES = Path(__file__).parent / "data"
INTO_NOWHERE = "INSERT INTO nowhere VALUES (1);\n"
NEXT = Migration(DATA_VERSION + 1, "next", "CREATE TABLE later (id INTEGER);\n")


def tables(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {(name, " ".join(sql.split())) for name, sql in rows}


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as database:
        names = [name for name, sql in tables(path) if sql.startswith("CREATE TABLE")]
        return {
            name: database.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()  # noqa: S608
            for name in names
            if name not in {"migrations", "sqlite_sequence"}
        }


def open_and_close(path: Path, steps: tuple[Migration, ...] | None = None) -> None:
    made = open_datafile(path, steps)
    made.reader.close()
    made.writer.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    path = tmp_path / "fresh" / "broker.sqlite3"
    open_and_close(path)
    return path


@pytest.mark.parametrize("version", range(1, DATA_VERSION + 1))
def test_the_file_of_every_earlier_version_comes_up_to_date(
    version: int, tmp_path: Path, fresh: Path
) -> None:
    checked_in = FILES / f"v{version}.sqlite3"
    assert checked_in.exists(), "make it with tests/broker/data/make.py before the release"
    tmp_path.chmod(0o700)
    path = tmp_path / "broker.sqlite3"
    shutil.copyfile(checked_in, path)
    before = contents(path)
    open_and_close(path)
    assert tables(path) == tables(fresh)
    after = contents(path)
    for table, rows in before.items():
        assert len(after[table]) == len(rows) == 1, table


def test_sessions_and_broker_agree_on_the_data_version() -> None:
    assert DATA_VERSION == KNOWN_TO_SESSIONS


def test_a_file_remembers_each_migration_and_its_version(fresh: Path) -> None:
    with closing(sqlite3.connect(fresh)) as database:
        assert applied_checksums(database) == {step.number: step.checksum for step in released()}
        assert database.execute("PRAGMA user_version").fetchone() == (DATA_VERSION,)


def test_a_migration_that_was_edited_after_its_release_is_refused(fresh: Path) -> None:
    before = fresh.read_bytes()
    *others, last = released()
    edited = replace(last, text=last.text + "-- one more remark\n")
    with pytest.raises(Conflict) as caught:
        open_and_close(fresh, (*others, edited))
    assert caught.value.code == "migration_changed"
    assert fresh.read_bytes() == before


def test_a_later_migration_is_applied_once(fresh: Path) -> None:
    for _ in range(2):
        open_and_close(fresh, (*released(), NEXT))
    with closing(sqlite3.connect(fresh)) as database:
        assert database.execute("SELECT count(*) FROM later").fetchone() == (0,)


def test_a_migration_that_fails_changes_nothing(fresh: Path) -> None:
    before = tables(fresh)
    broken = replace(NEXT, text=NEXT.text + INTO_NOWHERE)
    with closing(sqlite3.connect(fresh, isolation_level=None)) as database:
        with pytest.raises(sqlite3.OperationalError):
            migrate(database, (*released(), broken))
        assert not database.in_transaction
        assert database.execute("PRAGMA user_version").fetchone() == (DATA_VERSION,)
    assert tables(fresh) == before


def test_a_statement_may_hold_semicolons_in_texts_and_triggers() -> None:
    text = (
        "-- a remark; with a semicolon\nCREATE TABLE t (a TEXT DEFAULT ';');\n"
        "CREATE TRIGGER u AFTER INSERT ON t BEGIN\n  DELETE FROM t;\nEND;\n"
    )
    assert len(list(Migration(1, "one", text).statements())) == 2


@pytest.mark.parametrize(
    "names",
    [["0002_a.sql"], ["0001_a.sql", "0003_b.sql"], ["0001_a.sql", "0001_b.sql"], ["one.sql"]],
)
def test_numbers_are_given_once_and_without_gaps(names: list[str]) -> None:
    with pytest.raises(ValueError, match="migration"):
        in_order((name, "") for name in names)
