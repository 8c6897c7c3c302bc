"""Keeps apart what a backup is writing now and what one that was killed has left behind.

``backup.py`` writes through here. A backup in the making is a hidden file beside the place where it
is to be, under a lock that the system frees when its writer dies. Whatever else the writer needs is
named after that file.
"""

import os
import re
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from claudemesh_broker.folders import FILE_MODE, lock_now, storage_errors, temporary_beside

_COPY: Final = ".sqlite3"
_NAME: Final = re.compile(
    rf"(?P<held>\.(?P<made>.+)\.[0-9a-f]{{16}}\.tmp)(?:{re.escape(_COPY)})?(?:-journal|-wal|-shm)?",
    re.ASCII,
)


@contextmanager
def held_beside(path: Path) -> Generator[Path]:
    """Make a private file beside another, as ``temporary_beside`` does, and hold it.

    Args:
        path: The file that it is to become.
    """
    while True:
        with temporary_beside(path) as temporary, temporary.open("rb") as file:
            if _is_held(temporary, file.fileno()):
                yield temporary
                return


@contextmanager
def copy_beside(held: Path) -> Generator[Path]:
    """Make a private file for the copy of a database that goes into a file that is held."""
    copy = held.with_name(f"{held.name}{_COPY}")
    with storage_errors(copy):
        copy.touch(FILE_MODE, exist_ok=False)
    try:
        yield copy
    finally:
        for path in (copy.with_name(f"{copy.name}-journal"), copy):
            path.unlink(missing_ok=True)


def sweep(folder: Path, made: "re.Pattern[str]") -> None:
    """Remove what writers that are gone have left in a folder; what can't be removed stays.

    Args:
        folder: The folder.
        made: What the files were to be called that they were writing.
    """
    if sys.platform == "win32":  # there, a file that is held can't be moved to its place
        return
    left: dict[str, list[Path]] = {}
    with suppress(OSError):
        for path in folder.iterdir():
            found = _NAME.fullmatch(path.name)
            if found is not None and made.fullmatch(found["made"]):
                left.setdefault(found["held"], []).append(path)
    for name, paths in left.items():
        with suppress(OSError):
            _remove_unheld(folder / name, paths)


def _remove_unheld(held: Path, paths: Iterable[Path]) -> None:
    handle = None
    with suppress(FileNotFoundError):
        handle = os.open(held, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if handle is None or lock_now(handle):
            # The held one last: a kill before that leaves the rest findable.
            for path in sorted(paths, key=lambda one: one == held):
                if path.lstat().st_uid == os.getuid():
                    path.unlink(missing_ok=True)
    finally:
        if handle is not None:
            os.close(handle)


def _is_held(path: Path, handle: int) -> bool:
    """Take a file for its writer, unless somebody took it for a leftover in this moment."""
    if sys.platform == "win32":
        return True
    try:
        if not lock_now(handle):
            return False
    except OSError:  # a disk that knows no locks: there, nothing is swept either
        return True
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False
