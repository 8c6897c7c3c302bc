"""Tunnels: connects two peers that are here, and passes on what they say, unread and unstored.

``service.py`` calls it; ``lines.py`` knows who is at which end.
"""

from functools import partial

from claudemesh_broker import audience, peers
from claudemesh_broker.audience import Asker
from claudemesh_broker.service import Context, serves
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire import frame
from claudemesh_wire.address import parse
from claudemesh_wire.errors import Unavailable
from claudemesh_wire.tunnels import (
    CloseTunnel,
    DataCame,
    DataPassed,
    OpenTunnel,
    PassData,
    TunnelAsked,
    TunnelClosed,
    TunnelOpened,
)


@serves
async def open_tunnel(context: Context, request: OpenTunnel) -> TunnelOpened:
    """Connect the caller with a peer whose connection stands, and ask that peer."""
    caller, parts = context.caller, context.parts
    row = await context.read(partial(_meant, context=context, peer=request.peer))
    # Behind the query: whoever went meanwhile is not here.
    feed = parts.deliveries.feed(caller.mesh, request.peer)
    if feed is None:
        raise _away(row)
    number = parts.lines.open(context.outlet, feed.outlet)
    asked = TunnelAsked(
        tunnel=number, peer=caller.peer, offer=request.offer, certificate=request.certificate
    )
    feed.outlet.put(frame.encode(0, 0, asked))
    return TunnelOpened(tunnel=number)


def _meant(sql: Sql, context: Context, peer: str) -> Row | None:
    """Give the row of the peer that is meant, if the caller may turn to it."""
    caller, now_ms = context.caller, context.now_ms
    asker = Asker(context.chain, caller.peer, caller.member, now_ms, now_ms)
    audience.resolve(sql, asker, [parse(peer)])
    return peers.find(sql, caller.mesh, peer)


def _away(row: Row | None) -> Unavailable:
    # Of one that hides nobody learns when it was here.
    shown = row is not None and bool(row["visible"])
    details = {"host": row["host"] or "", "since_ms": row["last_seen_ms"]} if shown and row else {}
    name = (row["handle"] or row["peer"]) if row is not None else "That peer"
    return Unavailable(
        f"{name} has no connection to the broker now.",
        "Try again when its session is back; search_peers shows who is here.",
        code="peer_offline",
        details=details,
    )


@serves
async def pass_data(context: Context, request: PassData) -> DataPassed:
    """Hand data to the other end's socket, and wait until there is room for more."""
    other = context.parts.lines.other(request.tunnel, context.outlet)
    other.put(frame.encode(0, 0, DataCame(tunnel=request.tunnel, data=request.data)))
    await other.room()
    return DataPassed()


@serves
async def close_tunnel(context: Context, request: CloseTunnel) -> TunnelClosed:
    """End a tunnel of the caller's."""
    reason = request.reason or "The other end closed it."
    context.parts.lines.close(request.tunnel, context.outlet, "closed", reason)
    return TunnelClosed()
