"""What is not to be shown any more: what its sender has superseded, and what is for another commit.

``inbox.py`` notes which message supersedes which; ``openrows.py`` asks before it hands anything to
a route, so that no route has to. What is withheld stays in the file, for ``history.py``, and its
sender is told. Every function but ``head_of`` is one change of a peer's file, and the standard
library is all that this module imports.

Columns of ``inbox``: ``supersedes`` and ``git_sha`` are what the sender sealed with the text,
``superseded_by`` the later message that took a row's place, ``amends`` that what a row supersedes
may have been shown, ``withheld`` why a row was not shown.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator

from claudemesh_mcp import reports
from claudemesh_mcp.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

WITHHELD: Final = "withheld"
"""The route of a row that was not shown, and the status that its sender is told."""
SUPERSEDED: Final = "superseded"
STALE: Final = "stale"
NO_CHECKOUT: Final = "no_checkout"
FOLDER: Final = "folder"
"""The fact that says in which folder the peer works; bytes of the path as Latin-1."""
_MOST_BYTES: Final = 4096
_MOST_STEPS: Final = 5
_IN_TABLES: Final = "ref: refs/heads/.invalid"
"""What a newer git has in place of HEAD, for older ones, where it keeps references in tables."""
_SHA_LENGTHS: Final = frozenset({40, 64})
_HEX: Final = frozenset("0123456789abcdef")
# Word for word as the index has it; without the lease SQLite would offer what is shown just now.
_CONDITIONAL: Final = (
    "state <> 'seen' AND (supersedes IS NOT NULL OR superseded_by IS NOT NULL OR git_sha IS NOT"
    " NULL) AND held IS NULL"
    " AND (state = 'waiting' OR (state = 'handed' AND lease_until_ms <= ?))"
)


def stand_in(sql: sqlite3.Connection, folder: str) -> None:
    """Note in which folder the peer works, for whoever offers its messages.

    Args:
        sql: The peer file.
        folder: Its path, perhaps with bytes in it that are no text.
    """
    sql.execute(
        "INSERT INTO facts (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE"
        " SET value = excluded.value WHERE value <> excluded.value",
        (FOLDER, os.fsencode(folder).decode("latin-1")),
    )


def relate(sql: sqlite3.Connection, sender: str, message: str, supersedes: str | None) -> None:
    """Note that a message took the place of an earlier one of the same sender.

    Args:
        sql: The peer file.
        sender: The peer that was proved to have sent the later one; of others nothing is changed.
        message: The later one.
        supersedes: The earlier one, if it named any.
    """
    if supersedes is not None:
        sql.execute(
            "UPDATE inbox SET superseded_by = ? WHERE sender = ? AND id = ?",
            (message, sender, supersedes),
        )


def relate_all(sql: sqlite3.Connection) -> None:
    """Note which rows took whose place, after rows of another peer's file came between them."""
    sql.execute(
        "UPDATE inbox SET superseded_by = later.id FROM inbox AS later"
        " WHERE later.supersedes IS NOT NULL AND inbox.sender = later.sender"
        " AND inbox.id = later.supersedes"
    )


def withhold(sql: sqlite3.Connection, now_ms: int) -> int:
    """Take out of what is open all that is not to be shown any more, and note the receipts.

    Whatever was offered before and not proved to be seen is taken out too: should the evidence of
    that offer still come, it outweighs this.

    Returns:
        How many rows that are.
    """
    rows = sql.execute(
        "SELECT row, sender, id, header_hash, git_sha, supersedes, superseded_by"  # noqa: S608 - a constant
        f" FROM inbox INDEXED BY inbox_conditional WHERE {_CONDITIONAL}",
        (now_ms,),
    ).fetchall()
    head = _Head(sql)
    withheld = 0
    for row in rows:
        reason = SUPERSEDED if row["superseded_by"] else head.objection(row["git_sha"])
        if reason is None:
            _mark(sql, row)
            continue
        withheld += 1
        sql.execute(
            "UPDATE inbox SET state = 'seen', route = ?, withheld = ?, seen_ms = ?, holder = NULL,"
            " lease_until_ms = 0 WHERE row = ?",
            (WITHHELD, reason, now_ms, row["row"]),
        )
        told = (row["sender"], row["id"], row["header_hash"])
        reports.enter(sql, (*told, WITHHELD, "", reason, now_ms))
    return withheld


def _mark(sql: sqlite3.Connection, row: sqlite3.Row) -> None:
    """Mark what takes the place of a message that may have been shown: its reader has to know."""
    if row["supersedes"] is not None:
        sql.execute(
            "UPDATE inbox SET amends = 1 WHERE row = ? AND amends = 0 AND EXISTS (SELECT 1"
            " FROM inbox AS earlier WHERE earlier.sender = ? AND earlier.id = ?"
            " AND earlier.offers > 0)",
            (row["row"], row["sender"], row["supersedes"]),
        )


class _Head:
    """The commit checked out where the peer works, read once and only if a message asks for it.

    Args:
        sql: The peer file.
    """

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql
        self._is_read = False
        self._commit: str | None = None

    def objection(self, wanted: str | None) -> str | None:
        """Say what speaks against a message for a commit; nothing against one for any."""
        if wanted is None:
            return None
        if not self._is_read:
            found = self._sql.execute("SELECT value FROM facts WHERE key = ?", (FOLDER,)).fetchone()
            folder = os.fsdecode(found[0].encode("latin-1")) if found else ""
            self._commit, self._is_read = head_of(folder) if folder else None, True
        if self._commit is None:
            return NO_CHECKOUT
        return None if self._commit.startswith(wanted) else STALE


def head_of(folder: str) -> str | None:
    """Give the commit that is checked out around a folder, as git would; git itself is not run.

    Returns:
        Its hash, SHA-1 or SHA-256; none outside of git, before the first commit, and where what git
        keeps makes no sense.

    Source: gitrepository-layout(5).
    """
    git = next((found for one in _upwards(folder) if (found := _git_folder(one))), None)
    return _commit(git) if git else None


def _upwards(folder: str) -> Iterator[str]:
    here = os.path.abspath(folder)
    yield here
    while (parent := os.path.dirname(here)) != here:
        here = parent
        yield here


def _git_folder(folder: str) -> str | None:
    """Give where git keeps what it knows of the checkout in a folder, if there is one."""
    git = os.path.join(folder, ".git")
    if os.path.isfile(git):  # A linked worktree, or a submodule.
        git = os.path.join(folder, _line(git).removeprefix("gitdir:").strip())
    return git if os.path.isfile(os.path.join(git, "HEAD")) else None


def _commit(git: str) -> str | None:
    # A linked worktree has a HEAD of its own, and the branches of its repository.
    common = os.path.join(git, _line(os.path.join(git, "commondir")))
    look_up = _look_up_in(git)
    name, places = "HEAD", [git]
    for _ in range(_MOST_STEPS):
        said = next((found for one in places if (found := look_up(one, name))), "")
        if not said.startswith("ref:"):
            return said if len(said) in _SHA_LENGTHS and _HEX.issuperset(said) else None
        name, places = said.removeprefix("ref:").strip(), [git, common]
        if not name.startswith("refs/") or ".." in name.split("/"):
            return None
    return None


def _look_up_in(git: str) -> Callable[[str, str], str]:
    if _line(os.path.join(git, "HEAD")) != _IN_TABLES:
        return _in_files
    # A hook starts without it where it can.
    from claudemesh_mcp import reftable

    return reftable.look_up


def _in_files(folder: str, name: str) -> str:
    return _line(os.path.join(folder, name)) or _packed(folder, name)


def _packed(folder: str, name: str) -> str:
    """Give the commit of a branch that has no file of its own."""
    wanted, path = b" " + os.fsencode(name), os.path.join(folder, "packed-refs")
    try:
        if not os.path.isfile(path):
            return ""
        with open(path, "rb") as file:
            for line in file:
                if line.rstrip().endswith(wanted):
                    return line.partition(b" ")[0].decode("ascii", "replace")
    except (OSError, ValueError):
        pass
    return ""


def _line(path: str) -> str:
    """Give the first line of a small file; nothing if it can't be read."""
    try:
        # A pipe of this name would keep whoever opens it.
        if not os.path.isfile(path):
            return ""
        with open(path, "rb") as file:
            return os.fsdecode(file.read(_MOST_BYTES).partition(b"\n")[0].strip())
    except (OSError, ValueError):
        return ""
