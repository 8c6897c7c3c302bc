"""The settings of this command: what holds here, and over it the options before the command's name.

Every command reads its settings here, so that ``claudemesh --mesh NAME …`` works for all of them.
"""

from typing import TYPE_CHECKING, Any, Final

from claudemesh_mcp import config
from claudemesh_mcp.config import Settings

if TYPE_CHECKING:
    from claudemesh_mcp.home import Home

_FLAGS: Final[dict[str, Any]] = {}


def choose(mesh: str | None) -> None:
    """Take the option ``--mesh``; none leaves the choice to variable, project and file."""
    _FLAGS["mesh"] = mesh


def settings() -> Settings:
    """Read the settings of this command.

    Raises:
        Invalid: ``config_invalid``.
    """
    return Settings.load(_FLAGS)


def home() -> "Home":
    """Open the home of this command.

    Raises:
        MeshError: the settings make no sense, or the home can't be used.
    """
    from claudemesh_mcp.home import Home

    return Home.open(settings().paths())


def standing() -> Settings:
    """Read the settings that hold here for whatever starts next: without this command's options.

    Raises:
        Invalid: ``config_invalid``.
    """
    return Settings.load()


def origins() -> dict[str, str]:
    """Say what gave each setting of this command that is not left at its default.

    Raises:
        Invalid: ``config_invalid``.
    """
    told = config.what_was_told(_FLAGS)
    return {key: origin for origin, values in told.items() for key in values}
