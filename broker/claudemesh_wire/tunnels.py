"""Tunnels: live lines between two attached peers, of which the broker passes on sealed bytes.

Served by ``claudemesh_broker.features.tunnels``; ``claudemesh_mcp.tunnels`` opens and answers them,
``tunnel_keys.py`` seals what goes through. Nothing of a tunnel is stored: it ends with either
connection, and the other end is told at once.
"""

from typing import Annotated, Final

from pydantic import Field

from claudemesh_wire.certificate import MAX_CERTIFICATE_BYTES
from claudemesh_wire.message import Message, Notice, PeerId, Rate, Request, Rule, Whole

MAX_OFFER_BYTES: Final = 4096
MAX_DATA_BYTES: Final = 256 * 1024
MAX_TUNNELS: Final = 256
"""So many of one peer may be open, whoever opened them."""


class TunnelOpened(Message, kind="tunnels.opened"):
    """The callee was asked; what it answers comes as the tunnel's first data."""

    tunnel: Whole


class OpenTunnel(Request[TunnelOpened], kind="tunnels.open", rule=Rule.WRITE, rate=Rate.RPC):
    """Ask for a line to a peer that is attached now.

    Refused with ``peer_offline`` when it has no connection, whatever its lease says; the details
    carry ``host`` and ``since_ms``. Refused with ``too_many_tunnels`` when either end has too many.
    """

    peer: PeerId
    offer: Annotated[bytes, Field(min_length=1, max_length=MAX_OFFER_BYTES)]
    certificate: Annotated[bytes, Field(min_length=1, max_length=MAX_CERTIFICATE_BYTES)]


class DataPassed(Message, kind="tunnels.passed"):
    """The data are on their way to the other end's socket."""


class PassData(Request[DataPassed], kind="tunnels.pass", rule=Rule.READ, rate=Rate.TUNNEL):
    """Pass data on to the other end.

    The answer comes when the other end has room for more: so a fast end waits for a slow one.
    Refused with ``no_tunnel`` when the tunnel has ended: then the data have not left the broker.
    """

    tunnel: Whole
    data: Annotated[bytes, Field(min_length=1, max_length=MAX_DATA_BYTES)]


class TunnelClosed(Message, kind="tunnels.closed"):
    """The tunnel is no more; the other end has been told, if there was one."""


class CloseTunnel(Request[TunnelClosed], kind="tunnels.close", rule=Rule.READ, rate=Rate.RPC):
    """End a tunnel of one's own; one that has ended already is no error."""

    tunnel: Whole
    reason: Annotated[str, Field(max_length=200)] = ""


class TunnelAsked(Notice, kind="tunnels.asked"):
    """Somebody asks for a line; ``certificate`` is what its offer is to be believed by."""

    tunnel: Whole
    peer: PeerId
    offer: bytes
    certificate: bytes


class DataCame(Notice, kind="tunnels.came"):
    """Data from the other end, in the order in which they were handed over."""

    tunnel: Whole
    data: bytes


class TunnelEnded(Notice, kind="tunnels.ended"):
    """The tunnel is no more: ``closed`` by the other end, or ``gone`` with its connection."""

    tunnel: Whole
    code: str
    reason: str
