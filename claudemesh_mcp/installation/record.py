"""Remembers what was added to Claude Code's files, so that exactly this can be taken away again.

``placing.py`` writes a note per settings file, ``removing.py`` reads it. It lies in the home.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from claudemesh_mcp.home import atomic_write, file_lock, private_folder, read_private

_FILE: Final = "installed.json"
_LOCK: Final = "installed.lock"
_VERSION: Final = 1

T = TypeVar("T")


@dataclass
class Note:
    """What was added in one scope.

    Args:
        server: Whether the server was.
        was_there: Whether a server of ours was there before, which then is not for us to remove.
        plugin: Whether the plugin was.
        marketplace: Whether the marketplace was.
        created: Whether the settings file was made for it.
        made: What held nothing yet and was made in it: paths of keys.
        allow: The rules that were.
        status_line: The status line, as it was written.
    """

    server: bool = False
    was_there: bool = False
    plugin: bool = False
    marketplace: bool = False
    created: bool = False
    made: list[list[str]] = field(default_factory=list[list[str]])
    allow: list[str] = field(default_factory=list[str])
    status_line: dict[str, Any] | None = None

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Note":
        """Give what a file tells; a part that makes no sense counts as not there."""
        line = told.get("status_line")
        flags = ("server", "was_there", "plugin", "marketplace", "created")
        return cls(
            *(told.get(flag) is True for flag in flags),
            made=[keys for one in _items(told.get("made")) if (keys := _words(one))],
            allow=_words(told.get("allow")),
            status_line=cast("dict[str, Any]", line) if isinstance(line, dict) else None,
        )

    def joined(self, other: "Note") -> "Note":
        """Give what one or the other says was added."""
        return Note(
            self.server or other.server,
            self.was_there or other.was_there,
            self.plugin or other.plugin,
            self.marketplace or other.marketplace,
            self.created or other.created,
            both(self.made, other.made),
            both(self.allow, other.allow),
            other.status_line or self.status_line,
        )


def both(had: list[T], more: list[T]) -> list[T]:
    """Give what is in one list or the other, once."""
    return [*had, *(one for one in more if one not in had)]


class Record:
    """The notes of one home.

    Args:
        data: The home.
    """

    def __init__(self, data: Path) -> None:
        """Read the notes.

        Raises:
            MeshError: their file is somebody else's, or none.
        """
        self.data = data
        self._notes: dict[str, Any] = {}
        try:
            told = json.loads(read_private(data / _FILE) or b"{}")
            self._notes = dict(told["places"]) if told["v"] == _VERSION else {}
        except (ValueError, LookupError, TypeError, RecursionError):
            pass

    @property
    def backups(self) -> Path:
        """Where the files lie as they were."""
        return self.data / "backups"

    def note(self, settings: Path) -> Note | None:
        """Give what is noted of a settings file."""
        told = self._notes.get(str(settings))
        return Note.of(cast("dict[str, Any]", told)) if isinstance(told, dict) else None

    def keep(self, settings: Path, note: Note | None) -> None:
        """Note what was added to a settings file, or that nothing is left of it.

        Raises:
            MeshError: the disk refuses.
        """
        before = self._notes.pop(str(settings), None)
        if note is not None and note != Note():
            self._notes[str(settings)] = asdict(note)
        if self._notes.get(str(settings)) == before:
            return
        private_folder(self.data)
        told = {"v": _VERSION, "places": self._notes}
        atomic_write(self.data / _FILE, json.dumps(told, indent=1).encode())


@contextmanager
def record_alone(data: Path) -> Generator[Record]:
    """Give the notes to one that changes them, while no other process does.

    Args:
        data: The home, which is made.

    Raises:
        Unavailable: ``locked``: another one did all the time.
        MeshError: the home can't be made, or is open to others.
    """
    private_folder(data)
    with file_lock(data / _LOCK):
        yield Record(data)


def _items(told: object) -> list[Any]:
    return cast("list[Any]", told) if isinstance(told, list) else []


def _words(told: object) -> list[str]:
    return [word for word in _items(told) if isinstance(word, str)]
