"""Says who may call what this peer offers, by its own copy of log and grants, and how often.

``serving.py`` asks it for every call: the broker's word about a caller counts for nothing here but
for the groups it is in, which only the broker knows.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio

from claudemesh_mcp.client import Client
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.rights import right_here
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Forbidden, TooMuch
from claudemesh_wire.grants import Capability
from claudemesh_wire.mcp_servers import MESH, RegistrationFields
from claudemesh_wire.membership import Member
from claudemesh_wire.message import Role
from claudemesh_wire.search import SearchPeers

PER_MINUTE: Final = 60
AT_ONCE: Final = 8
OWN_AT_ONCE: Final = 256
_MINUTE_S: Final = 60.0
Ready = Callable[[], Awaitable[Client]]


@dataclass(frozen=True)
class Caller:
    """Who calls, as proved by its line."""

    certificate: Certificate
    member: Member
    is_own: bool

    def shown(self) -> dict[str, Any]:
        """Give what the server is told of it."""
        return {
            "peer": self.certificate.fields.peer,
            "handle": self.certificate.fields.handle,
            "member": self.member.id,
            "member_name": self.member.name,
            "own": self.is_own,
        }


class Callers:
    """The rights and bounds of those who call.

    Args:
        peer: Whose servers are called.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._begun: dict[str, deque[float]] = {}
        self._open: dict[str, int] = {}

    def caller(self, certificate: Certificate) -> Caller:
        """Say who is behind a certificate now.

        Raises:
            Forbidden: its member or device is none any more.
        """
        trust = self._peer.trust
        trust.chain.member_behind(certificate)
        member = trust.member_of(certificate, self._peer.now_ms())
        return Caller(certificate, member, member.id == self._peer.identity.member)

    def check(self, caller: Caller) -> None:
        """Let a caller call something here, or nothing at all.

        Raises:
            Forbidden: ``blocked``, ``not_granted``.
            MeshError: the grants can't be read.
        """
        if caller.is_own:
            return
        granted = self._peer.grants.read()
        member = caller.member
        if member.id in granted.blocked:
            raise Forbidden(
                "This member takes no calls of yours.",
                f"The human behind {self._peer.handle} can: claudemesh unblock {member.name}",
                code="blocked",
            )
        # No grant lets an observer do anything, as everywhere.
        is_let = right_here(self._peer, granted, member, Capability.TOOL).allowed
        if member.role is Role.OBSERVER or not is_let:
            raise Forbidden(
                f"{member.name} was not granted to call tools here.",
                f"The human behind {self._peer.handle} can: claudemesh grant {member.name} tool",
                code="not_granted",
            )

    async def is_meant(self, caller: Caller, said: RegistrationFields, ready: Ready) -> bool:
        """Tell whether a server is offered to a caller.

        Raises:
            MeshError: the broker did not say which groups it is in.
        """
        peer = caller.certificate.fields.peer
        if caller.is_own:
            return True
        if {MESH, peer, f"role:{caller.member.role}"}.intersection(said.visible_to):
            return True
        wanted = [viewer[1:].partition(":") for viewer in said.visible_to if viewer[0] == "@"]
        if not wanted:
            return False
        # By its id, which fits none but this one; of one that hides the broker tells nothing.
        client = await ready()
        found = (await client.call(SearchPeers(query=peer, limit=1))).peers
        roles = {one.name: one.role for card in found if card.peer == peer for one in card.groups}
        return any(
            group in roles and (not role or roles[group] == role) for group, _, role in wanted
        )

    def begin(self, caller: Caller) -> None:
        """Count a call that begins; ``end`` it in any case.

        Raises:
            TooMuch: ``rate_limited`` or ``too_many_calls``, per member.
        """
        member, now_s = caller.member.id, anyio.current_time()
        most = OWN_AT_ONCE if caller.is_own else AT_ONCE
        if self._open.get(member, 0) >= most:
            raise TooMuch(
                f"{most} calls of {caller.member.name} run here already.",
                "Wait for some of them.",
                code="too_many_calls",
                retry_after_s=1.0,
            )
        begun = self._begun.setdefault(member, deque())
        while begun and begun[0] <= now_s - _MINUTE_S:
            begun.popleft()
        if not caller.is_own and len(begun) >= PER_MINUTE:
            raise TooMuch(
                f"{caller.member.name} may call {PER_MINUTE} times a minute here.",
                "Wait a little.",
                code="rate_limited",
                retry_after_s=round(begun[0] + _MINUTE_S - now_s, 1),
            )
        begun.append(now_s)
        self._open[member] = self._open.get(member, 0) + 1

    def end(self, caller: Caller) -> None:
        """Count a call that ended."""
        left = self._open.get(caller.member.id, 0) - 1
        if left > 0:
            self._open[caller.member.id] = left
        else:
            self._open.pop(caller.member.id, None)
