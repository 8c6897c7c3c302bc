"""The index of words: it follows the messages, survives a kill, and takes any text as a query."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_mcp import history, inbox, outbox, peerfile, textindex
from claudemesh_mcp.peerfile import PeerFile
from claudemesh_mcp.shown_history import EXCERPT, excerpt
from claudemesh_mcp.textindex import MOST_AT_ONCE, RECEIVED, SENT, Term
from claudemesh_wire.content import ContentFields, pack
from claudemesh_wire.errors import Unavailable
from tests.wire.world import NOW

# Indexes two batches and is killed in the middle of the third.
KILLED = """
import os, signal, sys
from pathlib import Path
from claudemesh_mcp import peerfile, textindex
sql = peerfile._connect(Path(sys.argv[1]))
for number in range(3):
    sql.execute("BEGIN IMMEDIATE")
    assert textindex.index_some(sql)
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    sql.execute("COMMIT")
"""


def receive(sql: sqlite3.Connection, text: str, at_ms: int = NOW) -> int:
    """Enter a message that was received and seen; gives its row."""
    (count,) = sql.execute("SELECT coalesce(max(row), 0) FROM inbox").fetchone()
    cursor = sql.execute(
        "INSERT INTO inbox (sender, id, header_hash, certificate, conv, seq, handle, member,"
        " member_name, text, stripped, priority, e2e, sent_ms, received_ms, expires_ms, state)"
        " VALUES ('p_ada', ?, x'', x'', 'd_', 1, 'ada', 'mem_', 'max', ?, 0, 'next', 1, ?, ?, ?,"
        " 'seen')",
        (f"msg_{count}", text, at_ms, at_ms, at_ms),
    )
    return cursor.lastrowid or 0


def send(sql: sqlite3.Connection, text: str, at_ms: int = NOW) -> None:
    """Enter a message that was sent and accepted."""
    (count,) = sql.execute("SELECT coalesce(max(row), 0) FROM outbox").fetchone()
    sql.execute(
        "INSERT INTO outbox (id, conv, seq, request_hash, addresses, plaintext, header_hash,"
        " audience, resolved_ms, ttl_ms, created_ms, sealings, state)"
        " VALUES (?, 'd_', 1, x'', '[]', ?, x'', '[]', 0, 0, ?, 1, 'accepted')",
        (f"msg_s{count}", pack(ContentFields(), text), at_ms),
    )


def index(sql: sqlite3.Connection) -> int:
    """Index everything; gives in how many changes."""
    changes = 0
    while textindex.index_some(sql):
        changes += 1
    return changes


def found(sql: sqlite3.Connection, query: str) -> list[tuple[str, int]]:
    """Search; gives table and row of what was found."""
    hits = history._find(sql, history.wanted(query, None, None, None, 100)).hits
    return [(hit.source.table, hit.row["row"]) for hit in hits]


def test_what_comes_later_is_indexed_later_and_once(sql: sqlite3.Connection) -> None:
    assert textindex.is_current(sql) is False
    index(sql)
    assert textindex.is_current(sql)
    receive(sql, "first word")
    send(sql, "second word")
    assert textindex.is_current(sql) is False
    assert index(sql) == 2
    assert index(sql) == 0
    assert sorted(found(sql, "word")) == [("inbox", 1), ("outbox", 1)]


def test_much_is_indexed_in_many_small_changes(sql: sqlite3.Connection) -> None:
    sql.execute("BEGIN")
    for number in range(2 * MOST_AT_ONCE + 1):
        receive(sql, f"word {number}")
    for _ in range(4):
        receive(sql, "long " * 50_000)
    sql.execute("COMMIT")
    assert index(sql) == 2 + 2
    assert len(found(sql, "long")) == 4


def test_a_kill_between_and_within_the_changes_loses_and_doubles_nothing(path: Path) -> None:
    rows = 4 * MOST_AT_ONCE
    with closing(peerfile._connect(path)) as sql:
        sql.execute("BEGIN")
        for number in range(rows):
            receive(sql, f"word number{number}")
        sql.execute("COMMIT")
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -9
    with closing(peerfile._connect(path)) as sql:
        assert textindex._last(sql, RECEIVED) == 2 * MOST_AT_ONCE
        assert index(sql) == 2
        counted = sql.execute("SELECT count(*) FROM words WHERE words MATCH 'word'").fetchone()
        assert counted[0] == rows
        assert [found(sql, f"number{number}") for number in (0, 255, 256, 513, rows - 1)] == [
            [("inbox", number + 1)] for number in (0, 255, 256, 513, rows - 1)
        ]


def test_what_is_forgotten_leaves_the_index_and_its_number_can_be_given_again(
    sql: sqlite3.Connection,
) -> None:
    receive(sql, "old word")
    send(sql, "old word")
    index(sql)
    receive(sql, "old word, not indexed yet")
    late = NOW + inbox.KEPT_MS + 1
    assert not inbox.forget_old(sql, late)
    assert not outbox.forget_old(sql, late)
    assert sql.execute("SELECT rowid FROM words WHERE words MATCH 'word'").fetchall() == []
    assert receive(sql, "young letters", late) == 1
    index(sql)
    assert found(sql, "letters") == [("inbox", 1)]
    assert found(sql, "word") == []


def test_a_long_absence_is_forgotten_in_several_changes(sql: sqlite3.Connection) -> None:
    for _ in range(MOST_AT_ONCE + 1):
        receive(sql, "old word")
    index(sql)
    late = NOW + inbox.KEPT_MS + 1
    assert inbox.forget_old(sql, late)
    assert len(found(sql, "word")) == 1
    assert not inbox.forget_old(sql, late)
    assert found(sql, "word") == []


QUERIES = st.text(max_size=200) | st.lists(
    st.sampled_from(
        ['"', "*", "(", ")", "AND", "OR", "NOT", "NEAR(", "text:", "^", "+", "-", "{", "word",
         "words*", "\0", "\ud800", "会議", "é", "e\u0301", " ", "'", ";", "\\", ".", "🚀", "\ue000"]
    ),
    max_size=40,
).map("".join)  # fmt: skip


@given(QUERIES)
def test_no_text_is_an_error_as_a_query(query: str) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        sql.row_factory = sqlite3.Row
        peerfile._migrate(sql)
        receive(sql, "a word")
        send(sql, "a word")
        index(sql)
        found(sql, query[:200])


@given(st.text(min_size=1, max_size=40).filter(lambda text: text.isascii() and '"' not in text))
def test_a_text_is_found_by_itself_in_quotes(text: str) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        sql.row_factory = sqlite3.Row
        peerfile._migrate(sql)
        send(sql, f"before {text} behind")
        index(sql)
        has_words = any(character.isalnum() for character in text)
        assert found(sql, f'"{text}"') == ([("outbox", 1)] if has_words else [])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("two words", [Term("two"), Term("words")]),
        ('a "whole phrase" here', [Term("a"), Term("whole phrase"), Term("here")]),
        ('"never closed', [Term("never closed")]),
        ('begin* "whole phr"*', [Term("begin", is_prefix=True), Term("whole phr", is_prefix=True)]),
        ('-> ... ** "" \'', []),
        ("x->y", [Term("x->y")]),
    ],
)
def test_a_query_is_words_phrases_and_beginnings(query: str, expected: list[Term]) -> None:
    assert textindex.terms(query) == expected


def test_a_file_of_the_first_version_is_searched_as_far_as_it_kept_texts(path: Path) -> None:
    first = Path(peerfile.__file__).with_name("peerfile.sql").read_text("utf-8")
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.executescript(first)
        old.execute("PRAGMA user_version = 1")
        receive(old, "a word received")
        for text in ("a word sent", "a word lost"):
            send(old, text)
        old.execute("UPDATE outbox SET plaintext = NULL WHERE row = 2")
    path.chmod(0o600)
    with closing(peerfile._connect(path)) as sql:
        index(sql)
        assert sorted(found(sql, "word")) == [("inbox", 1), ("outbox", 1)]
        assert sorted(found(sql, "")) == [("inbox", 1), ("outbox", 1)]


async def test_an_index_that_is_broken_is_made_anew(path: Path) -> None:
    spoilt = "UPDATE words_data SET block = x'ffff' WHERE id > 10"
    file = await PeerFile.open(path)
    await file.write(lambda sql: receive(sql, "a word"))
    wanted = history.wanted("word", None, None, None, 9)
    assert len((await history.find(file, wanted)).hits) == 1
    await file.write(lambda sql: sql.execute(spoilt).rowcount)
    await file.close()
    file = await PeerFile.open(path)
    assert len((await history.find(file, wanted)).hits) == 1
    await file.close()


def test_a_broken_index_does_not_keep_old_messages_from_going(sql: sqlite3.Connection) -> None:
    receive(sql, "a word")
    send(sql, "a word")
    index(sql)
    sql.execute("DROP TABLE words")
    late = NOW + inbox.KEPT_MS + 1
    inbox.forget_old(sql, late)
    outbox.forget_old(sql, late)
    assert sql.execute("SELECT count(*) FROM inbox").fetchone()[0] == 0
    receive(sql, "a new word", late)
    index(sql)
    assert found(sql, "word") == [("inbox", 1)]
    assert textindex._last(sql, SENT) == 0


async def test_without_full_text_search_the_latest_are_still_shown(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textindex, "_CREATE", "CREATE VIRTUAL TABLE words USING no_such_module(a)")
    file = await PeerFile.open(path)
    await file.write(lambda sql: receive(sql, "a word"))
    latest = await history.find(file, history.wanted("", None, None, None, 9))
    assert len(latest.hits) == 1
    with pytest.raises(Unavailable) as caught:
        await history.find(file, history.wanted("word", None, None, None, 9))
    assert (caught.value.code, bool(caught.value.hint)) == ("no_search", True)
    await file.close()


@given(st.text(max_size=2000), st.text(min_size=1, max_size=20))
def test_an_excerpt_is_short_and_any_text_has_one(text: str, word: str) -> None:
    assert len(excerpt(text, textindex.terms(word))) <= EXCERPT


@pytest.mark.parametrize(
    ("said", "query"),
    [
        ("Ångström", "angstrom"),
        ("new-build", '"new build"'),
        ("三時に会議", "会議"),
        ("Εἰσαγωγή", "εισ*"),
    ],
)
def test_an_excerpt_holds_what_was_searched_for(said: str, query: str) -> None:
    text = f"{'é filler ' * 200}{said}{' filler' * 200}"
    assert said in excerpt(text, textindex.terms(query))
