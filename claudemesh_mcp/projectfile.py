"""The project's own file, ``.claudemesh.toml``: which mesh its sessions are in, under what name.

``config.py`` reads it behind the environment and before the user's file. It comes with a
repository, so that it may say little: it names a mesh that the home is in already, or none at
all, and how messages come.
"""

from pathlib import Path
from typing import Any, Final

FILE_NAME: Final = ".claudemesh.toml"
KEYS: Final = ("mesh", "name", "enabled", "messages")
_MOST_BYTES: Final = 64 * 1024


def find(start: Path) -> Path | None:
    """Look for the file in a folder and those above it, up to the repository's own."""
    for folder in (start, *start.parents):
        file = folder / FILE_NAME
        try:
            if file.is_file():
                return file
            if (folder / ".git").exists():
                return None
        except OSError:
            return None
    return None


def read(file: Path) -> tuple[dict[str, Any], str]:
    """Read what it says, and its text.

    Raises:
        ValueError: it is not UTF-8, not TOML, or too large.
        OSError: it can't be read.
    """
    import tomllib

    with file.open("rb") as opened:
        data = opened.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("it is too large")
    text = data.decode()
    return tomllib.loads(text), text
