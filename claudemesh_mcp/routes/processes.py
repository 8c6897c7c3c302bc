"""Tells whether a process lives and is the one that was meant, and lets the newest of a kind win.

``records.py`` names a client by its pid and its start; ``monitor.py`` and the rewake hook claim
their place here, so that no two of them wake one client.
"""

from __future__ import annotations

import os
import sys

from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple, suppress
from claudemesh_mcp.routes.places import Folder

if TYPE_CHECKING:
    from typing import Final

_START_FIELD: Final = 22 - 3
"""Behind the name of the program, which may hold spaces and brackets, the third field comes."""
_ENDED: Final = (b"Z", b"X")
FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


class Living(NamedTuple):
    """A process: a pid alone may be given to another one later.

    Args:
        pid: Its number.
        start: When it started, in a unit of the system's own; 0 if that can't be told.
    """

    pid: int
    start: int

    def __str__(self) -> str:
        """Give both in one word."""
        return f"{self.pid}.{self.start}"

    @classmethod
    def now(cls, pid: int) -> Living:
        """Give the process that has this pid now."""
        return cls(pid, started(pid))

    @classmethod
    def read(cls, word: str) -> Living | None:
        """Read what ``str`` gave."""
        pid, _, start = word.strip().partition(".")
        return cls(int(pid), int(start)) if pid.isdigit() and start.isdigit() else None

    @property
    def exists(self) -> bool:
        """Whether it still runs, or another one has its number by now."""
        return self.pid > 0 and _exists(self.pid)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; one that is dead and that its parent has not buried does not."""
        if not self.exists:
            return False
        start, is_dead = _told(self.pid)
        return not is_dead and (not (start and self.start) or start == self.start)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return False  # Somebody else's, or no pid at all: not the client of this user.
    return True


def started(pid: int) -> int:
    """Say when a process started, in the system's own unit; 0 if that can't be told."""
    return _told(pid)[0]


def _told(pid: int) -> tuple[int, bool]:
    """Say when a process started, and whether it has ended without having been waited for."""
    try:
        if sys.platform == "darwin":
            return _told_by_ps(pid)
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[_START_FIELD]), fields[0] in _ENDED
    except (OSError, ValueError, IndexError):
        return 0, False


def _told_by_ps(pid: int) -> tuple[int, bool]:
    import subprocess
    from zlib import crc32

    asked = ["/bin/ps", "-o", "state=", "-o", "lstart=", "-p", str(pid)]
    told = subprocess.run(asked, capture_output=True, check=False, timeout=2).stdout.strip()
    state, _, start = told.partition(b" ")
    # Only ever compared.
    return (crc32(start.strip()) if start else 0), state[:1] in _ENDED


def claim(path: Folder) -> Claim:
    """Take a place; whoever had it before sees that and leaves."""
    made = Claim(os.fspath(path), str(Living.now(os.getpid())))
    replace_file(made.path, made.word.encode())
    return made


class Claim(NamedTuple):
    """A place that this process has taken.

    Args:
        path: The file that names its holder.
        word: How this process stands in it.
    """

    path: str
    word: str

    @property
    def holds(self) -> bool:
        """Whether no newer process took over, and nobody removed the file."""
        return _word(self.path) == self.word

    def release(self) -> None:
        """Leave the place, unless another process has it already."""
        if self.holds:
            with suppress(OSError):
                os.unlink(self.path)


def holder(path: Folder) -> Living | None:
    """Give the living process that has a place."""
    found = Living.read(_word(os.fspath(path)))
    return found if found is not None and found.is_alive else None


def _word(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(64)
    except OSError:
        return ""


def make_folder(path: str) -> None:
    """Make a folder that is not there, and those above it, for this user alone.

    A monitor may be there before the first server: a home that others could enter, as the umask
    would have it, is refused by every server that comes.

    Raises:
        OSError: the disk refuses.
    """
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent != path:
        make_folder(parent)
    with suppress(FileExistsError):
        os.mkdir(path, FOLDER_MODE)


def replace_file(path: Folder, data: bytes) -> None:
    """Replace a small file so that a reader meets the old content or the new, whole.

    What it says is of processes that run: it need not outlive the power.
    """
    path = os.fspath(path)
    make_folder(os.path.dirname(path))
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
