"""What somebody wants to offer to the mesh: a server, by what name, and for whom.

``offering.py`` makes it true; the tools of the model, the command line and programs write one, and
of a server that is to come back it is kept sealed.
"""

from dataclasses import dataclass
from enum import StrEnum

from claudemesh_mcp.hosting.launch import Launch
from claudemesh_wire.mcp_servers import OWN


class Scope(StrEnum):
    """Which sessions of this home a server that is kept comes back in."""

    PROJECT = "project"
    """Those in the folder that it was registered in."""
    USER = "user"
    """Any of them."""
    BROKER = "broker"
    """None of them: the resident peer of `claudemesh broker run --host-mcp`."""


@dataclass(frozen=True)
class ServerWish:
    """A server that is to be offered.

    Args:
        name: Its short name.
        launch: How it is started or reached.
        description: What it is for, for those who may call it.
        visible_to: Whom it is for; see ``RegistrationFields``.
        tools_allowed: Only these of its tools are offered; ``None`` for all.
        persistent: It comes back after everybody was restarted.
        scope: Where, if it does.
    """

    name: str
    launch: Launch
    description: str = ""
    visible_to: tuple[str, ...] = (OWN,)
    tools_allowed: tuple[str, ...] | None = None
    persistent: bool = False
    scope: Scope = Scope.PROJECT
