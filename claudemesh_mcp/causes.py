"""Why a connection ended, out of the groups of errors in which its tasks wrap it.

``attachment.py`` asks it before the next attempt.
"""

from typing import Final, cast

from claudemesh_mcp.connection import LinkClosed
from claudemesh_wire.errors import MeshError

_EXPECTED: Final = (MeshError, LinkClosed, OSError)


def is_expected(error: Exception) -> bool:
    """Tell whether nothing else than a connection's usual end is in an error or group of them."""
    return all(isinstance(one, _EXPECTED) for one in _parts(error))


def cause_of(error: Exception) -> Exception:
    """Give the error itself, out of the groups in which tasks wrap it."""
    return _parts(error)[0]


def _parts(error: Exception) -> list[Exception]:
    if not isinstance(error, ExceptionGroup):
        return [error]
    group = cast("ExceptionGroup[Exception]", error)
    return [part for one in group.exceptions for part in _parts(one)]
