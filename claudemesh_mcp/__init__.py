"""Sessions on the mesh: ``from claudemesh_mcp import Mesh`` is the door for Python programs.

Nothing is imported until it is asked for: `claudemesh mcp` answers its client before it loads what
only a connected session needs. ``Mesh`` comes from ``sdk.py``.
"""

# Not from `typing`: that takes longer than the whole of `claudemesh statusline`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh as Mesh
    from claudemesh_wire import VERSION as __version__  # noqa: N811 - the name packages give it

__all__ = ["Mesh", "__version__"]


def __getattr__(name: str) -> object:
    """Import what is asked for, once."""
    if name == "Mesh":
        from claudemesh_mcp.sdk import Mesh

        return Mesh
    if name == "__version__":
        from claudemesh_wire import VERSION

        return VERSION
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what can be asked for."""
    return __all__
