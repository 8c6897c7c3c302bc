"""What is offered to this peer: the mesh's servers, each believed by its own signature.

``toolcalls.py`` and the tools of the model look names up here. The broker says what there is and
who is here now; what a server can do and whose it is stands in the registration.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from claudemesh_mcp.client import Client
from claudemesh_mcp.peer import Peer
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Conflict, Forbidden, MeshError, NotFound
from claudemesh_wire.mcp_servers import (
    MAX_KNOWN,
    ListServers,
    Registration,
    ServerCard,
    definition_digest,
)
from claudemesh_wire.membership import Member

_MOST_NAMED: Final = 10
Definition = dict[str, Any]


@dataclass(frozen=True)
class Offered:
    """A server that another peer, or this one, offers.

    Args:
        registration: Believed.
        handle: Of the peer that hosts it.
        member: That peer's, as the log has it.
        host: Its machine's label; empty if it hides.
        online: Whether it has a connection now.
        since_ms: When it was registered or, if it has no connection, when that ended.
    """

    registration: Registration
    handle: str
    member: Member
    host: str
    online: bool
    since_ms: int

    @property
    def peer(self) -> str:
        """The id of the peer that hosts it."""
        return self.registration.fields.peer

    @property
    def name(self) -> str:
        """Its short name."""
        return self.registration.fields.name

    @property
    def full_name(self) -> str:
        """Its name that no other server has, ``handle/name``."""
        return f"{self.handle}/{self.name}"

    @property
    def tools(self) -> Sequence[Definition]:
        """The definitions of its tools, as it gave them."""
        return self.registration.definitions["tools"]

    def tool(self, name: str) -> Definition:
        """Give one tool's definition.

        Raises:
            NotFound: ``unknown_tool``.
        """
        for definition in self.tools:
            if definition["name"] == name:
                return definition
        near = get_close_matches(name, [one["name"] for one in self.tools], n=3)
        raise NotFound(
            f"{self.full_name} has no tool {name[:80]!a}.",
            f"Did you mean {' or '.join(near)}?" if near else "mesh_tools shows what it has.",
            code="unknown_tool",
        )

    @property
    def service(self) -> tuple[str, str, str]:
        """What makes it one service with others: its member, name and definitions."""
        definitions = self.registration.definitions
        summed = definition_digest({kind: listed for kind, listed in definitions.items() if listed})
        return self.member.id, self.name, summed


class Directory:
    """The servers that are offered to one peer.

    Args:
        peer: The peer.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._known: dict[bytes, tuple[Registration, Certificate]] = {}

    async def read(self, client: Client) -> list[Offered]:
        """Ask what is offered now; what can't be believed is left out, and noted.

        Raises:
            MeshError: the broker did not answer.
        """
        found: list[Offered] = []
        seen: dict[bytes, tuple[Registration, Certificate]] = {}
        after: str | None = ""
        while after is not None:
            known = list(self._known)[:MAX_KNOWN]
            page = await client.call(ListServers(after=after, known=known))
            for card in page.servers:
                try:
                    offered = self._believed(card, seen)
                except MeshError as error:
                    self._peer.detect(error)
                else:
                    found.append(offered)
            after = page.next_after
        self._known = seen
        return found

    def _believed(
        self, card: ServerCard, seen: dict[bytes, tuple[Registration, Certificate]]
    ) -> Offered:
        trust, now_ms = self._peer.trust, self._peer.now_ms()
        known = self._known.get(card.digest)
        if known is None:
            one, certificate = Registration.parse(card.registration), trust.verify(card.certificate)
            one.check(certificate)
        else:
            one, certificate = known
        said = one.fields
        if (said.mesh, said.peer, said.name) != (trust.mesh, card.peer, card.name):
            raise Forbidden(
                f"The broker shows another server than {card.name} under that name.",
                "Do not rely on this broker's word about it.",
                code="forged_registration",
            )
        # Asked each time: the log may have grown since.
        trust.chain.member_behind(certificate)
        member = trust.member_of(certificate, now_ms)
        seen[one.digest] = (one, certificate)
        return Offered(
            one, certificate.fields.handle, member, card.host, card.online, card.since_ms
        )


def names(offered: Offered) -> set[str]:
    """Give the names by which a server may be meant."""
    return {offered.full_name, offered.name}


def find(offers: Iterable[Offered], name: str) -> list[Offered]:
    """Give the providers of the one server that a name means, those that are here first.

    Args:
        offers: What is offered.
        name: ``handle/name``, or the short name where that is one service.

    Raises:
        NotFound: ``unknown_server``.
        Conflict: ``ambiguous_server``: several have this short name; the details list them.
    """
    every = list(offers)
    meant = [one for one in every if name in names(one)]
    if not meant:
        known = {each for one in every for each in names(one)}
        near = get_close_matches(name, sorted(known), n=3)
        raise NotFound(
            f"No server {name[:80]!a} is offered to this session.",
            f"Did you mean {' or '.join(near)}?" if near else "mesh_tools shows what is offered.",
            code="unknown_server",
        )
    if len({one.service for one in meant}) > 1:
        candidates = sorted(one.full_name for one in meant)[:_MOST_NAMED]
        raise Conflict(
            f"Several servers are called {name}.",
            f"Name one of them: {', '.join(candidates)}.",
            code="ambiguous_server",
            details={"candidates": candidates},
        )
    return sorted(meant, key=lambda one: not one.online)
