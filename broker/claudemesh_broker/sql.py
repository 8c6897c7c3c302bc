"""The SQL that changes and queries are written with: bound values in, rows out.

``store.py`` hands one ``Sql`` to every change and query. Only this class touches the driver, so
that another database needs another ``Sql`` and no other handler.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from claudemesh_wire.errors import Unavailable

Value = str | int | float | bytes | None
Row = sqlite3.Row

# A quota or a limit on file sizes reaches SQLite as a failed write, not as a full disk.
_FULL: Final = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})
_BROKEN: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_FAILING: Final = (
    "SQLITE_BUSY",
    "SQLITE_CANTOPEN",
    "SQLITE_FULL",
    "SQLITE_IOERR",
    "SQLITE_NOMEM",
    "SQLITE_PERM",
    "SQLITE_PROTOCOL",
    "SQLITE_READONLY",
)


class Sql:
    """One connection inside a transaction that its owner began and will end.

    Statements have ``?`` for every value; no text from outside ever becomes part of one.
    """

    __slots__ = ("_run", "_run_many")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._run = connection.execute
        self._run_many = connection.executemany

    def execute(self, statement: str, /, *values: Value) -> int:
        """Run a statement and give how many rows it changed."""
        return self._run(statement, values).rowcount

    def many(self, statement: str, rows: Iterable[Sequence[Value]], /) -> int:
        """Run a statement once per row of values and give how many rows that changed."""
        return self._run_many(statement, rows).rowcount

    def one(self, statement: str, /, *values: Value) -> Row | None:
        """Give the first row, or ``None``; a ``RETURNING`` statement has run to its end."""
        cursor = self._run(statement, values)
        row: Row | None = cursor.fetchone()
        cursor.close()
        return row

    def all(self, statement: str, /, *values: Value) -> list[Row]:
        """Give all rows; a query without a ``LIMIT`` of its own is for small tables only."""
        return self._run(statement, values).fetchall()

    def value(self, statement: str, /, *values: Value) -> Any:
        """Give the first column of the first row, or ``None``."""
        row = self.one(statement, *values)
        return None if row is None else row[0]


def is_broken(error: sqlite3.Error) -> bool:
    """Tell whether the database file itself is damaged, so that nothing more may be written."""
    return _name(error).startswith(_BROKEN)


def storage_failure(error: sqlite3.Error) -> Unavailable | None:
    """Say in our words that the disk did not do its work, or ``None`` if that is not the cause."""
    name = _name(error)
    if name in _FULL:
        return Unavailable(
            "The disk that holds the broker's data takes no more.",
            "Free some space, or lift the quota; what was accepted before is safe.",
            code="storage_full",
        )
    if name.startswith((*_FAILING, *_BROKEN)):
        return Unavailable(
            f"The broker's storage failed ({name}).",
            "Check the disk; what was accepted before is safe.",
            code="storage_failed",
        )
    return None


def _name(error: sqlite3.Error) -> str:
    # Errors that the driver raises by itself carry no code.
    return getattr(error, "sqlite_errorname", "")
