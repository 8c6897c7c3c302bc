"""The steps of an installation: a command of the client, or a change of one of its files.

``placing.py`` and ``removing.py`` make them; ``cli/install.py`` shows them or has them taken. A
step that has nothing to do says so, which is what makes a second run harmless.
"""

import shlex
import subprocess
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from claudemesh_mcp.installation.jsonfile import JsonFile
from claudemesh_mcp.installation.record import Note, Record
from claudemesh_mcp.installation.source import Assemble
from claudemesh_wire.errors import Conflict, Unavailable

_LIMIT_S: Final = 120.0
_TRIES: Final = 3

Change = Callable[[dict[str, Any], Note], list[str]]
"""Changes a content and a note, and says in words what it changed."""


@dataclass(frozen=True)
class Place:
    """What is being installed into: a settings file, and what is noted of it.

    Args:
        settings: The file.
        record: Where the note is kept.
    """

    settings: Path
    record: Record

    def note(self) -> Note:
        """Give what is noted of it."""
        return self.record.note(self.settings) or Note()


@dataclass(frozen=True)
class Run:
    """A command of the client.

    Args:
        program: The client's path.
        words: What follows its name.
        place: What it changes.
        noted: The field of the note that says so, and its value from now on.
    """

    program: str
    words: tuple[str, ...]
    place: Place
    noted: tuple[str, bool]

    def shown(self) -> dict[str, Any]:
        """Say what it does."""
        return {"run": shlex.join(["claude", *self.words])}

    def take(self) -> dict[str, Any]:
        """Do it.

        Raises:
            Unavailable: ``claude_failed``: the client refused, or did not end.
        """
        before, (_, is_added) = self.place.note(), self.noted
        if is_added:
            # Noted first: if this is killed behind it, what was added is still known as ours.
            self._note()
        try:
            done = subprocess.run(
                [self.program, *self.words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:  # What it has done nobody knows.
            raise self._failed(str(error)) from error
        except OSError as error:
            self.place.record.keep(self.place.settings, before)
            raise self._failed(str(error)) from error
        if done.returncode:
            self.place.record.keep(self.place.settings, before)
            said = (done.stderr.strip() or done.stdout.strip()).decode("utf-8", "replace")
            raise self._failed(said[:500])
        self._note()
        return self.shown()

    def _note(self) -> None:
        note = self.place.note()
        setattr(note, *self.noted)
        self.place.record.keep(self.place.settings, note)

    def _failed(self, said: str) -> Unavailable:
        command = shlex.join(["claude", *self.words])
        return Unavailable(
            f"{command} failed: {said or 'it said nothing'}",
            "Put that right, and run this again: what is done already is not done twice.",
            code="claude_failed",
        )


@dataclass(frozen=True)
class Edit:
    """A change of a settings file.

    Args:
        place: The file.
        change: Makes the change.
    """

    place: Place
    change: Change

    def shown(self) -> dict[str, Any]:
        """Say what it does; nothing, if there is nothing to do.

        Raises:
            Invalid: ``settings_invalid``.
            Forbidden: ``settings_read_only``.
        """
        file = JsonFile.read(self.place.settings)
        _, _, words = self._changed(file)
        if words:
            file.check_writable()
        return {"edit": str(self.place.settings), "changes": words} if words else {}

    def is_needed(self) -> bool:
        """Tell whether there is something to do, be it only to forget what is gone already.

        Raises:
            Invalid: ``settings_invalid``.
            Forbidden: ``settings_read_only``.
        """
        _, note, _ = self._changed(JsonFile.read(self.place.settings))
        return bool(self.shown()) or note != self.place.note()

    def take(self) -> dict[str, Any]:
        """Do it.

        Raises:
            MeshError: the file makes no sense, or the disk refuses.
        """
        for _ in range(_TRIES - 1):
            try:
                return self._take()
            except Conflict:
                continue
        return self._take()

    def _take(self) -> dict[str, Any]:
        file = JsonFile.read(self.place.settings)
        content, note, words = self._changed(file)
        before, keep = self.place.note(), partial(self.place.record.keep, self.place.settings)
        if not words:
            keep(note)
            return {}
        kept = file.copy_to(self.place.record.backups)
        # As long as the file may be either, both are noted: a kill then leaves nothing unknown.
        keep(before.joined(note))
        try:
            if before.created and not content:
                file.remove()
            else:
                file.write(content)
        except Conflict:
            keep(before)
            raise
        keep(None if not content and note == Note(created=True) else note)
        told = {"edit": str(self.place.settings), "changes": words}
        return {**told, "backup": str(kept)} if kept else told

    def _changed(self, file: JsonFile) -> tuple[dict[str, Any], Note, list[str]]:
        content, note = file.content(), deepcopy(self.place.note())
        words = self.change(content, note)
        # A file that was made here and is gone is nobody's any more.
        note.created = bool(words) if file.raw is None else note.created
        return content, note, words


Step = Run | Edit | Assemble
