"""Where the sockets of tests are: in a folder whose path is short enough for one.

``warmstart.py`` and ``claude/terminal.py`` put theirs there.
"""

import tempfile
from typing import Final

_LONGEST: Final = 60
"""A socket's path has 108 bytes at most, and a test's own folder for such things may be deep."""


def for_sockets() -> str:
    """Give the folder in which to make a private one that holds a socket."""
    given = tempfile.gettempdir()
    return given if len(given) <= _LONGEST else "/tmp"  # noqa: S108 - what is made there is private
