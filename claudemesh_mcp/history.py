"""Searches what a peer has sent and received, in its own file, newest first.

``sdk.py`` asks; ``textindex.py`` finds the words and ``shown_history.py`` shows what was found.
Only what was shown before is searched: a message that ``inbox`` has not handed out yet, or that is
held, is counted or passed over, so that each text still reaches its reader exactly once.
"""

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from claudemesh_mcp import textindex
from claudemesh_mcp.inbox import HEIR
from claudemesh_mcp.peerfile import PeerFile
from claudemesh_mcp.results import rfc3339
from claudemesh_mcp.textindex import RECEIVED, SENT, Source, Term
from claudemesh_wire.address import Address, AddressKind, parse
from claudemesh_wire.errors import Invalid, NotFound, TooMuch

MOST: Final = 100
MAX_QUERY: Final = 200
_LAST: Final = 2**62
_PLACE: Final = re.compile(r"(?P<time>[^#]+)#(?P<key>\d{1,18})", re.ASCII)
_MESSAGE: Final = re.compile(r"msg_[a-z2-7]{26}", re.ASCII)
_WORDS: Final = "row IN (SELECT rowid / 2 FROM words WHERE words MATCH ? AND rowid % 2 = {parity})"
# What an heir has instead, this peer has not shown.
_SEEN: Final = f"state = 'seen' AND held IS NULL AND route IS NOT '{HEIR}'"
_UNSEEN: Final = "state <> 'seen' AND held IS NULL"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a message stands among all: they are ordered by time, and by key within a time."""

    at_ms: int
    key: int = 0

    def __str__(self) -> str:
        """Write it so that ``wanted`` reads it."""
        return f"{rfc3339(self.at_ms)}#{self.key}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for.

    Args:
        terms: Words that all must be there.
        searches: Whether there was a query; one without a word finds nothing.
        partner: With whom.
        thread: In which thread.
        before: A place, or the id of a message, that all must be older than.
        limit: At most so many.
    """

    terms: tuple[Term, ...] = ()
    searches: bool = False
    partner: Address | None = None
    thread: str | None = None
    before: Place | str = Place(_LAST)
    limit: int = 20


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that was found: its place, its table, its row there."""

    place: Place
    source: Source
    row: sqlite3.Row


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    Args:
        hits: Newest first.
        more: Whether there are older ones.
        unread: How many fit that were not shown yet.
    """

    hits: list[Hit]
    more: bool
    unread: int


def wanted(
    query: str, partner: str | None, before: str | None, thread: str | None, limit: int
) -> Wanted:
    """Read what a user searches for.

    Raises:
        Invalid: ``partner`` is no address, ``before`` neither a time nor a message's id
            (``bad_before``), or ``limit`` is out of range.
        TooMuch: the query is longer than 200 characters.
    """
    if not 1 <= limit <= MOST:
        raise Invalid(f"limit is 1 to {MOST}.", "Use before to go on.", code="bad_limit")
    if len(query) > MAX_QUERY:
        raise TooMuch(f"A query has at most {MAX_QUERY} characters.", "Search for less of it.")
    return Wanted(
        terms=tuple(textindex.terms(query)),
        searches=bool(query.strip()),
        partner=parse(partner) if partner else None,
        thread=thread,
        before=_place(before) if before else Place(_LAST),
        limit=limit,
    )


async def find(file: PeerFile, what: Wanted) -> Found:
    """Find messages; what is not in the index yet is indexed first, a few at a time.

    Raises:
        NotFound: there is no message of the id given as ``before``.
        Unavailable: ``no_search``: words can't be searched for by this SQLite.
    """
    if not what.searches:
        return await file.read(lambda sql: _find(sql, what))
    await _index(file)
    try:
        return await file.read(lambda sql: _find(sql, what))
    except Invalid as error:
        if error.code != "database_damaged":
            raise
        # The index alone may be what is broken, and that is made anew.
        await file.write(textindex.make_anew, lazily=True)
    await _index(file)
    return await file.read(lambda sql: _find(sql, what))


async def _index(file: PeerFile) -> None:
    if not await file.read(textindex.is_current):
        while await file.write(textindex.index_some, lazily=True):
            pass


def _find(sql: sqlite3.Connection, what: Wanted) -> Found:
    if what.searches and not what.terms:
        return Found([], more=False, unread=0)
    before = _found_place(sql, what.before) if isinstance(what.before, str) else what.before
    places = [
        *_places(sql, RECEIVED, _received(what, _SEEN), before, what.limit + 1),
        *_places(sql, SENT, _sent(what), before, what.limit + 1),
    ]
    places.sort(reverse=True)
    unread = _received(what, _UNSEEN)
    (count,) = sql.execute(
        f"SELECT count(*) FROM inbox WHERE {unread.sql}",  # noqa: S608 - constants
        unread.values,
    ).fetchone()
    hits = [_hit(sql, place) for place in places[: what.limit]]
    return Found(hits, len(places) > what.limit, count)


def _hit(sql: sqlite3.Connection, place: Place) -> Hit:
    source = SENT if place.key % 2 else RECEIVED
    row = sql.execute(
        f"SELECT * FROM {source.table} WHERE row = ?",  # noqa: S608 - a constant
        (place.key // 2,),
    ).fetchone()
    return Hit(place, source, row)


@dataclass(frozen=True, slots=True)
class _Condition:
    """Terms of a WHERE, and the values bound in them."""

    sql: str
    values: Sequence[Any]


_TIMES: Final = {RECEIVED.table: "received_ms", SENT.table: "created_ms"}


def _places(
    sql: sqlite3.Connection, source: Source, condition: _Condition, before: Place, limit: int
) -> list[Place]:
    time = _TIMES[source.table]
    # Of the keys below that one, the rows below this one.
    row = (before.key + 1 - source.parity) // 2
    rows = sql.execute(
        f"SELECT row, {time} AS at_ms FROM {source.table} WHERE {condition.sql}"  # noqa: S608 - constants
        f" AND ({time}, row) < (?, ?) ORDER BY {time} DESC, row DESC LIMIT ?",
        (*condition.values, before.at_ms, row, limit),
    ).fetchall()
    return [Place(row["at_ms"], source.key(row["row"])) for row in rows]


def _received(what: Wanted, state: str) -> _Condition:
    with_whom = _with_whom(what.partner, "sender", "handle", "member_name")
    return _narrowed(what, RECEIVED, _Condition(f"{state} AND {with_whom.sql}", with_whom.values))


def _sent(what: Wanted) -> _Condition:
    one = _with_whom(what.partner, *(f"json_extract(value, '$[{place}]')" for place in range(3)))
    among = f"EXISTS (SELECT 1 FROM json_each(outbox.audience) WHERE {one.sql})"  # noqa: S608 - constants
    # Those that an earlier version sent have lost their text.
    kept = f"plaintext IS NOT NULL AND {among}" if what.partner else "plaintext IS NOT NULL"
    return _narrowed(what, SENT, _Condition(kept, one.values))


def _with_whom(partner: Address | None, peer: str, handle: str, member: str) -> _Condition:
    """Say whom a message must be from, or to, by the columns that tell it."""
    if partner is None:
        return _Condition("1", ())
    name = partner.name
    match partner.kind:
        case AddressKind.HANDLE:
            return _Condition(f"({handle} = ? OR {member} = ?)", (name, name))
        case AddressKind.MEMBER_HANDLE:
            return _Condition(f"{handle} = ? AND {member} = ?", (name, partner.member))
        case AddressKind.PEER_ID:
            return _Condition(f"substr({peer}, 1, ?) = ?", (len(name), name))
        case _:
            return _Condition("conv = ?", (str(partner),))


def _narrowed(what: Wanted, source: Source, condition: _Condition) -> _Condition:
    """Add the words and the thread, which are asked for alike in both tables."""
    sql, values = [condition.sql], [*condition.values]
    if what.thread is not None:
        sql.append("thread = ?")
        values.append(what.thread)
    if what.searches:
        sql.append(_WORDS.format(parity=source.parity))
        values.append(textindex.expression(what.terms))
    return _Condition(" AND ".join(sql), values)


def _place(before: str) -> Place | str:
    """Read what the messages must be older than."""
    if _MESSAGE.fullmatch(before):
        return before
    place = _PLACE.fullmatch(before)
    try:
        moment = datetime.fromisoformat(place["time"] if place else before)
    except ValueError as error:
        raise Invalid(
            f"before is neither a time nor the id of a message: {before[:60]!a}.",
            "Write it as 2026-01-31T12:00:00Z, or take next_before of the page before.",
            code="bad_before",
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    # In whole numbers: a float would be off by a millisecond now and then.
    since = moment - datetime.fromtimestamp(0, UTC)
    at_ms = since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
    return Place(at_ms, int(place["key"]) if place else 0)


def _found_place(sql: sqlite3.Connection, message: str) -> Place:
    """Give the place of a message: of one's own, else of the first that came under that id."""
    for source in (SENT, RECEIVED):
        found = sql.execute(
            f"SELECT row, {_TIMES[source.table]} AS at_ms FROM {source.table}"  # noqa: S608 - constants
            " WHERE id = ? ORDER BY row LIMIT 1",
            (message,),
        ).fetchone()
        if found is not None:
            return Place(found["at_ms"], source.key(found["row"]))
    raise NotFound(
        f"There is no message {message} here.",
        "Take an id that history showed; messages are kept for 30 days.",
    )
