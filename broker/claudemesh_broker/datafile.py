"""Opens the broker's SQLite file, or says why it must not be touched.

``store.py`` asks for the two connections. Every check reads only: a file that is refused is left as
it was found.
"""

import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claudemesh_broker.folders import create_private, private_folder, storage_errors
from claudemesh_broker.migrations import APPLICATION_ID, Migration, migrate, released
from claudemesh_broker.sql import is_broken, storage_failure
from claudemesh_wire.errors import Conflict, NotFound, Unavailable

QUICK_CHECK_BYTES: Final = 200 * 1024 * 1024
_MAGIC: Final = b"SQLite format 3\0"
_MINIMUM: Final = (3, 37, 0)
_SETUP: Final = (
    # An ack must mean that the disk has it, also when the power goes.
    "PRAGMA synchronous = FULL",
    # Savepoints keep their journal here; on disk each would cost a file.
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16384",
    # A burst may grow the log to any size; afterwards the disk space comes back.
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA wal_autocheckpoint = 2000",
    "PRAGMA secure_delete = FAST",
)


@dataclass(frozen=True)
class Connections:
    """The one connection that writes and the one that reads."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection


@dataclass(frozen=True)
class Examination:
    """What a database says about itself, read page by page.

    Args:
        broker: The broker that it belongs to; empty when none has claimed it.
        data_version: Of its tables.
    """

    broker: str
    data_version: int


def examine_datafile(path: Path, data_version: int) -> Examination:
    """Read a whole database, also one that a broker works on, and say what it is.

    Args:
        path: The file.
        data_version: The newest data version that this program knows.

    Raises:
        NotFound: ``no_broker_data``: there is none.
        Conflict: ``data_newer``, ``data_foreign``.
        Unavailable: ``data_corrupt``, ``storage_failed``.
    """
    with _said_in_our_words(path), closing(_connect_to_look(path)) as database:
        _check_version(database, path, data_version)
        found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise _corrupt(path, found)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        return Examination(_owner_in(database), version)


def owner_of_datafile(path: Path, data_version: int) -> str:
    """Give the broker that a database belongs to, empty when none has claimed it.

    Raises:
        MeshError: as ``examine_datafile`` lists.
    """
    with _said_in_our_words(path), closing(_connect_to_look(path)) as database:
        _check_version(database, path, data_version)
        return _owner_in(database)


def _owner_in(database: sqlite3.Connection) -> str:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    # A kill may have come before its first table.
    asked = "SELECT value FROM meta WHERE key = 'broker_id'" if version else "SELECT ''"
    row = database.execute(asked).fetchone()
    return row[0] if row else ""


def connect_beside(path: Path) -> sqlite3.Connection:
    """Open a database to read it, beside a broker that may work on it.

    Raises:
        NotFound: ``no_broker_data``: there is none.
    """
    _refuse_none(path)
    # Not as read-only: then SQLite would leave files of its own, where no broker runs.
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None
    )
    database.execute("PRAGMA query_only = ON")
    return database


def _connect_to_look(path: Path) -> sqlite3.Connection:
    _refuse_none(path)
    # Only what a broker has open, or was killed over, has a log.
    return _connect_to_read(path, with_log=path.with_name(f"{path.name}-wal").exists())


def _refuse_none(path: Path) -> None:
    if not _size(path):
        raise NotFound(
            f"There is no broker's database at {path}.",
            "Name the broker's data folder by --data.",
            code="no_broker_data",
        )


def open_datafile(path: Path, steps: Sequence[Migration] | None = None) -> Connections:
    """Open the database of a broker, made or brought to this version's tables if need be.

    Args:
        path: The file; its folder is made too.
        steps: The migrations, when not those of this version.

    Raises:
        Conflict: ``data_newer`` (a later version wrote it), ``data_foreign`` (not a broker's
            file), ``migration_changed``.
        Unavailable: ``data_corrupt``, ``storage_full``, ``storage_failed``.
        Forbidden: the folder is open to others.
    """
    if sqlite3.sqlite_version_info < _MINIMUM:
        raise Unavailable(
            f"SQLite {sqlite3.sqlite_version} is too old; the broker needs 3.37.",
            "Use a Python with a newer SQLite.",
            code="storage_unsuitable",
        )
    known = released() if steps is None else steps
    private_folder(path.parent)
    if not create_private(path):
        check_datafile(path, len(known))
    with _said_in_our_words(path):
        writer = _connect(path)
        try:
            _begin_log(writer, path)
            migrate(writer, known)
            reader = _connect(path)
            reader.execute("PRAGMA query_only = ON")
        except BaseException:
            writer.close()
            raise
    return Connections(writer, reader)


def check_datafile(path: Path, data_version: int) -> None:
    """Refuse a database that this version must not touch; nothing is written.

    Args:
        path: An existing file.
        data_version: The newest data version that this program knows.
    """
    log_bytes = _size(path.with_name(f"{path.name}-wal"))
    with storage_errors(path), path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if not start and not log_bytes:
        return  # A kill between making the file and its first page leaves nothing behind.
    if start != _MAGIC:
        raise _corrupt(path, "it does not start as a database")
    # SQLite empties its log when a file is closed in good order.
    was_killed = log_bytes > 0
    with _said_in_our_words(path), closing(_connect_to_read(path, with_log=was_killed)) as database:
        _check_version(database, path, data_version)
        if was_killed and _size(path) < QUICK_CHECK_BYTES:
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise _corrupt(path, found)


def _check_version(database: sqlite3.Connection, path: Path, data_version: int) -> None:
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise Conflict(
            f"{path} is not the database of a broker.",
            "Move it away, or name another data folder by --data.",
            code="data_foreign",
        )
    if version > data_version:
        raise Conflict(
            f"{path} was written by a newer claudemesh (data version {version};"
            f" this one knows {data_version}).",
            "Update claudemesh, or name another data folder by --data.",
            code="data_newer",
        )


def _connect_to_read(path: Path, *, with_log: bool) -> sqlite3.Connection:
    # Told that nothing changes the file, SQLite puts no files of its own beside it; but then it
    # does not look into a log either.
    how = "mode=ro" if with_log else "immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)


def _connect(path: Path) -> sqlite3.Connection:
    # Each connection is used by one thread only, though not by the one that made it.
    database = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    database.row_factory = sqlite3.Row
    for statement in _SETUP:
        database.execute(statement)
    return database


def _begin_log(database: sqlite3.Connection, path: Path) -> None:
    mode = database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise Unavailable(
            f"The disk of {path} can't hold a write-ahead log.",
            "Put the data folder on a local disk.",
            code="storage_unsuitable",
        )


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - says at once that a missing file has none
    except FileNotFoundError:
        return 0


@contextmanager
def _said_in_our_words(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if is_broken(error):
            raise _corrupt(path, str(error)) from error
        raise storage_failure(error) or error from error


def _corrupt(path: Path, finding: str) -> Unavailable:
    return Unavailable(
        f"{path} is damaged: {finding}.",
        "It was not touched. Put a backup in its place, or move it away to start empty.",
        code="data_corrupt",
    )
