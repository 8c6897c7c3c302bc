"""What a session works on: the project's name, and the handles that follow from it.

``sdk.py`` asks once per start. Everything is read from files; git itself is not run.
"""

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
    for folder in (cwd, *cwd.parents):
        git = folder / ".git"
        if git.is_dir():
            return Project(folder.name, _branch(git), cwd)
        if git.is_file():
            return _worktree(folder, git, cwd)
    return Project(cwd.name, "", cwd)


def _worktree(folder: Path, git: Path, cwd: Path) -> Project:
    """Read a linked worktree or submodule, whose ``.git`` is a file that points elsewhere."""
    target = Path(_first_line(git).removeprefix("gitdir:").strip())
    inner = target if target.is_absolute() else folder / target
    if inner.parent.name == "worktrees":
        repository = inner.parent.parent.parent
        return Project(repository.name or folder.name, folder.name, cwd)
    return Project(folder.name, _branch(inner), cwd)


def _branch(git: Path) -> str:
    head = _first_line(git / "HEAD")
    return head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else ""


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_BYTES).partition("\n")[0].strip()
    except OSError:
        return ""


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
    return socket.gethostname().partition(".")[0][:80] or "unknown"
