"""Search: finds peers of the mesh by what they show of themselves.

``service.py`` calls it. Matches come online first, then exact before prefix before substring.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from claudemesh_broker.peers import is_here
from claudemesh_broker.roster import for_others, read_card
from claudemesh_broker.service import Caller, Context, serves
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.membership import Chain
from claudemesh_wire.presence import PeerCard
from claudemesh_wire.search import PeerFilters, PeersFound, SearchPeers

MAX_READ: Final = 20_000
MAX_ANSWER_BYTES: Final = 512 * 1024
_EXACT, _PREFIX, _INSIDE, _NONE = range(4)
_IDS: Final = ("p_", "mem_")
"""What begins so is looked for in ids; any other short word stands in one by chance."""
_ROWS: Final = (
    "SELECT p.peer, p.handle, p.member, p.type, p.project, p.summary, p.role, p.status,"
    " p.attached, p.lease_until_ms, p.last_seen_ms, p.profile,"
    " (SELECT group_concat(name, ' ') FROM groups AS g"
    "   WHERE g.mesh = p.mesh AND g.peer = p.peer) AS groups"
    " FROM peers AS p WHERE p.mesh = ? AND p.handle IS NOT NULL"
    " AND (p.visible = 1 OR p.peer = ?) LIMIT ?"
)


@dataclass(frozen=True)
class Wanted:
    """A search, who makes it, and the moment it is made at."""

    request: SearchPeers
    chain: Chain
    caller: Caller
    now_ms: int


@serves
async def search(context: Context, request: SearchPeers) -> PeersFound:
    """Find peers; one page of them, and how many there are in all."""
    wanted = Wanted(request, context.chain, context.caller, context.now_ms)
    found = await context.read(lambda sql: _search(sql, wanted))
    cards = [_counted(card, context) for card in found.peers]
    return PeersFound(peers=cards, total=found.total)


def _counted(card: PeerCard, context: Context) -> PeerCard:
    """Add what the peer did in the connection it has."""
    tally = context.parts.tallies.look(context.caller.mesh, card.peer)
    if not (tally.sent or tally.received):
        return card
    told = {
        "sent": card.stats.sent + tally.sent,
        "received": card.stats.received + tally.received,
    }
    return card.model_copy(update={"stats": card.stats.model_copy(update=told)})


def _search(sql: Sql, wanted: Wanted) -> PeersFound:
    ranked: list[tuple[tuple[bool, int, int], str]] = []
    for row in sql.all(_ROWS, wanted.chain.mesh, wanted.caller.peer, MAX_READ):
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
        if card.member != wanted.caller.member:
            card = for_others(card)
        load += len(card.model_dump_json())
        if load > MAX_ANSWER_BYTES:
            break
        cards.append(card)
    return cards


def _passes(row: Row, wanted: Wanted, *, here: bool) -> bool:
    member = wanted.chain.members.get(row["member"])
    if member is None or not member.is_good(wanted.now_ms):
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
    fields = [row["handle"], member.name, *(row["groups"] or "").split()]
    fields += [row[name] or "" for name in ("project", "role", "summary")]
    fields += _profile_words(row["profile"])
    if query.startswith(_IDS):
        fields += [row["peer"], row["member"]]
    return min(_fit(query, field.lower()) for field in fields)


def _profile_words(written: str) -> list[str]:
    """Give what a profile says that is looked for: its title and capabilities."""
    profile: dict[str, Any] = {} if written == "{}" else json.loads(written)
    capabilities: Any = profile.get("capabilities")
    said: list[Any] = [profile.get("title")]
    said += capabilities if isinstance(capabilities, list) else []
    return [one for one in said if isinstance(one, str)]


def _fit(query: str, field: str) -> int:
    if field == query:
        return _EXACT
    if field.startswith(query):
        return _PREFIX
    return _INSIDE if query in field else _NONE
