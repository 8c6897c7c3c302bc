"""What somebody wants to offer to the mesh: a server, by what name, and for whom.

``offering.py`` makes it true; the tools of the model, the command line and programs write one, and
of a server that is to come back it is kept sealed.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import TypeAdapter, ValidationError

from claudemesh_mcp.hosting.launch import Launch
from claudemesh_wire.errors import Invalid
from claudemesh_wire.mcp_servers import OWN, ServerName, check_viewers

_NAME: Final = TypeAdapter[str](ServerName)
_LONGEST_DESCRIPTION: Final = 2000
_MOST_VIEWERS: Final = 64


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

    def check(self) -> None:
        """Refuse what could be offered by nobody, before it is kept.

        Raises:
            Invalid: ``bad_server``: its name or description can't be shown; ``bad_viewer``.
        """
        try:
            _NAME.validate_python(self.name)
        except ValidationError:
            is_named = False
        else:
            is_named = True
        is_described = len(self.description) <= _LONGEST_DESCRIPTION
        if not (is_named and is_described and 0 < len(self.visible_to) <= _MOST_VIEWERS):
            raise Invalid(
                "A server can't be offered so.",
                "name: 1 to 40 of a-z, 0-9, _ and -, not beginning with _ or -; description: at"
                " most 2000 characters; visible_to: 1 to 64 viewers.",
                code="bad_server",
            )
        check_viewers(self.visible_to)
