"""The features, each a file of handlers; importing this package registers all of them."""

from claudemesh_broker.features import (
    grants,
    groups,
    invites,
    mcp_servers,
    meshes,
    messages,
    presence,
    receipts,
    search,
    succession,
    tunnels,
)

__all__ = [
    "grants",
    "groups",
    "invites",
    "mcp_servers",
    "meshes",
    "messages",
    "presence",
    "receipts",
    "search",
    "succession",
    "tunnels",
]
