"""Keeps one user's folders and files private, whole and locked, whatever dies in between.

``config.py`` says where they are; ``keystore.py``, ``identity.py``, ``launcher.py``, ``trust.py``
and ``peerfile.py`` write through here. Everything is synchronous: call it in a worker thread.
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
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from claudemesh_mcp.config import Paths
from claudemesh_wire.errors import Forbidden, MeshError, Unavailable

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
LOCK_TIMEOUT_S: Final = 30.0
MAX_FILE_BYTES: Final = 16 * 1024 * 1024

_OTHERS: Final = 0o077
_TEMP_SUFFIX: Final = ".tmp"
# A temporary file lives for milliseconds; one of this age was left behind by a killed process.
_LEFT_BEHIND_S: Final = 3600.0
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_BINARY: Final = getattr(os, "O_BINARY", 0)


class Home:
    """The folders of one user, made on first use and refused when others can look in.

    Args:
        paths: Where the folders are.
    """

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.data = paths.data
        self.broker = paths.broker
        self.run = paths.run
        self.keys = paths.keys
        self.meshes = paths.meshes
        self.sessions = paths.sessions
        self.logs = paths.logs

    @classmethod
    def open(cls, paths: Paths) -> Self:
        """Make the folders that are missing and check the others.

        Args:
            paths: Where the folders are, as ``Settings.paths()`` gives them.

        Raises:
            Forbidden: A folder is somebody else's (``wrong_owner``) or open to others
                (``wrong_mode``).
            Unavailable: A folder can't be made (``storage_full``, ``storage_failed``).
        """
        home = cls(paths)
        private_folder(home.data)
        for folder in (home.broker, home.run, home.keys, home.meshes, home.sessions, home.logs):
            private_folder(folder)
        # Sealed keys are erased on purpose; a copy that a kill left behind would outlive that.
        sweep_leftovers(home.data)
        sweep_leftovers(home.keys)
        return home

    def lock(self, timeout_s: float = LOCK_TIMEOUT_S) -> AbstractContextManager["FileLock"]:
        """Hold the home: first start, new keys and migrations happen one process at a time.

        Args:
            timeout_s: How long to wait for another process.
        """
        return file_lock(self.data / "home.lock", timeout_s)


def private_folder(folder: Path) -> Path:
    """Make a folder that only this user can enter, or check that it is one.

    Args:
        folder: The folder; its parents are made too.

    Returns:
        The same folder.

    Raises:
        Forbidden: It is not a folder (``not_a_folder``), somebody else's (``wrong_owner``) or
            open to others (``wrong_mode``).
        Unavailable: It can't be made (``storage_full``, ``storage_failed``).
    """
    with _storage_errors(folder):
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
            f"{folder} is not a folder.",
            "Move it away, or name another home by CLAUDEMESH_HOME.",
            code="not_a_folder",
        )
    _refuse_unsafe(folder, found, FOLDER_MODE)
    return folder


def read_private(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes | None:
    """Read a file that only this user can have written.

    Args:
        path: The file.
        max_bytes: The most that it may hold.

    Returns:
        Its content, or ``None`` when there is no such file.

    Raises:
        Forbidden: It is a link or no regular file (``not_a_file``), somebody else's
            (``wrong_owner``) or open to others (``wrong_mode``).
        Unavailable: It can't be read (``storage_failed``).
    """
    # Without O_NONBLOCK a pipe of that name would hold this thread for ever.
    flags = os.O_RDONLY | _NO_FOLLOW | _BINARY | getattr(os, "O_NONBLOCK", 0)
    with _storage_errors(path):
        try:
            handle = os.open(path, flags)
        except FileNotFoundError:
            return None
        with open(handle, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size > max_bytes:
                raise _not_a_file(path)
            _refuse_unsafe(path, found, FILE_MODE)
            return file.read(max_bytes)


def atomic_write(path: Path, data: bytes, mode: int = FILE_MODE) -> None:
    """Replace a file so that a reader, or a crash, meets the old content or the new, whole.

    Args:
        path: The file; its folder exists.
        data: All of its new content.
        mode: Its permissions.

    Raises:
        Unavailable: The disk is full (``storage_full``) or refuses (``storage_failed``); the old
            content is untouched.
    """
    with _storage_errors(path), _temporary(path, data, mode) as temporary:
        temporary.replace(path)
        _sync_folder(path.parent)


def create_once(path: Path, data: bytes, mode: int = FILE_MODE) -> bool:
    """Create a file that must not exist yet; of many creators one wins, with all of its content.

    Args:
        path: The file; its folder exists.
        data: All of its content.
        mode: Its permissions.

    Returns:
        Whether this call created it; if not, the content of the winner is there.

    Raises:
        Unavailable: The disk is full (``storage_full``) or refuses (``storage_failed``).
    """
    with _storage_errors(path), _temporary(path, data, mode) as temporary:
        try:
            # A link, unlike a rename, refuses to replace; unlike O_EXCL it shows no half file.
            os.link(temporary, path)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True


def remove(path: Path) -> bool:
    """Remove a file for good, also over a power cut.

    Args:
        path: The file.

    Returns:
        Whether there was one.

    Raises:
        Unavailable: The disk refuses (``storage_failed``).
    """
    with _storage_errors(path):
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        _sync_folder(path.parent)
        return True


def sweep_leftovers(folder: Path, now_s: float | None = None) -> None:
    """Remove what writers that were killed left half-done in a folder.

    Args:
        folder: The folder to look in.
        now_s: The time in seconds since the epoch; the clock's if not given.
    """
    oldest = (time.time() if now_s is None else now_s) - _LEFT_BEHIND_S
    for path in folder.glob(f".*{_TEMP_SUFFIX}"):
        with suppress(OSError):
            if path.lstat().st_mtime < oldest:
                path.unlink()


@dataclass(frozen=True, slots=True)
class FileLock:
    """A lock on a file that this process holds; the system frees it when the process dies.

    Args:
        path: The lock file, which stays: removing it would let two processes lock two files.
        handle: Its open descriptor, which is not inherited by programs started from here.
    """

    path: Path
    handle: int

    def release(self) -> None:
        """Let the next one in."""
        os.close(self.handle)


def try_lock(path: Path) -> FileLock | None:
    """Take a lock if nobody has it; two takers in one process exclude each other as well.

    Args:
        path: The lock file, made if it is missing.

    Returns:
        The lock, or ``None`` when somebody else holds it.

    Raises:
        Forbidden: The file is a link (``not_a_file``).
        Unavailable: The file can't be made (``storage_full``, ``storage_failed``).
    """
    with _storage_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, FILE_MODE)
        try:
            taken = _lock_now(handle)
        except BaseException:
            os.close(handle)
            raise
    if taken:
        return FileLock(path, handle)
    os.close(handle)
    return None


@contextmanager
def file_lock(path: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Generator[FileLock]:
    """Hold a lock for a block of code in a worker thread.

    Args:
        path: The lock file, made if it is missing.
        timeout_s: How long to wait for another holder.

    Yields:
        The lock.

    Raises:
        Unavailable: Another process kept it for all of that time (``locked``).
    """
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    delay_s = 0.005
    while (lock := try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise Unavailable(
                f"Another claudemesh process has held {path} for {timeout_s:g} s.",
                "Try again; if it stays so, end the process that `fuser` names for that file.",
                code="locked",
            )
        # The system offers no lock with a limit, so this thread asks again and again.
        pause.wait(delay_s)
        delay_s = min(delay_s * 1.5, 0.1)
    try:
        yield lock
    finally:
        lock.release()


if sys.platform == "win32":

    def _lock_now(handle: int) -> bool:
        import msvcrt

        try:
            # Behind whatever the holder notes in the file: a locked byte can't be read there.
            os.lseek(handle, 1024, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:

    def _lock_now(handle: int) -> bool:
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _refuse_unsafe(path: Path, found: os.stat_result, mode: int) -> None:
    # Windows keeps a user's folders private by inherited rights that these bits do not show.
    if sys.platform == "win32":
        return
    word = shlex.quote(str(path))
    if found.st_uid != os.getuid():
        raise Forbidden(
            f"{path} belongs to user {found.st_uid}, not to user {os.getuid()} who runs this.",
            f"Run as its owner, or give it to this user: chown {os.getuid()} {word}",
            code="wrong_owner",
        )
    if found.st_mode & _OTHERS:
        raise Forbidden(
            f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):o}).",
            f"Close it, if it is claudemesh's alone: chmod {mode:o} {word}",
            code="wrong_mode",
        )


def _not_a_file(path: Path) -> Forbidden:
    return Forbidden(
        f"{path} is not a plain file of the expected size.",
        "Move it away; if it is a link, put the file itself there.",
        code="not_a_file",
    )


@contextmanager
def _temporary(path: Path, data: bytes, mode: int) -> Generator[Path]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMP_SUFFIX}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY
    handle = os.open(temporary, flags, mode)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(data)
            file.flush()
            os.fsync(handle)
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":  # it opens no folder for this, and its journal orders renames
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _storage_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise _storage_error(path, error) from error


def _storage_error(path: Path, error: OSError) -> MeshError:
    if error.errno in _FULL:
        return Unavailable(
            f"There is no space left to write {path}.",
            "Free some space on that disk; nothing was lost.",
            code="storage_full",
        )
    if error.errno == errno.ELOOP:
        return _not_a_file(path)
    return Unavailable(
        f"{path} can't be read or written: {error.strerror}.",
        "Check the disk and the permissions of its folder.",
        code="storage_failed",
    )
