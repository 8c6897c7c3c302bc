"""What is offered to this peer: the mesh's servers, each believed by its own signature.

``toolcalls.py`` and the tools of the model look names up here. The broker says what there is and
who is here now; what a server can do and whose it is stands in the registration. Whose service it
counts in besides, stands in grants that the broker shows with it, and that their members signed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import anyio

from claudemesh_mcp.client import Client
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.rights import verified
from claudemesh_mcp.suggestions import is_plain, nearest
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Conflict, Forbidden, MeshError, NotFound
from claudemesh_wire.grants import services
from claudemesh_wire.mcp_servers import (
    MAX_KNOWN,
    ListServers,
    Registration,
    ServerCard,
    definition_digest,
)
from claudemesh_wire.membership import Member
from claudemesh_wire.message import Role

_MOST_NAMED: Final = 10
_LONGEST_NAME: Final = 200
RECENT_S: Final = 5.0
"""A call goes by what was read this long ago: whoever hosts the tool says when it is another."""
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
        granted_by: The ids of other members that let its member provide their service of its name.
        service_of: Whose one service it was found as, together with others; ``None`` by itself.
        shared_with: The names of the other members that provide that service.
    """

    registration: Registration
    handle: str
    member: Member
    host: str
    online: bool
    since_ms: int
    granted_by: tuple[str, ...] = ()
    service_of: str | None = None
    shared_with: tuple[str, ...] = ()

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

    @cached_property
    def tools(self) -> Sequence[Definition]:
        """The definitions of its tools, as it gave them.

        Those whose name is not what it looks like are none: whoever is shown it, in a list or in
        the command that approves, would decide about another one.
        """
        every = self.registration.definitions["tools"]
        return [one for one in every if _is_shown_whole(one["name"])]

    def tool(self, name: str) -> Definition:
        """Give one tool's definition.

        Raises:
            NotFound: ``unknown_tool``.
        """
        found = self.registration.tools.get(name)
        if found is not None and _is_shown_whole(name):
            return found[0]
        near = nearest(name, (one["name"] for one in self.tools))
        raise NotFound(
            f"{self.full_name} has no tool {name[:80]!a}.",
            f"Did you mean {' or '.join(near)}?" if near else "mesh_tools shows what it has.",
            code="unknown_tool",
        )

    def digest(self, tool: Definition) -> str:
        """Sum up a definition of one of its tools."""
        found = self.registration.tools.get(tool["name"])
        return found[1] if found is not None and found[0] is tool else definition_digest(tool)

    @property
    def owners(self) -> tuple[str, ...]:
        """The ids of the members whose service it counts in: what they approved of counts for it.

        The first is the one under whom it is approved itself.
        """
        if self.service_of is not None:
            return (self.service_of,)
        return (self.member.id, *self.granted_by)

    @property
    def service(self) -> tuple[str, str, str]:
        """What makes it one service with others: whose it is, its name and its definitions."""
        definitions = self.registration.definitions
        summed = definition_digest({kind: listed for kind, listed in definitions.items() if listed})
        return self.owners[0], self.name, summed


@dataclass(frozen=True)
class _Recent:
    """What was read, when, by which log it was believed, and what had been heard of servers."""

    offers: list[Offered]
    at_s: float
    head: bytes
    heard: int


class Directory:
    """The servers that are offered to one peer.

    Args:
        peer: The peer.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._known: dict[bytes, tuple[Registration, Certificate]] = {}
        self._latest: dict[tuple[str, str], int] = {}
        self._recent: _Recent | None = None

    def recent(self) -> list[Offered] | None:
        """Give what was read a moment ago, if nothing was heard since by which it is another."""
        known, now_s, peer = self._recent, anyio.current_time(), self._peer
        if known is None or known.head != peer.trust.head.hash:
            return None
        if known.heard != peer.news.last_of_servers:
            return None
        return known.offers if now_s - known.at_s <= RECENT_S else None

    async def read(self, client: Client) -> list[Offered]:
        """Ask what is offered now; what can't be believed is left out, and noted.

        Raises:
            MeshError: the broker did not answer.
        """
        head, heard = self._peer.trust.head.hash, self._peer.news.last_of_servers
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
        self._recent = _Recent(found, anyio.current_time(), head, heard)
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
        if member.role is Role.OBSERVER:
            raise Forbidden(
                f"{member.name} only observes, and the broker shows a server of it.",
                "An admin can give it another role: claudemesh role",
                code="observer_offers",
            )
        seen[one.digest] = (one, certificate)
        return Offered(
            one,
            certificate.fields.handle,
            member,
            card.host,
            card.online,
            card.since_ms,
            self._granted_by(member, card),
        )

    def _granted_by(self, member: Member, card: ServerCard) -> tuple[str, ...]:
        """Give who lets a member provide a service, by its latest grant that was shown here."""
        found: set[str] = set()
        for grant in verified(self._peer, card.grants):
            said = grant.fields
            between = (said.by, said.to)
            # One that was taken back is not believed again, whatever the broker shows.
            if said.to == member.id != said.by and said.seq >= self._latest.get(between, 0):
                self._latest[between] = said.seq
                if card.name in services(grant):
                    found.add(said.by)
        return tuple(sorted(found))


def _is_shown_whole(tool: str) -> bool:
    return len(tool) <= _LONGEST_NAME and is_plain(tool)


def names(offered: Offered) -> set[str]:
    """Give the names by which a server may be meant."""
    return {offered.full_name, offered.name}


def find(offers: Iterable[Offered], name: str, *, by_grant: bool = True) -> list[Offered]:
    """Give the providers of the one service that a name means: its owner's first, and those here.

    Args:
        offers: What is offered.
        name: ``handle/name``, or the short name where that is one service.
        by_grant: Whether servers of several members may be one service; not where nothing of a
            server is approved, so that nobody would notice who is meant now.

    Raises:
        NotFound: ``unknown_server``.
        Conflict: ``ambiguous_server``: several have this short name; the details list them.
    """
    every = list(offers)
    meant = [one for one in every if name in names(one)]
    if not meant:
        known = {each for one in every for each in names(one)}
        near = nearest(name, known)
        raise NotFound(
            f"No server {name[:80]!a} is offered to this session.",
            f"Did you mean {' or '.join(near)}?" if near else "mesh_tools shows what is offered.",
            code="unknown_server",
        )
    if len(meant) > 1:
        meant = _one_service(meant, name, by_grant=by_grant)
    return sorted(meant, key=lambda one: (one.member.id not in one.owners, not one.online))


def _one_service(meant: Sequence[Offered], name: str, *, by_grant: bool) -> list[Offered]:
    """Give what one name means as the providers of one member's service.

    Raises:
        Conflict: their definitions differ, or none of their members let all others provide it.
    """
    names = {one.member.id: one.member.name for one in meant}
    is_one = len({one.service[1:] for one in meant}) == 1 and (by_grant or len(names) == 1)
    owners = set(names).intersection(*(one.owners for one in meant)) if is_one else set[str]()
    if not owners:
        candidates = sorted(one.full_name for one in meant)[:_MOST_NAMED]
        raise Conflict(
            f"Several servers are called {name}.",
            f"Name one of them: {', '.join(candidates)}.",
            code="ambiguous_server",
            details={"candidates": candidates},
        )
    owner = min(owners)
    return [
        replace(
            one,
            service_of=owner,
            shared_with=tuple(sorted(names[two] for two in names if two != one.member.id)),
        )
        for one in meant
    ]
