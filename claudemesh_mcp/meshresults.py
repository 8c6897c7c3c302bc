"""Answers about the mesh itself: its peers, members, groups, grants, and one's own place in it.

``shown_mesh.py`` and ``rights.py`` fill them; ``results.py`` has those about messages.
"""

from typing import Any, Literal

from pydantic import Field

from claudemesh_mcp.results import Result


class GroupShown(Result):
    """A group a peer is in, with its role there."""

    name: str
    role: str


class StatsShown(Result):
    """What a peer did in all its stays."""

    sessions: int = Field(description="How often it came.")
    sent: int
    received: int
    online_s: int


class PeerRow(Result):
    """One peer; keys from `role` on only with `detail`."""

    optional = frozenset(
        {
            "self",
            "routes",
            "role",
            "channel",
            "model",
            "host",
            "cwd",
            "profile",
            "online",
            "first_seen",
            "stats",
            "certificate",
        }
    )

    handle: str
    peer: str
    member: str
    type: str
    status: str = Field(description="idle, working or dnd; offline when it is not connected.")
    summary: str
    project: str
    locality: Literal["here", "remote"] = Field(description="here: proven to be on this machine.")
    groups: list[str]
    last_seen: str
    is_self: bool | None = Field(default=None, alias="self")
    routes: list[str] | None = Field(
        default=None, description="By which messages reach its model unasked, as it says."
    )
    role: str | None = None
    channel: str | None = None
    model: str | None = None
    host: str | None = None
    cwd: str | None = None
    profile: dict[str, Any] | None = None
    online: bool | None = None
    first_seen: str | None = None
    stats: StatsShown | None = None
    certificate: str | None = Field(default=None, description="SHA-256 of its certificate.")


class PeersResult(Result):
    """The peers found, online ones first."""

    peers: list[PeerRow]
    total: int


class ProfileResult(Result):
    """What the mesh shows of this session now."""

    handle: str
    role: str
    status: str
    summary: str
    profile: dict[str, Any]
    visible: bool
    share_cwd: bool


class GroupResult(Result):
    """The groups this session is in after the change."""

    groups: list[GroupShown]
    changed: bool
    members: int = Field(description="How many peers are in the group that was named.")


class Problem(Result):
    """Something that was detected and refused: who looks for attacks looks here."""

    code: str
    message: str
    at: str


class BrokerShown(Result):
    """The broker this session talks to."""

    id: str
    url: str
    version: str
    connected: bool


class SelfShown(Result):
    """Who this session is in the mesh."""

    optional = frozenset(
        {"last_seen", "first_seen", "summary", "profile", "visible", "share_cwd", "stats"}
    )

    peer: str
    handle: str
    member: str
    member_id: str
    role: str
    resume: str = Field(description="claudemesh mcp --resume with this is the same peer again.")
    groups: list[str]
    last_seen: str | None = Field(
        default=None,
        description="When it, or the session whose place it took, was here before this start.",
    )
    first_seen: str | None = None
    summary: str | None = None
    profile: dict[str, Any] | None = None
    visible: bool | None = None
    share_cwd: bool | None = None
    stats: StatsShown | None = None


class NewsShown(Result):
    """Who came or went, or what became of a server."""

    text: str
    at: str


class HostedShown(Result):
    """An MCP server that this session runs for the mesh."""

    name: str
    state: str = Field(description="starting, running, failed, or refused by the broker.")
    since: str
    why: str = Field(description="What went wrong last.")
    command: str
    persistent: bool


class GrantShown(Result):
    """What a member said of another, as far as it differs from the defaults."""

    member: str
    allow: list[str]
    deny: list[str]


class GrantsShown(Result):
    """The grants between this session's member and others."""

    by_me: list[GrantShown]
    to_me: list[GrantShown]


class MemberRights(Result):
    """What one member lets another do, capability by capability; nobody is told who blocks it."""

    optional = frozenset({"blocked"})

    member: str
    member_id: str
    standing: str
    rights: dict[str, str]
    provides: list[str] = Field(description="The other's services that it may provide as well.")
    granted: bool
    blocked: bool | None = None


class RightsResult(Result):
    """What holds between this home's member and the others, defaults filled in."""

    i_let: list[MemberRights]
    let_me: list[MemberRights]
    more: bool = False


class MeshInfo(Result):
    """The mesh as this session knows it."""

    optional = frozenset({"peers", "online"})

    mesh: str
    name: str
    me: SelfShown
    broker: BrokerShown
    members: int
    peers: int | None = None
    online: int | None = None
    mode: str = Field(description="push: what arrives is shown; inbox: only counted; off: neither.")
    routes: dict[str, str] = Field(
        description="Ways into this model's context: works, untested, silent or off."
    )
    pushed_today: dict[str, int] = Field(
        description="About how many tokens were pushed here today, by sender."
    )
    unread: int
    held: int = Field(description="Messages that wait until the user lets them through.")
    pending: int = Field(description="Messages of one's own not yet confirmed by the broker.")
    key_storage: str = Field(description="Where the key that protects this home's keys is kept.")
    defaults: dict[str, list[str]] = Field(
        description="What each kind of member may do to one's peers without a grant."
    )
    grants: GrantsShown
    hosted: list[HostedShown]
    problems: list[Problem]
    news: list[NewsShown] = Field(
        description="Who came and went, and what became of MCP servers, oldest first."
    )
