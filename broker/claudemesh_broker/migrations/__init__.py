"""Brings a database to this version's tables by numbered ``.sql`` files, each applied once.

``datafile.py`` calls it on a database that passed its checks. The checksum of every applied file is
kept in the database, so that a file edited after its release is refused instead of half believed.
"""

import hashlib
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Final

from claudemesh_wire.errors import Conflict

APPLICATION_ID: Final = 0x434D6231
"""Marks a SQLite file as ours: ``CMb1``."""

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_RECORD: Final = """
CREATE TABLE IF NOT EXISTS migrations (
    number   INTEGER PRIMARY KEY,
    name     TEXT NOT NULL,
    checksum TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True)
class Migration:
    """One step of the tables, and the text that takes it."""

    number: int
    name: str
    text: str

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self) -> Iterator[str]:
        """Give the statements one by one: the driver's own script runner would commit before."""
        pending = ""
        for line in self.text.splitlines(keepends=True):
            pending += line
            if sqlite3.complete_statement(pending):
                yield pending
                pending = ""


def released() -> tuple[Migration, ...]:
    """Give the migrations of this version, in order."""
    return in_order(
        (file.name, file.read_text("utf-8"))
        for file in resources.files(__name__).iterdir()
        if file.name.endswith(".sql")
    )


def in_order(files: Iterable[tuple[str, str]]) -> tuple[Migration, ...]:
    """Read migrations from (file name, text) pairs.

    Raises:
        ValueError: a name is not ``NNNN_name.sql``, or a number is missing or used twice.
    """
    steps: list[Migration] = []
    for position, (name, text) in enumerate(sorted(files), 1):
        match = _FILE_NAME.fullmatch(name)
        if not match or int(match[1]) != position:
            raise ValueError(f"migration {position} is not {name}")
        steps.append(Migration(position, match[2], text))
    return tuple(steps)


def migrate(database: sqlite3.Connection, steps: Sequence[Migration]) -> None:
    """Apply what this database lacks, each step in a transaction of its own.

    Args:
        database: A connection without a transaction of its own.
        steps: All migrations from the first on.

    Raises:
        Conflict: ``migration_changed``: an applied file is not the one this version has.
    """
    applied = applied_checksums(database)
    for step in steps:
        if step.number not in applied:
            _apply(database, step)
        elif applied[step.number] != step.checksum:
            raise Conflict(
                f"Migration {step.number} ({step.name}) of this database is another one.",
                "Install an unaltered release; the data was not touched.",
                code="migration_changed",
            )


def applied_checksums(database: sqlite3.Connection) -> dict[int, str]:
    """Give the checksum of every migration this database has had."""
    known = "SELECT 1 FROM sqlite_master WHERE name = 'migrations'"
    if database.execute(known).fetchone() is None:
        return {}
    return dict(database.execute("SELECT number, checksum FROM migrations").fetchall())


def _apply(database: sqlite3.Connection, step: Migration) -> None:
    database.execute("BEGIN IMMEDIATE")
    try:
        database.execute(_RECORD)
        for statement in step.statements():
            database.execute(statement)
        database.execute(
            "INSERT INTO migrations (number, name, checksum) VALUES (?, ?, ?)",
            (step.number, step.name, step.checksum),
        )
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {step.number}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


DATA_VERSION: Final = len(released())
