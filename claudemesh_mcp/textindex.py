"""The full-text index of a peer's file: which words stand in which message.

``history.py`` brings it up to date, in small changes, before it searches; ``inbox.py`` and
``outbox.py`` take out of it what they forget. A message that comes or goes costs nothing here: most
are never searched for.
"""

import re
import sqlite3
import unicodedata
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from claudemesh_wire.content import unpack
from claudemesh_wire.envelope import Refusal
from claudemesh_wire.errors import Unavailable

MOST_AT_ONCE: Final = 256
_MOST_CHARACTERS_AT_ONCE: Final = 512 * 1024
# Contentless: the text stands in its own table already, and once is enough.
_CREATE: Final = (
    "CREATE VIRTUAL TABLE words USING fts5"
    "(text, content = '', columnsize = 0, tokenize = 'unicode61 remove_diacritics 2')"
)
# Scripts that put no space between words: Thai to Lao, Myanmar, Khmer, kana, Han, Hangul.
UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
_TERM: Final = re.compile(r'"(?P<phrase>[^"]*)"?(?P<open>\*?)|(?P<word>[^\s"]+)')
# The index is of no use: it is broken, or this SQLite was built without what reads it.
_UNUSABLE: Final = frozenset({"SQLITE_ERROR", "SQLITE_CORRUPT_VTAB"})
_STALE: Final = -1


@dataclass(frozen=True, slots=True)
class Source:
    """A table whose texts are indexed; two share one index, by odd and even keys.

    Args:
        table: Its name.
        column: Where its text is.
        parity: 0 or 1.
    """

    table: str
    column: str
    parity: int

    def key(self, row: int) -> int:
        """Give the key of a row in the index."""
        return 2 * row + self.parity


RECEIVED: Final = Source("inbox", "text", 0)
SENT: Final = Source("outbox", "plaintext", 1)


@dataclass(frozen=True, slots=True)
class Term:
    """A word or phrase that is searched for.

    Args:
        text: As it was written.
        is_prefix: Whether the last word may go on.
    """

    text: str
    is_prefix: bool = False


def terms(query: str) -> list[Term]:
    """Read what a user searches for: words, "phrases in quotes", begin* of words.

    No text is an error: what is no letter and no digit only separates words, as it does in the
    messages.
    """
    # No encoding carries half a character, and for SQLite a text ends at a zero.
    text = query.encode("utf-8", "replace").decode().replace("\0", " ")
    found: list[Term] = []
    for match in _TERM.finditer(text):
        word = match["word"] or ""
        is_prefix = bool(match["open"]) or word.endswith("*")
        term = Term(match["phrase"] or word.rstrip("*"), is_prefix)
        if any(_is_of_a_word(character) for character in term.text):
            found.append(term)
    return found


def expression(wanted: Iterable[Term]) -> str:
    """Write terms as FTS5 reads them: each in quotes, so that none of it is syntax."""
    quoted = (('"' + spaced(term.text).replace('"', '""') + '"', term) for term in wanted)
    return " AND ".join(f"{text}*" if term.is_prefix else text for text, term in quoted)


def spaced(text: str) -> str:
    """Make each character of a script without spaces a word, so that any part can be found."""
    return text if text.isascii() else UNSPACED.sub(r" \g<0> ", text)


def _is_of_a_word(character: str) -> bool:
    """Tell what the tokenizer takes for a part of a word."""
    return character.isalnum() or unicodedata.category(character) == "Co"


def sent_text(plaintext: bytes) -> str:
    """Give the text of a message of one's own."""
    try:
        return unpack(plaintext)[1]
    except Refusal:  # Not a message of a kind that has a text.
        return ""


def is_current(sql: sqlite3.Connection) -> bool:
    """Tell whether every message is in the index."""
    last = dict(sql.execute("SELECT source, last FROM indexed").fetchall())
    return all(
        last.get(source.table, _STALE) >= _highest(sql, source) for source in (RECEIVED, SENT)
    )


def index_some(sql: sqlite3.Connection) -> bool:
    """Index the next messages that are not yet, as one change that holds nobody up for long.

    Returns:
        Whether there may be more.

    Raises:
        Unavailable: ``no_search``: this SQLite was built without full-text search.
    """
    _prepare(sql)
    return any(_index_some_of(sql, source) for source in (RECEIVED, SENT))


def _prepare(sql: sqlite3.Connection) -> None:
    last = dict(sql.execute("SELECT source, last FROM indexed").fetchall())
    if len(last) == 2 and _STALE not in last.values():  # noqa: PLR2004 - received and sent
        return
    try:
        sql.execute("DROP TABLE IF EXISTS words")
        sql.execute(_CREATE)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") != "SQLITE_ERROR":
            raise
        raise Unavailable(
            "The SQLite of this Python was built without full-text search (FTS5).",
            "Leave query out, or install claudemesh under another Python.",
            code="no_search",
        ) from error
    for source in (RECEIVED, SENT):
        sql.execute("INSERT OR REPLACE INTO indexed (source, last) VALUES (?, 0)", (source.table,))


def _index_some_of(sql: sqlite3.Connection, source: Source) -> bool:
    done, characters, last = 0, 0, _last(sql, source)
    query = (
        f"SELECT row, {source.column} AS text FROM {source.table}"  # noqa: S608 - constants
        " WHERE row > ? ORDER BY row LIMIT ?"
    )
    with closing(sql.execute(query, (last, MOST_AT_ONCE))) as rows:
        for row in rows:
            text = _words(row["text"])
            if text:
                sql.execute(
                    "INSERT INTO words (rowid, text) VALUES (?, ?)", (source.key(row["row"]), text)
                )
            done, characters, last = done + 1, characters + len(text), row["row"]
            if characters > _MOST_CHARACTERS_AT_ONCE:
                break
    if done:
        sql.execute("UPDATE indexed SET last = ? WHERE source = ?", (last, source.table))
    return done > 0


def forget(sql: sqlite3.Connection, source: Source, gone: Iterable[sqlite3.Row]) -> None:
    """Take rows out of the index that were deleted from their table in the same change.

    Args:
        sql: The peer file.
        source: Their table.
        gone: Each with its ``row`` and ``text``.
    """
    last = _last(sql, source)
    if last <= 0:
        return
    try:
        for row in gone:
            text = _words(row["text"])
            if text and row["row"] <= last:
                sql.execute(
                    "INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)",
                    (source.key(row["row"]), text),
                )
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "") not in _UNUSABLE:
            raise
        # It must not keep a session from its messages: the next search makes it anew.
        sql.execute("UPDATE indexed SET last = ?", (_STALE,))
        return
    # Numbers of the last rows are given again once those are gone.
    kept = min(last, _highest(sql, source))
    sql.execute("UPDATE indexed SET last = ? WHERE source = ?", (kept, source.table))


def make_anew(sql: sqlite3.Connection) -> None:
    """Say that the index is of no use, so that the next search makes it anew."""
    sql.execute("UPDATE indexed SET last = ?", (_STALE,))


def _words(kept: str | bytes | None) -> str:
    if kept is None:
        return ""
    return spaced(kept if isinstance(kept, str) else sent_text(kept))


def _last(sql: sqlite3.Connection, source: Source) -> int:
    found = sql.execute("SELECT last FROM indexed WHERE source = ?", (source.table,)).fetchone()
    return found["last"] if found else 0


def _highest(sql: sqlite3.Connection, source: Source) -> int:
    (highest,) = sql.execute(
        f"SELECT coalesce(max(row), 0) FROM {source.table}"  # noqa: S608 - a constant
    ).fetchone()
    return int(highest)
