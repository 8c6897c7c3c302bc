"""Builds answers about the mesh itself: its peers, one's profile, groups, and where one is.

``sdk.py`` calls it. What peers supplied is cleaned here, and a peer is shown only as far as its
certificate proves it.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from claudemesh_mcp import held, outbox, rights, shown_routes
from claudemesh_mcp.attachment import Attachment
from claudemesh_mcp.certifying import certify
from claudemesh_mcp.cleaning import clean_line, clean_value
from claudemesh_mcp.client import Client
from claudemesh_mcp.meshresults import (
    BrokerShown,
    GroupResult,
    GroupShown,
    HostedShown,
    MeshInfo,
    NewsShown,
    PeerRow,
    PeersResult,
    Problem,
    ProfileResult,
    SelfShown,
    StatsShown,
)
from claudemesh_mcp.peer import Detected, Peer
from claudemesh_mcp.policy import Policy
from claudemesh_mcp.project import wished_handle
from claudemesh_mcp.results import rfc3339
from claudemesh_mcp.routes import facts
from claudemesh_wire.address import AddressKind, parse
from claudemesh_wire.errors import Forbidden, Invalid, MeshError
from claudemesh_wire.grants import GrantsFound, ListGrants
from claudemesh_wire.groups import JoinGroup, LeaveGroup, MyGroups
from claudemesh_wire.meshes import AskMesh
from claudemesh_wire.presence import MAX_PROFILE_BYTES, PeerCard, Status, UpdatePresence
from claudemesh_wire.search import PeerFilters, SearchPeers

if TYPE_CHECKING:
    from claudemesh_mcp.hosting.standing import Hosting

# For what is only good to know: who asks wants to hear that the broker hangs.
_ASK_S: Final = 3.0


def search(query: str, filters: Mapping[str, Any] | None, limit: int) -> SearchPeers:
    """Read what is searched for.

    Raises:
        Invalid: a filter or limit makes no sense.
    """
    try:
        wanted = PeerFilters.model_validate(dict(filters or {}))
        return SearchPeers(query=query, filters=wanted, limit=limit)
    except ValidationError as error:
        raise Invalid(
            f"The search makes no sense: {error.errors()[0]['msg']}.",
            "filters: online, status, type, member, group, project; limit 1 to 200.",
        ) from error


async def peers(peer: Peer, client: Client, request: SearchPeers, *, detail: bool) -> PeersResult:
    """Show the peers found; one whose certificate does not prove it is left out and reported."""
    found = await client.call(request)
    rows: list[PeerRow] = []
    for card in found.peers:
        try:
            rows.append(_peer_row(peer, card, detail=detail))
        except MeshError as error:
            peer.detect(error)
    return PeersResult(peers=rows, total=found.total)


def _peer_row(peer: Peer, card: PeerCard, *, detail: bool) -> PeerRow:
    certificate = peer.trust.verify(card.certificate)
    fields = certificate.fields
    if (fields.peer, fields.handle, fields.member) != (card.peer, card.handle, card.member):
        raise Forbidden(
            f"The broker shows {card.handle} under the certificate of {fields.handle}.",
            code="certificate_swapped",
        )
    member = peer.trust.member_of(certificate)
    local = certificate.is_local_to(peer.identity.machine_secret)
    more: dict[str, Any] = {}
    if detail:
        more = {
            "role": _line(card.role),
            "channel": _line(card.channel),
            "model": _line(card.model),
            "host": _line(card.host),
            "cwd": _line(card.cwd),
            "profile": clean_value(card.profile).value,
            "online": card.online,
            "first_seen": rfc3339(card.first_seen_ms),
            "stats": _stats(card),
            "certificate": certificate.hash.hex(),
        }
    return PeerRow.model_validate(
        {
            "handle": fields.handle,
            "peer": fields.peer,
            "member": member.name,
            "type": _line(card.type),
            "status": _line(card.status) if card.online else "offline",
            "summary": _line(card.summary),
            "project": _line(card.project),
            "locality": "here" if local else "remote",
            "groups": [f"@{group.name}" for group in card.groups],
            "last_seen": rfc3339(card.last_seen_ms),
            "self": True if card.peer == peer.id else None,
            "routes": [_line(route) for route in card.routes] if card.online else None,
            **more,
        }
    )


def _stats(card: PeerCard) -> StatsShown:
    stats = card.stats
    return StatsShown(
        sessions=stats.sessions,
        sent=stats.sent,
        received=stats.received,
        online_s=stats.online_ms // 1000,
    )


async def profile(peer: Peer, client: Client, change: dict[str, Any]) -> ProfileResult:
    """Change what others see of this peer; a new handle is certified before it counts."""
    if change["handle"] is not None:
        change["handle"] = wished_handle(change["handle"])
    try:
        request = UpdatePresence(**change)
    except ValidationError as error:
        first = error.errors()[0]
        raise Invalid(
            f"{first['loc'][0]}: {first['msg']}.",
            "role takes 80 characters, summary 500; status is idle, working or dnd.",
        ) from error
    if len(request.model_dump_json(include={"profile"})) > 2 * MAX_PROFILE_BYTES:
        raise Invalid(
            f"profile is at most {MAX_PROFILE_BYTES} bytes of JSON.", "Leave some of it out."
        )
    card = await _updated(peer, client, request)
    if card.handle != peer.handle:
        await certify(peer, client, card.handle)
    return ProfileResult(
        handle=card.handle,
        role=card.role,
        status=card.status,
        summary=card.summary,
        profile=card.profile,
        visible=card.visible,
        share_cwd=card.share_cwd,
    )


async def _updated(peer: Peer, client: Client, request: UpdatePresence) -> PeerCard:
    """Tell the broker, and the file whether quiet is wanted: hooks ask the file.

    Quiet begins here before it is shown, so that no status of a turn comes behind it.
    """
    begins = request.status == Status.DND and await peer.file.write(partial(facts.set_dnd, on=True))
    try:
        card = (await client.call(request)).card
    except MeshError:
        if begins:
            await peer.file.write(partial(facts.set_dnd, on=False))
        raise
    await peer.file.write(partial(facts.set_dnd, on=card.status == Status.DND))
    return card


async def join(client: Client, group: str, role: str) -> GroupResult:
    """Enter a group, ``@name``."""
    try:
        request = JoinGroup(group=_group(group), role=role)
    except ValidationError as error:
        raise Invalid("role is at most 80 characters.", "Shorten it.") from error
    return _groups(await client.call(request))


async def leave(client: Client, group: str) -> GroupResult:
    """Go out of a group, ``@name``."""
    return _groups(await client.call(LeaveGroup(group=_group(group))))


def _group(address: str) -> str:
    parsed = parse(address)
    if parsed.kind is not AddressKind.GROUP:
        raise Invalid(f"{address} is not a group.", "Write it as @name.", code="not_a_group")
    return parsed.name


def _groups(mine: MyGroups) -> GroupResult:
    return GroupResult(
        groups=[GroupShown(name=f"@{one.name}", role=_line(one.role)) for one in mine.groups],
        changed=mine.changed,
        members=mine.members,
    )


async def mesh_info(peer: Peer, attachment: Attachment, hosted: "Sequence[Hosting]") -> MeshInfo:
    """Show where one is connected, as whom, and which servers it runs."""
    now_ms, policy = peer.now_ms(), Policy(peer)
    kept = await peer.file.read(lambda sql: _kept(sql, policy, now_ms))
    facts, dialed, chain = attachment.facts, attachment.broker, peer.trust.chain
    told: dict[str, Any] = {}
    shown: dict[str, Any] = {"groups": []}
    grants: GrantsFound | None = None
    if attachment.is_connected:
        with suppress(MeshError):  # What the broker does not answer is left out.
            client = await attachment.ready(0)
            mesh = await client.call(AskMesh(), _ASK_S)
            told = {"peers": mesh.peers, "online": mesh.online}
            own = await client.call(SearchPeers(query=peer.id, limit=1), _ASK_S)
            for card in own.peers:
                shown |= _own_card(card) if card.peer == peer.id else {}
            grants = await client.call(ListGrants(), _ASK_S)
    me = peer.member
    last_seen = facts.last_seen if facts else None
    return MeshInfo(
        mesh=chain.mesh,
        name=chain.name,
        me=SelfShown(
            peer=peer.id,
            handle=peer.handle,
            member=me.name,
            member_id=me.id,
            role="removed" if me.removed else me.role,
            resume=peer.id,
            last_seen=rfc3339(last_seen) if last_seen else None,
            **shown,
        ),
        broker=BrokerShown(
            id=dialed.broker if dialed else "",
            url=dialed.url if dialed else "",
            version=facts.version if facts else "",
            connected=attachment.is_connected,
        ),
        members=sum(not one.removed for one in chain.members.values()),
        **kept,
        key_storage=peer.identity.wrapping.storage,
        defaults=rights.defaults(strict=peer.setup.settings.strict),
        grants=rights.differing(peer, grants),
        hosted=[_hosted(one) for one in hosted],
        problems=_problems(peer, attachment, now_ms),
        news=_news(peer),
        **told,
    )


def _kept(sql: sqlite3.Connection, policy: Policy, now_ms: int) -> dict[str, Any]:
    """Give what the peer's own file says."""
    return {
        "unread": policy.unread(sql, now_ms),
        "held": held.count(sql),
        "pending": outbox.count_waiting(sql),
        "mode": facts.mode(sql).value,
        "routes": shown_routes.states(sql, policy.peer.home.data, now_ms),
        "pushed_today": shown_routes.pushed_today(sql, now_ms),
    }


def _own_card(card: PeerCard) -> dict[str, Any]:
    """Give what the mesh has kept of this peer, whatever process it was in."""
    return {
        "groups": [f"@{group.name}" for group in card.groups],
        "first_seen": rfc3339(card.first_seen_ms),
        "summary": card.summary,
        "profile": card.profile,
        "visible": card.visible,
        "share_cwd": card.share_cwd,
        "stats": _stats(card),
    }


def _hosted(one: "Hosting") -> HostedShown:
    return HostedShown(
        name=one.full_name or one.name,
        state="refused" if one.refused else one.condition.state,
        since=rfc3339(one.condition.since_ms),
        why=one.refused or one.condition.why,
        command=one.command_line,
        persistent=one.persistent,
    )


def _news(peer: Peer) -> list[NewsShown]:
    told = ((heard.sentence(peer.trust), heard.at_ms) for heard in peer.news.kept())
    return [NewsShown(text=text, at=rfc3339(at_ms)) for text, at_ms in told if text is not None]


def _problems(peer: Peer, attachment: Attachment, now_ms: int) -> list[Problem]:
    """Give what was detected so far, and why there is no connection now."""
    detected, failure = list(peer.problems), attachment.failure
    if failure is not None and all(one.code != failure.code for one in detected):
        message = f"{failure.reason} {failure.hint}".strip()
        detected.append(Detected(failure.code, message, now_ms))
    return [Problem(code=one.code, message=one.message, at=rfc3339(one.at_ms)) for one in detected]


def _line(text: str) -> str:
    return clean_line(text).text
