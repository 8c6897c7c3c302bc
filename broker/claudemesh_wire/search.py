"""Search: find peers of the mesh by name, project, summary, state.

Served by ``claudemesh_broker.features.search``; asked by the tool ``search_peers``.
"""

from typing import Annotated

from pydantic import Field

from claudemesh_wire.address import GroupName
from claudemesh_wire.message import Message, Part, Rate, Request, Rule, Whole
from claudemesh_wire.presence import PeerCard, Status


class PeerFilters(Part):
    """What a peer must be; a filter left out admits all."""

    online: bool | None = None
    status: Status | None = None
    type: str | None = None
    member: str | None = None
    group: GroupName | None = None
    project: str | None = None


class PeersFound(Message, kind="search.peers_found"):
    """The first ``limit`` of ``total`` matches: online first, then exact, prefix, substring."""

    peers: list[PeerCard]
    total: int


class SearchPeers(Request[PeersFound], kind="search.peers", rule=Rule.READ, rate=Rate.RPC):
    """Search; an empty query matches every peer that may be seen."""

    query: Annotated[str, Field(max_length=200)] = ""
    filters: PeerFilters = PeerFilters()
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    offset: Whole = 0
