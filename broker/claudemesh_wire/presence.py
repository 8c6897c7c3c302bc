"""Presence: who is here, under what handle, with what status and profile.

Served by ``claudemesh_broker.features.presence``; asked by the client at connect and by the tool
``set_profile``.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from claudemesh_wire.address import GroupName, Handle
from claudemesh_wire.message import (
    MemberId,
    Message,
    Notice,
    Part,
    PeerId,
    Rate,
    Request,
    Rule,
    Whole,
)

MAX_PROFILE_BYTES: Final = 4096
Route = Annotated[str, Field(pattern=r"^[a-z]{1,20}$")]
"""A way into a model's context, by its name: ``hooks``, ``monitor`` …"""


class Status(StrEnum):
    """What a session is doing, in its own words."""

    IDLE = "idle"
    WORKING = "working"
    DND = "dnd"


class GroupRole(Part):
    """A group a peer is in, and what it is there."""

    name: GroupName
    role: str = ""


class Stats(Part):
    """What a peer did in all its stays: how many there were, what it sent and received, how long.

    ``online_ms`` counts the time that it was connected. A broker that was killed lost the counts of
    the connections it had then.
    """

    sessions: Whole = 0
    sent: Whole = 0
    received: Whole = 0
    online_ms: Whole = 0


class PeerCard(Part):
    """What the mesh shows of one peer; times in milliseconds, the certificate proves the rest.

    ``cwd`` is empty for other members unless ``share_cwd``. ``routes`` are those by which messages
    reach its model without being asked for, as the peer says. Without ``multicast`` it is in no
    multicast.
    """

    peer: PeerId
    handle: str
    member: MemberId
    member_name: str
    type: str = ""
    channel: str = ""
    model: str = ""
    host: str = ""
    project: str = ""
    cwd: str = ""
    status: str = Status.IDLE
    summary: str = ""
    role: str = ""
    profile: dict[str, Any] = Field(default_factory=dict[str, Any])
    groups: list[GroupRole] = Field(default_factory=list[GroupRole])
    online: bool = False
    first_seen_ms: Whole = 0
    last_seen_ms: Whole = 0
    certificate: bytes = b""
    visible: bool = True
    share_cwd: bool = False
    stats: Stats = Stats()
    routes: list[str] = Field(default_factory=list[str])
    multicast: bool = True


class Certified(Message, kind="presence.certified"):
    """The certificate is published and the peer addressable under its handle."""

    handle: Handle


class Certify(
    Request[Certified],
    kind="presence.certify",
    rule=Rule.READ,
    rate=Rate.RPC,
    audited=True,
):
    """Publish a new certificate of one's own, carrying the handle the broker gave."""

    certificate: bytes


class PresenceUpdated(Message, kind="presence.updated"):
    """What stands now; a handle other than the certificate's wants a new certificate."""

    card: PeerCard


class UpdatePresence(
    Request[PresenceUpdated], kind="presence.update", rule=Rule.READ, rate=Rate.RPC
):
    """Change what is shown of oneself; what is left out stays. ``profile`` replaces the whole.

    Without ``visible`` one is in no list and no multicast; with ``share_cwd`` other members see the
    folder too.
    """

    handle: Handle | None = None
    role: Annotated[str, Field(max_length=80)] | None = None
    status: Status | None = None
    summary: Annotated[str, Field(max_length=500)] | None = None
    profile: dict[str, Any] | None = None
    visible: bool | None = None
    share_cwd: bool | None = None
    routes: Annotated[list[Route], Field(max_length=8)] | None = None


class Departed(Message, kind="presence.departed"):
    """The broker has seen the peer off."""


class Depart(Request[Departed], kind="presence.depart", rule=Rule.READ, rate=Rate.RPC):
    """End one's lease now: the session closes on purpose and will not be back at once."""


class CertificatesFound(Message, kind="presence.certificates_found"):
    """The certificates that the broker holds of those asked for."""

    certificates: list[bytes]


class FetchCertificates(
    Request[CertificatesFound],
    kind="presence.certificates",
    rule=Rule.READ,
    rate=Rate.RPC,
):
    """Ask for certificates by their hash (SHA-256, 32 bytes each), or for the newest of peers.

    Who knows the whole id of a peer gets its certificate, as by ``messages.Resolve``; also of one
    that hides, is archived, or belongs to a member that was removed.
    """

    hashes: Annotated[list[bytes], Field(max_length=64)]
    peers: Annotated[list[PeerId], Field(max_length=64)] = Field(default_factory=list[PeerId])


class Change(StrEnum):
    """What happened to a peer."""

    JOINED = "joined"
    LEFT = "left"
    UPDATED = "updated"


class PresenceChanged(Notice, kind="presence.changed"):
    """A peer of the mesh came, went or changed; never sent to that peer itself.

    ``away_since_ms`` says of one that came when it was here before, if it was.
    """

    change: Change
    card: PeerCard
    away_since_ms: Whole | None = None
