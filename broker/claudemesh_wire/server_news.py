"""What is told of MCP servers that come, change and go, to those who may see them.

``claudemesh_broker.service`` tells it, ``claudemesh_mcp.news`` keeps it. It is a file of its own
because every session hears of servers, and few need the rest of ``mcp_servers.py``.
"""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from claudemesh_wire.certificate import MAX_CERTIFICATE_BYTES
from claudemesh_wire.message import Notice, PeerId, ServerName

MAX_TOLD_TOOLS: Final = 50
MAX_TOLD_NAME: Final = 80
"""A longer name of a tool is cut."""


class ServerChange(StrEnum):
    """What happened to a server."""

    REGISTERED = "registered"
    UNREGISTERED = "unregistered"
    CHANGED = "changed"
    OFFLINE = "offline"
    RESTORED = "restored"


class ServerChanged(Notice, kind="server_news.changed"):
    """Something happened to a server that the hearer may see.

    The certificate is the one of the peer that the broker shows under this handle; ``host`` is
    empty if the peer hides, and ``tools`` are some of the names.
    """

    change: ServerChange
    peer: PeerId
    handle: str
    host: str
    name: ServerName
    tools: Annotated[
        list[Annotated[str, Field(max_length=MAX_TOLD_NAME)]], Field(max_length=MAX_TOLD_TOOLS)
    ]
    certificate: Annotated[bytes, Field(max_length=MAX_CERTIFICATE_BYTES)] = b""
