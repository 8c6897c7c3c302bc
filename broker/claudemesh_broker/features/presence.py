"""Presence: publishes certificates, changes what is shown of a peer, sees it off.

``service.py`` calls it. Whatever a mesh has to hear is told after the commit, to all but the peer.
"""

import json
from functools import partial
from typing import Any, Final

from claudemesh_broker import handles, peers
from claudemesh_broker.peers import News
from claudemesh_broker.roster import check_certificate, read_card
from claudemesh_broker.service import Context, serves
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Forbidden, TooMuch
from claudemesh_wire.presence import (
    MAX_PROFILE_BYTES,
    CertificatesFound,
    Certified,
    Certify,
    Change,
    Depart,
    Departed,
    FetchCertificates,
    PeerCard,
    PresenceUpdated,
    UpdatePresence,
)
from claudemesh_wire.profile import check_profile

_OF_HASH: Final = "SELECT blob FROM certificates WHERE hash = ? AND mesh = ?"
_OF_PEER: Final = (
    "SELECT c.blob FROM peers AS p JOIN certificates AS c ON c.hash = p.certificate_hash"
    " WHERE p.peer = ? AND p.mesh = ?"
)


@serves
async def certify(context: Context, request: Certify) -> Certified:
    """Publish a certificate of the caller's own; from then on it is addressable."""
    certificate = Certificate.parse(request.certificate)
    said, caller, now_ms = certificate.fields, context.caller, context.now_ms
    if (said.peer, said.member) != (caller.peer, caller.member):
        raise Forbidden("A peer publishes its own certificate only.", code="wrong_certificate")
    check_certificate(context.chain, certificate, now_ms)

    def change(sql: Sql) -> News | None:
        peers.put_certificate(sql, certificate, now_ms)
        return peers.publish(sql, certificate)

    news = await context.write(change)
    context.parts.roster.remember(certificate)
    if news is not None:
        await context.parts.tell_presence(caller.mesh, caller.peer, news)
    return Certified(handle=said.handle)


@serves
async def update(context: Context, request: UpdatePresence) -> PresenceUpdated:
    """Change what is shown of the caller; the handle it gets may be another than it wished for."""
    profile = None if request.profile is None else _profile(request.profile)
    caller, chain, now_ms = context.caller, context.chain, context.now_ms

    def change(sql: Sql) -> News | None:
        before = peers.find(sql, caller.mesh, caller.peer)
        # Only who hides is told of with what was known before: it leaves.
        shown = None if request.visible is not False else read_card(sql, chain, caller.peer, now_ms)
        if request.handle is not None:
            handles.change(sql, caller.mesh, caller.peer, [request.handle], now_ms)
        sql.execute(
            "UPDATE peers SET role = coalesce(?, role), status = coalesce(?, status),"
            " summary = coalesce(?, summary), profile = coalesce(?, profile),"
            " visible = coalesce(?, visible), share_cwd = coalesce(?, share_cwd),"
            " routes = coalesce(?, routes)"
            " WHERE mesh = ? AND peer = ?",
            request.role,
            request.status,
            request.summary,
            profile,
            request.visible,
            request.share_cwd,
            None if request.routes is None else ",".join(request.routes),
            caller.mesh,
            caller.peer,
        )
        return _news(before, peers.find(sql, caller.mesh, caller.peer), shown)

    news = await context.write(change)
    if news is not None:
        card = await context.parts.tell_presence(caller.mesh, caller.peer, news)
    else:
        card = await context.read(partial(read_card, chain=chain, peer=caller.peer, now_ms=now_ms))
    return PresenceUpdated(card=card)


def _news(before: Row | None, after: Row | None, shown: PeerCard | None) -> News | None:
    """Say what others hear of a change; for them a peer that hides leaves, and joins when it shows.

    Nothing of one that they were not told of, or that has left.

    Args:
        before: The peer's row before the change.
        after: Its row now.
        shown: What others knew of one that hides.
    """
    if before is None or after is None or before == after or after["departed_ms"] is not None:
        return None
    if before["visible"] == after["visible"]:
        return News(Change.UPDATED)
    if after["visible"]:
        return News(Change.JOINED)
    return News(Change.LEFT, shown=shown and shown.model_copy(update={"online": False}))


def _profile(profile: dict[str, Any]) -> str:
    check_profile(profile)
    written = json.dumps(profile, ensure_ascii=False, separators=(",", ":"))
    if len(written.encode()) > MAX_PROFILE_BYTES:
        raise TooMuch(
            f"A profile has at most {MAX_PROFILE_BYTES} bytes.",
            "Say less, or share a file.",
            code="profile_too_large",
        )
    return written


@serves
async def depart(context: Context, request: Depart) -> Departed:  # noqa: ARG001 - the request's class is the registration
    """See the caller off: its lease ends now, and its mesh hears that it left."""
    caller, now_ms, tallies = context.caller, context.now_ms, context.parts.tallies

    # Its socket may still be open when another takes its place, and with it what it had counted.
    with tallies.written_off(caller.mesh, caller.peer) as tally:

        def change(sql: Sql) -> bool:
            peers.count(sql, caller.mesh, caller.peer, tally)
            return peers.depart(sql, caller.mesh, caller.peer, now_ms)

        told = await context.write(change)
    if told:
        await context.parts.tell_presence(caller.mesh, caller.peer, News(Change.LEFT))
    return Departed()


@serves
async def certificates(context: Context, request: FetchCertificates) -> CertificatesFound:
    """Give the certificates of one's own mesh that the broker has, of those asked for."""
    mesh = context.caller.mesh

    def query(sql: Sql) -> list[bytes]:
        found = [sql.value(_OF_HASH, name, mesh) for name in request.hashes]
        found += [sql.value(_OF_PEER, peer, mesh) for peer in request.peers]
        return [blob for blob in dict.fromkeys(found) if blob is not None]

    return CertificatesFound(certificates=await context.read(query))
