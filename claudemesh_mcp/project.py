"""What a session works on: the project's name, and the handles that follow from it.

``sdk.py`` asks once per start. Everything is read from files; git itself is not run.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claudemesh_wire.address import MAX_HANDLE, handle_from, is_handle
from claudemesh_wire.errors import Invalid

_MOST_BYTES: Final = 4096


@dataclass(frozen=True)
class Project:
    """A folder somebody works in.

    Args:
        name: The repository's name, else the folder's.
        variant: The worktree's name, else the branch; empty outside of git.
        cwd: The folder itself.
    """

    name: str
    variant: str
    cwd: Path

    def handles(self) -> list[str]:
        """Give the handles to wish for, best first, as ``shop`` and ``shop-new-checkout``."""
        first = handle_from(self.name)
        second = handle_from(f"{first}-{self.variant}"[:MAX_HANDLE]) if self.variant else first
        return [first] if second == first else [first, second]


def find_project(cwd: Path) -> Project:
    """Find the repository around a folder; without one the folder is the project."""
    here = Path(os.path.normpath(cwd.absolute()))
    for folder in (here, *here.parents):
        git = folder / ".git"
        # Unlike its methods of the same name these take a folder we can't look into for none.
        if os.path.isdir(git):  # noqa: PTH112 - see above
            return Project(as_text(folder.name), _branch(git), _path_as_text(here))
        if os.path.isfile(git):  # noqa: PTH113 - see above
            return _linked(folder, git, here)
    return Project(as_text(here.name), "", _path_as_text(here))


def _linked(folder: Path, git: Path, here: Path) -> Project:
    """Read a linked worktree or submodule, whose ``.git`` is a file that points elsewhere.

    Source: gitrepository-layout(5): only a linked worktree's folder has a file ``commondir``.
    """
    inner = folder / _first_line(git).removeprefix("gitdir:").strip()
    common = _first_line(inner / "commondir")
    if not common:
        return Project(as_text(folder.name), _branch(inner), _path_as_text(here))
    repository = Path(os.path.normpath(inner / common))
    name = (
        repository.parent.name
        if repository.name == ".git"
        else repository.name.removesuffix(".git")
    )
    return Project(as_text(name or folder.name), as_text(folder.name), _path_as_text(here))


def _branch(git: Path) -> str:
    """Give the branch; none when a commit is checked out, or a newer git keeps it elsewhere."""
    head = _first_line(git / "HEAD")
    branch = head.removeprefix("ref: refs/heads/")
    return "" if branch in {head, ".invalid"} else branch


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_BYTES).partition("\n")[0].strip()
    except (OSError, ValueError):
        return ""


def as_text(name: str) -> str:
    """Give a name of this system as text: what is not UTF-8 in it can't be sent to anybody."""
    return name.encode("utf-8", "replace").decode()


def _path_as_text(path: Path) -> Path:
    return Path(as_text(str(path)))


def wished_handle(name: str) -> str:
    """Check a handle that a user asks for by name.

    Raises:
        Invalid: ``bad_handle``; the hint proposes one that would do.
    """
    lowered = name.strip().lower()
    if not is_handle(lowered):
        raise Invalid(
            f"{name[:60]!a} can't be a handle.",
            f"Use 1 to 40 of a-z, 0-9, '.', '_' and '-', as {handle_from(name, otherwise='ada')}.",
            code="bad_handle",
        )
    return lowered


def host_label() -> str:
    """Give this machine's name as others may see it, without its domain."""
    return as_text(socket.gethostname()).partition(".")[0][:80] or "unknown"
