"""The database file: private, and refused untouched when it is not ours to open."""

import hashlib
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from claudemesh_broker.datafile import open_datafile
from claudemesh_broker.migrations import DATA_VERSION
from claudemesh_wire.errors import MeshError

PAGE_BYTES = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "broker.sqlite3"


def open_and_close(path: Path) -> None:
    made = open_datafile(path)
    made.reader.close()
    made.writer.close()


def content(path: Path) -> dict[str, str]:
    """Give a digest of the files that hold data; -shm is an index that SQLite remakes."""
    files = (path, path.with_name(f"{path.name}-wal"))
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.exists()}


def refused(path: Path) -> str:
    before = content(path)
    with pytest.raises(MeshError) as caught:
        open_and_close(path)
    assert content(path) == before
    assert caught.value.hint
    return caught.value.code


def make_as_if_killed(path: Path) -> None:
    """Leave a database with a log beside it, as a broker does that is killed."""
    whole = path.parent.with_name("whole") / path.name
    made = open_datafile(whole)
    made.writer.executemany(
        "INSERT INTO envelopes VALUES (?, x'00', x'00', x'00', ?)",
        [(number, bytes(3_000)) for number in range(200)],
    )
    made.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    made.writer.execute("INSERT INTO meta VALUES ('last', 'row')")
    path.parent.mkdir(0o700)
    for file in content(whole):
        shutil.copy(whole.with_name(file), path.with_name(file))
    made.reader.close()
    made.writer.close()


def test_folder_and_files_are_for_their_owner_only(path: Path) -> None:
    made = open_datafile(path)
    made.writer.execute("INSERT INTO meta VALUES ('a', 'row')")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 3
    made.reader.close()
    made.writer.close()


def test_a_folder_that_others_can_enter_is_refused(path: Path) -> None:
    path.parent.mkdir(0o755)
    assert refused(path) == "wrong_mode"


def test_a_file_in_place_of_the_folder_is_refused(path: Path) -> None:
    path.parent.touch()
    assert refused(path / "inner.sqlite3") in {"not_a_folder", "storage_failed"}


def test_what_a_killed_broker_left_is_opened(path: Path) -> None:
    make_as_if_killed(path)
    made = open_datafile(path)
    assert made.reader.execute("SELECT value FROM meta").fetchone()[0] == "row"
    made.reader.close()
    made.writer.close()


def test_an_empty_file_is_made_a_database(path: Path) -> None:
    path.parent.mkdir(0o700)
    path.touch(0o600)
    open_and_close(path)


def garbage(path: Path) -> None:
    path.parent.mkdir(0o700)
    path.write_bytes(b"these are not the bytes of a database" * 200)


def a_short_file(path: Path) -> None:
    open_and_close(path)
    path.write_bytes(path.read_bytes()[: PAGE_BYTES + 100])


def a_header_without_pages(path: Path) -> None:
    open_and_close(path)
    path.write_bytes(path.read_bytes()[:100])


def a_broken_schema(path: Path) -> None:
    open_and_close(path)
    whole = bytearray(path.read_bytes())
    whole[100:200] = bytes(range(100))
    path.write_bytes(whole)


def a_broken_page_after_a_kill(path: Path) -> None:
    make_as_if_killed(path)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // PAGE_BYTES // 2 * PAGE_BYTES
    whole[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(whole)


def a_log_without_its_database(path: Path) -> None:
    make_as_if_killed(path)
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [
        garbage,
        a_short_file,
        a_header_without_pages,
        a_broken_schema,
        a_broken_page_after_a_kill,
        a_log_without_its_database,
    ],
)
def test_a_damaged_database_is_refused_and_left_as_it_was(
    path: Path, damage: Callable[[Path], None]
) -> None:
    damage(path)
    assert refused(path) == "data_corrupt"


def test_a_newer_database_is_refused_and_left_as_it_was(path: Path) -> None:
    open_and_close(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {DATA_VERSION + 1}")
    assert refused(path) == "data_newer"


def test_a_newer_database_whose_version_is_still_in_the_log_is_refused(path: Path) -> None:
    make_as_if_killed(path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA wal_autocheckpoint = 0")
        newer.execute(f"PRAGMA user_version = {DATA_VERSION + 1}")
        killed = path.parent.with_name("killed") / path.name
        killed.parent.mkdir(0o700)
        for file in content(path):
            shutil.copy(path.with_name(file), killed.with_name(file))
    assert refused(killed) == "data_newer"


def test_the_database_of_another_program_is_refused_and_left_as_it_was(path: Path) -> None:
    path.parent.mkdir(0o700)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (a)")
    assert refused(path) == "data_foreign"
