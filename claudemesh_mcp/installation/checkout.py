"""Which folder Claude Code takes for the project of a user: the root of the main git checkout.

``scopes.py`` asks. What is for one user in a project is filed there by the client, whichever folder
below it, or which of its work trees, a session is started in. Git is not run for it.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_GIT: Final = ".git"
_POINTER: Final = "gitdir:"


def root_of(folder: Path) -> Path | None:
    """Give the root of the main checkout that a folder is in; ``None`` outside of any.

    Args:
        folder: An absolute folder.
    """
    for one in (folder, *folder.parents):
        if _is_there(one / _GIT):
            with suppress(OSError, ValueError):
                return _main_of(one)
            return one
    return None


def settings_folder(folder: Path) -> Path:
    """Give the folder whose ``.claude`` has the settings of one user in the project of a folder.

    The root, unless that is the user's home or in part another user's.

    Args:
        folder: An absolute folder.
    """
    root = root_of(folder)
    if root is None or root == _real(Path.home()):
        return folder
    try:
        owners = {root.stat().st_uid, (root / _GIT).lstat().st_uid}
        with suppress(FileNotFoundError):
            owners.add((root / ".claude").lstat().st_uid)
    except OSError:
        return folder
    return root if owners == {os.geteuid()} else folder


def _main_of(root: Path) -> Path:
    """Give the checkout that a work tree was made from, if both say so; else the same folder.

    Raises:
        OSError: it is no work tree.
        ValueError: what stands there is no text.
    """
    told = (root / _GIT).read_text("utf-8").strip()
    if not told.startswith(_POINTER):
        return root
    own = _joined(root, told.removeprefix(_POINTER).strip())
    common = _joined(own, (own / "commondir").read_text("utf-8").strip())
    back = _joined(own, (own / "gitdir").read_text("utf-8").strip())
    if own.parent != common / "worktrees" or _real(back) != _real(root) / _GIT:
        return root
    if common.name == _GIT:
        return common.parent
    return root if _is_there(common / _GIT) else common


def _is_there(git: Path) -> bool:
    return git.is_dir() or git.is_file()


def _joined(folder: Path, told: str) -> Path:
    return Path(os.path.normpath(folder / told))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
