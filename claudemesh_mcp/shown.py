"""What builds the answers that are shown, imported with the first one: an idle session has none.

``sdk.py`` calls ``shown.messages``, ``shown.history`` and ``shown.mesh``, which are
``shown_messages.py``, ``shown_history.py`` and ``shown_mesh.py``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from claudemesh_mcp import shown_history as history
    from claudemesh_mcp import shown_mesh as mesh
    from claudemesh_mcp import shown_messages as messages

__all__ = ["history", "mesh", "messages"]

_MODULES: Final = {
    "history": "claudemesh_mcp.shown_history",
    "mesh": "claudemesh_mcp.shown_mesh",
    "messages": "claudemesh_mcp.shown_messages",
}


def __getattr__(name: str) -> object:
    """Import what is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # From now on it is found without this function.
    globals()[name] = module = import_module(_MODULES[name])
    return module
