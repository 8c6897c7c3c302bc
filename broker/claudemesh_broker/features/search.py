"""Search: finds peers of the mesh by what they show of themselves.

``service.py`` calls it. Matches come online first, then exact before prefix before substring.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from claudemesh_broker.peers import is_here
from claudemesh_broker.roster import read_card
from claudemesh_broker.service import Context, serves
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.membership import Chain
from claudemesh_wire.presence import PeerCard
from claudemesh_wire.search import PeerFilters, PeersFound, SearchPeers

MAX_READ: Final = 20_000
MAX_ANSWER_BYTES: Final = 512 * 1024
_EXACT, _PREFIX, _INSIDE, _NONE = range(4)
_ROWS: Final = (
    "SELECT p.peer, p.handle, p.member, p.type, p.project, p.summary, p.role, p.status,"
    " p.attached, p.lease_until_ms, p.last_seen_ms,"
    " (SELECT group_concat(name, ' ') FROM groups AS g"
    "   WHERE g.mesh = p.mesh AND g.peer = p.peer) AS groups"
    " FROM peers AS p WHERE p.mesh = ? AND p.handle IS NOT NULL LIMIT ?"
)


@dataclass(frozen=True)
class Wanted:
    """A search, and the moment it is made at."""

    request: SearchPeers
    chain: Chain
    now_ms: int


@serves
async def search(context: Context, request: SearchPeers) -> PeersFound:
    """Find peers; one page of them, and how many there are in all."""
    wanted = Wanted(request, context.chain, context.now_ms)
    return await context.read(lambda sql: _search(sql, wanted))


def _search(sql: Sql, wanted: Wanted) -> PeersFound:
    ranked: list[tuple[tuple[bool, int, int], str]] = []
    for row in sql.all(_ROWS, wanted.chain.mesh, MAX_READ):
        here = is_here(row, wanted.now_ms)
        if not _passes(row, wanted, here=here):
            continue
        rank = _rank(row, wanted)
        if rank != _NONE:
            ranked.append(((not here, rank, -row["last_seen_ms"]), row["peer"]))
    ranked.sort()
    start = wanted.request.offset
    page = [peer for _, peer in ranked[start : start + wanted.request.limit]]
    return PeersFound(peers=_cards(sql, wanted, page), total=len(ranked))


def _cards(sql: Sql, wanted: Wanted, page: Sequence[str]) -> list[PeerCard]:
    """Give the cards of a page, fewer when they would not fit into a frame."""
    cards: list[PeerCard] = []
    load = 0
    for peer in page:
        card = read_card(sql, wanted.chain, peer, wanted.now_ms)
        load += len(card.model_dump_json())
        if load > MAX_ANSWER_BYTES:
            break
        cards.append(card)
    return cards


def _passes(row: Row, wanted: Wanted, *, here: bool) -> bool:
    member = wanted.chain.members.get(row["member"])
    if member is None or member.removed:
        return False
    filters: PeerFilters = wanted.request.filters
    checks = (
        (filters.online, (here,)),
        (filters.status, (row["status"],)),
        (filters.type, (row["type"],)),
        (filters.member, (row["member"], member.name)),
        (filters.group, (row["groups"] or "").split()),
        (filters.project, (row["project"],)),
    )
    return all(asked is None or asked in admitted for asked, admitted in checks)


def _rank(row: Row, wanted: Wanted) -> int:
    """Say how well a peer fits the query: by its best field."""
    query = wanted.request.query.strip().lower().removeprefix("@")
    if not query:
        return _EXACT
    member = wanted.chain.members[row["member"]]
    fields = [
        row["handle"],
        row["peer"],
        row["member"],
        member.name,
        *(row["groups"] or "").split(),
    ]
    fields += [row[name] or "" for name in ("project", "role", "summary")]
    return min(_fit(query, field.lower()) for field in fields)


def _fit(query: str, field: str) -> int:
    if field == query:
        return _EXACT
    if field.startswith(query):
        return _PREFIX
    return _INSIDE if query in field else _NONE
