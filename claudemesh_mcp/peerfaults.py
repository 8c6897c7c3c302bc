"""Says in our words why SQLite did not do what a peer's file was asked for.

``peerfile.py`` translates every error of the driver here, so that callers see ``MeshError`` alone.
"""

from typing import Final

from claudemesh_wire.errors import Invalid, MeshError, Unavailable

BUSY_TIMEOUT_S: Final = 10.0
# A quota or a limit on file sizes reaches SQLite as a failed write, not as a full disk.
_FULL: Final = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})
_BROKEN: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_BUSY: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")
_FAILING: Final = (
    "SQLITE_CANTOPEN",
    "SQLITE_IOERR",
    "SQLITE_NOMEM",
    "SQLITE_PERM",
    "SQLITE_PROTOCOL",
    "SQLITE_READONLY",
)
DAMAGED_HINT: Final = (
    "Move it away to start this session with an empty inbox; messages not yet received wait at"
    " the broker."
)


def refusal(error: BaseException) -> Exception:
    """Say in our words what the file did not do; an error of the change itself stays as it is."""
    if isinstance(error, StopIteration) or not isinstance(error, Exception):
        # A future refuses to carry the one, and its awaiter would take the others for its own end.
        wrapped = RuntimeError(f"a change raised {type(error).__name__}")
        wrapped.__cause__ = error
        return wrapped
    return _storage_error(error) or error


def batch_refusal(error: BaseException) -> MeshError:
    """Say why a whole batch, or the opening, failed."""
    return _storage_error(error) or Unavailable(
        "The session's file could not be written.",
        "Nothing was lost; look into the log.",
        code="storage_failed",
    )


def _storage_error(error: BaseException) -> MeshError | None:
    # Errors that the driver raises by itself carry no name.
    name: str = getattr(error, "sqlite_errorname", "")
    if name in _FULL:
        return Unavailable(
            "There is no space left for this session's messages.",
            "Free some space on that disk; nothing was lost.",
            code="storage_full",
        )
    if name.startswith(_BUSY):
        return Unavailable(
            f"Another process has held this session's file for {BUSY_TIMEOUT_S:g} s.",
            "Try again; nothing was lost.",
            code="locked",
        )
    if name.startswith(_BROKEN):
        return Invalid("This session's file is damaged.", DAMAGED_HINT, code="database_damaged")
    if name.startswith(_FAILING):
        return Unavailable(
            f"This session's file can't be read or written ({name}).",
            "Check the disk and the permissions of its folder.",
            code="storage_failed",
        )
    return None
