"""Keeps the broker's folders and files private and whole, and its data folder to one process.

``datafile.py`` and ``embedded.py`` make their folders and files through here. Everything is
synchronous and short: it runs before the broker listens or after it has stopped.
"""

import errno
import os
import secrets
import shlex
import stat
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from claudemesh_wire.errors import Conflict, Forbidden, MeshError, Unavailable

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_OTHERS: Final = 0o077
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def private_folder(folder: Path) -> Path:
    """Make a folder that only this user can enter, or check that it is one.

    Raises:
        Forbidden: It is no folder (``not_a_folder``), somebody else's (``wrong_owner``) or open
            to others (``wrong_mode``).
        Unavailable: It can't be made (``storage_full``, ``storage_failed``).
    """
    with storage_errors(folder):
        try:
            folder.mkdir(FOLDER_MODE, parents=True)
        except FileExistsError:
            pass
        else:
            # The umask of a shell may have taken bits of the owner's too.
            folder.chmod(FOLDER_MODE)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise Forbidden(
            f"{folder} is not a folder.", "Move it away, or name another.", code="not_a_folder"
        )
    _refuse_unsafe(folder, found, FOLDER_MODE)
    return folder


def create_private(path: Path, data: bytes = b"") -> bool:
    """Create a file that must not exist yet, whole and on disk.

    Returns:
        Whether this call made it; if not, one is there already.
    """
    with storage_errors(path), temporary_beside(path, data) as temporary:
        try:
            # A link, unlike a rename, refuses to replace; unlike O_EXCL it shows no half file.
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True


def replace_private(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or a crash, meets the old content or the new, whole."""
    with storage_errors(path), temporary_beside(path, data) as temporary:
        temporary.replace(path)
        sync_folder(path.parent)


def read_private(path: Path, max_bytes: int = 65_536) -> bytes | None:
    """Read a file that only this user can have written, or give ``None`` when there is none."""
    with storage_errors(path):
        try:
            handle = os.open(path, os.O_RDONLY | _NO_FOLLOW)
        except FileNotFoundError:
            return None
        with open(handle, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            _refuse_unsafe(path, os.fstat(handle), FILE_MODE)
            return file.read(max_bytes)


class FolderLock:
    """A lock on a folder that this process holds; the system frees it when the process dies.

    Args:
        handle: The open descriptor of the lock file, not inherited by child processes.
    """

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    @classmethod
    def take(cls, folder: Path, patience_s: float = 0.5) -> Self:
        """Take the folder for this process.

        Args:
            folder: The data folder.
            patience_s: How long to go on trying: whoever looks for a broker may hold it briefly.

        Raises:
            Conflict: ``data_in_use``: another broker has it; the reason names its pid.
        """
        path = private_folder(folder) / "lock"
        with storage_errors(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, FILE_MODE)
            try:
                if not _lock_soon(handle, patience_s):
                    raise _in_use(folder, _holder(handle))
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            except BaseException:
                os.close(handle)
                raise
        return cls(handle)

    def release(self) -> None:
        """Let the next broker in; the file stays, or two could lock two files of one name."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        """Hold it for a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self.release()


def _holder(handle: int) -> str:
    return os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"


def _lock_soon(handle: int, patience_s: float) -> bool:
    until_s = time.monotonic() + patience_s
    pause = threading.Event()
    while not lock_now(handle):
        if time.monotonic() >= until_s:
            return False
        # The system offers no lock with a limit, so this thread asks again and again.
        pause.wait(0.02)
    return True


def _in_use(folder: Path, holder: str) -> Conflict:
    return Conflict(
        f"Another broker (pid {holder}) works on {folder}.",
        "Use that one, stop it with `claudemesh down`, or name another folder by --data.",
        code="data_in_use",
        details={"pid": int(holder)} if holder.isdigit() else {},
    )


if sys.platform == "win32":

    def lock_now(handle: int) -> bool:
        """Take the lock of an open file if nobody has it; gives whether it was taken."""
        import msvcrt  # noqa: PLC0415 - it exists on this platform only

        try:
            # Far behind the pid: on this platform a locked byte can't be read by others.
            os.lseek(handle, 1024, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:

    def lock_now(handle: int) -> bool:
        """Take the lock of an open file if nobody has it; gives whether it was taken."""
        import fcntl  # noqa: PLC0415 - it exists on these platforms only

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def storage_errors(path: Path) -> Generator[None]:
    """Turn what the system says about a file into a refusal that says what to do."""
    try:
        yield
    except OSError as error:
        raise _storage_error(path, error) from error


def _storage_error(path: Path, error: OSError) -> MeshError:
    if error.errno in _FULL:
        return Unavailable(
            f"There is no space left to write {path}.",
            "Free some space on that disk; what was accepted before is safe.",
            code="storage_full",
        )
    return Unavailable(
        f"{path} can't be read or written: {error.strerror}.",
        "Check the disk and the permissions of its folder.",
        code="storage_failed",
    )


def _refuse_unsafe(path: Path, found: os.stat_result, mode: int) -> None:
    # Windows keeps a user's folders private by inherited rights that these bits do not show.
    if sys.platform == "win32":
        return
    if found.st_uid != os.getuid():
        raise Forbidden(
            f"{path} belongs to user {found.st_uid}, not to user {os.getuid()} who runs this.",
            f"Run as its owner, or give it to this user: chown {os.getuid()} {_word(path)}",
            code="wrong_owner",
        )
    if found.st_mode & _OTHERS:
        raise Forbidden(
            f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):o}).",
            f"Close it, if it is the broker's alone: chmod {mode:o} {_word(path)}",
            code="wrong_mode",
        )


def _word(path: Path) -> str:
    """Write a path as a shell reads it."""
    return shlex.quote(str(path))


@contextmanager
def temporary_beside(path: Path, data: bytes = b"") -> Generator[Path]:
    """Make a private file beside another, to take its place when it is whole; removes it if not."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with storage_errors(path):
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, FILE_MODE)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(data)
            file.flush()
            os.fsync(handle)
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Have the disk keep what was renamed, linked or removed in a folder."""
    if sys.platform == "win32":  # it opens no folder for this, and its journal orders renames
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
