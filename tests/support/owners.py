"""Folders of another user, as a program meets them that was started by ``sudo``.

The tests of ``install.sh`` and of ``claudemesh install`` ask for one.
"""

import os
from pathlib import Path
from typing import Final

_SOMEBODY: Final = 4242


def somebody_elses(folder: Path) -> Path:
    """Give a folder that is not this user's: the given one, if its owner can be changed.

    Args:
        folder: One of this user's.
    """
    if os.geteuid() != 0:
        return Path("/usr")
    os.chown(folder, _SOMEBODY, _SOMEBODY)
    return folder
