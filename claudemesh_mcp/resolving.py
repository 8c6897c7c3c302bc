"""Asks who is meant by addresses, checks the answer and remembers it for as long as it may be used.

``sending.py`` asks before it seals. What was resolved for one peer is asked for again together with
what other peers were resolved to, since each is soon wanted again where much is sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio

from claudemesh_mcp.audience import by_handle, check_audience, direct, one_who_answers, pin
from claudemesh_mcp.catchup import catch_up
from claudemesh_mcp.client import Client
from claudemesh_mcp.outbox import Audience
from claudemesh_mcp.peer import Peer
from claudemesh_wire.address import parse
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import MeshError
from claudemesh_wire.membership import Head
from claudemesh_wire.messages import Resolve, Resolved

# The broker takes what was resolved within 60 s: enough is left to wait for its answer.
_FRESH_MS: Final = 40_000
# Younger than this it will not be asked for along with another.
_YOUNG_MS: Final = 20_000
_MOST_AT_ONCE: Final = 64
_MOST_KEPT: Final = 512


@dataclass
class Resolution:
    """Whom some addresses stand for, as far as certificates and earlier names prove it."""

    resolved_ms: int
    conversation: str
    certificates: tuple[Certificate, ...]
    audience: tuple[Audience, ...]
    head: Head
    used: bool = field(default=False, compare=False)


class Resolving:
    """What a peer has resolved on its present connection.

    Args:
        peer: The peer.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._kept: dict[tuple[str, ...], Resolution] = {}
        self._renewing = anyio.Lock()

    def forget(self) -> None:
        """Ask anew who is meant: somebody came, went or changed, or the connection is another."""
        self._kept.clear()

    async def resolve(self, client: Client, to: tuple[str, ...], *, fresh: bool) -> Resolution:
        """Say who is meant.

        Args:
            client: The connection.
            to: The addresses as written.
            fresh: Ask in any case.

        Raises:
            MeshError: nobody is, or the broker's answer is not believed.
        """
        kept = self._kept.get(to)
        if kept and not fresh:
            if not self._still_holds(kept):
                kept = await self._renewed(client, to)
            if kept:
                kept.used = True
                return kept
        resolved = await client.call(Resolve(to=list(to)))
        resolution = await self._check(client, to, resolved)
        if not any(parse(one).is_multicast for one in to):
            # Who is in a group is asked each time: a member that has just left is not written to.
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[to] = resolution
        return resolution

    async def _renewed(self, client: Client, to: tuple[str, ...]) -> Resolution | None:
        """Give what is to be renewed together with others, unless it has to be asked for alone."""
        # Those that wait for their turn mostly find theirs renewed with the first.
        async with self._renewing:
            kept = self._kept.get(to)
            if kept and not self._still_holds(kept):
                kept = await self._renew(client, to)
        return kept

    async def _renew(self, client: Client, to: tuple[str, ...]) -> Resolution | None:
        """Ask for one peer, and in the same breath for others that are wanted and grow old."""
        now_ms = self._peer.now_ms()
        others = [
            one
            for one, kept in self._kept.items()
            if len(one) == 1 and one != to and kept.used and now_ms - kept.resolved_ms > _YOUNG_MS
        ]
        if len(to) != 1 or not others:
            return None
        asked = [to, *others[: _MOST_AT_ONCE - 1]]
        addresses = tuple(address for (address,) in asked)
        try:
            resolved = await client.call(Resolve(to=list(addresses)))
            together = await self._check(client, addresses, resolved)
        except MeshError:
            # One that is gone refuses the whole list: it must not keep anybody from the others.
            for one in others:
                self._kept.pop(one, None)
            return None
        handles = by_handle(together.certificates)
        for one in asked:
            if alone := self._one_of(together, one, handles):
                self._kept[one] = alone
            else:
                self._kept.pop(one, None)
        return self._kept.get(to)

    def _one_of(
        self, together: Resolution, to: tuple[str, ...], handles: dict[str, list[int]]
    ) -> Resolution | None:
        """Give what one address of several was resolved to, if no two peers answer to it."""
        place = one_who_answers(self._peer, to[0], together.certificates, handles)
        if place is None:
            return None
        certificate = together.certificates[place]
        return Resolution(
            together.resolved_ms,
            direct(self._peer, [certificate.fields.peer]),
            (certificate,),
            (together.audience[place],),
            together.head,
        )

    def _still_holds(self, kept: Resolution) -> bool:
        """Tell whether an answer is young, and no member or device was removed since."""
        peer = self._peer
        young = peer.now_ms() - kept.resolved_ms < _FRESH_MS
        return young and kept.head == peer.trust.head

    async def _check(self, client: Client, to: Sequence[str], resolved: Resolved) -> Resolution:
        """Believe the broker's answer as far as certificates and earlier names prove it."""
        peer = self._peer
        await catch_up(peer, client, resolved.head_seq, resolved.head)
        head = peer.trust.head
        certificates = tuple(peer.trust.verify(one.certificate) for one in resolved.recipients)
        try:
            new = await peer.file.read(
                lambda sql: check_audience(sql, peer, to, resolved, certificates)
            )
            if new:
                await peer.file.write(lambda sql: pin(sql, peer, new))
        except MeshError as error:
            peer.detect(error)
            raise
        audience: list[Audience] = []
        for certificate in certificates:
            member = peer.trust.member_of(certificate, peer.now_ms())
            fields = certificate.fields
            audience.append(
                Audience(fields.peer, fields.handle, member.name, peer.proven_e2e(member))
            )
        return Resolution(
            resolved.resolved_ms, resolved.conversation, certificates, tuple(audience), head
        )
