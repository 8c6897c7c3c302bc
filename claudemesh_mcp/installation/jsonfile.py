"""Changes a settings file of Claude Code without touching the meaning of anything else in it.

``placing.py`` and ``removing.py`` read it, change what was read, and ask for it to be written. What
is not understood is refused before anything has been done.
"""

import codecs
import json
import math
import os
import shlex
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from claudemesh_mcp.home import atomic_write, private_folder, remove
from claudemesh_mcp.installation.scopes import plain_bytes
from claudemesh_wire.errors import Conflict, Forbidden, Invalid

_MODE: Final = 0o600
_MODE_BITS: Final = 0o777
_WRITING: Final = 0o222
_HINT: Final = "Correct it, or move it away, and run this again. Nothing was changed."


@dataclass(frozen=True)
class JsonFile:
    """What a settings file holds.

    Args:
        path: Where it is; a link is followed, as people keep such files in a repository of theirs.
        raw: Its bytes; none if there is no such file.
    """

    path: Path
    raw: bytes | None

    @classmethod
    def read(cls, path: Path) -> "JsonFile":
        """Read it.

        Raises:
            Invalid: ``settings_invalid``: it can't be read, or is no JSON object.
        """
        try:
            file = cls(path, plain_bytes(path))
        except (FileNotFoundError, NotADirectoryError):
            return cls(path, None)
        except OSError as error:
            raise _refused(path, f"can't be read: {error.strerror}") from error
        file.content()
        return file

    def content(self) -> dict[str, Any]:
        """Give what it says; a table of the caller's own."""
        if self.raw is None or not self.raw.strip():
            return {}
        try:
            text = self.raw.decode("utf-8-sig")
            told = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise _refused(self.path, f"is not JSON: {error}") from error
        if not isinstance(told, dict):
            raise _refused(self.path, "is no JSON object")
        return cast("dict[str, Any]", told)

    def check_writable(self) -> None:
        """Make sure that it may be changed, before anything else is.

        Raises:
            Forbidden: ``settings_read_only``: its owner, the folder or the disk forbids it.
        """
        target = self._target
        # Its replacement needs the folder's leave alone, which is not what its owner means.
        if target.exists() and not target.stat().st_mode & _WRITING:
            raise _read_only(target, f"chmod u+w {shlex.quote(str(target))}")
        folder = next(one for one in target.parents if os.path.lexists(one))
        try:
            # Rights do not tell all: root has them on a disk that is full, and in /proc.
            with tempfile.TemporaryFile(dir=folder) as tried:
                tried.write(self.raw or b"{}")
        except OSError as error:
            quoted = shlex.quote(str(folder))
            raise _read_only(folder, f"Look at it: ls -ld {quoted}; df {quoted}") from error

    def write(self, content: dict[str, Any]) -> None:
        """Replace what it says.

        Raises:
            Conflict: ``settings_changed``: somebody has written it meanwhile.
            MeshError: the disk refuses.
        """
        self._refuse_changed()
        target = self._target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Forbidden(
                f"{target.parent} can't be made: {error.strerror}.",
                "Make that folder, or move away what leads there, and run this again.",
                code="settings_read_only",
            ) from error
        mode = target.stat().st_mode & _MODE_BITS if target.exists() else _MODE
        mark = codecs.BOM_UTF8 if (self.raw or b"").startswith(codecs.BOM_UTF8) else b""
        atomic_write(target, mark + _written(content), mode)

    def remove(self) -> None:
        """Remove it; a link to it stays, as it was there before.

        Raises:
            Conflict: ``settings_changed``: somebody has written it meanwhile.
            Unavailable: the disk refuses.
        """
        self._refuse_changed()
        remove(self._target)

    @property
    def _target(self) -> Path:
        # Unlike Path.resolve() this gives something for links that lead round in a circle too.
        return Path(os.path.realpath(self.path))

    def _refuse_changed(self) -> None:
        if JsonFile.read(self.path).raw != self.raw:
            raise Conflict(
                f"{self.path} was changed meanwhile.",
                "Run this again.",
                code="settings_changed",
            )

    def copy_to(self, folder: Path) -> Path | None:
        """Keep what it says now, for whoever wants it back; gives where, if there was something."""
        if self.raw is None:
            return None
        # The home first: one that is made on the way to this folder would be open to others.
        private_folder(folder.parent)
        private_folder(folder)
        number = 1
        while (kept := folder / f"{self.path.name}.{number}").exists():
            number += 1
        atomic_write(kept, self.raw)
        return kept


def lists_at(holder: dict[str, Any], path: Path, *keys: str) -> list[Any]:
    """Give the list below these keys, which is made if there is none.

    Raises:
        Invalid: ``settings_invalid``: something else stands there.
    """
    for key in keys[:-1]:
        holder = _inner(holder, key, {}, path)
    return _inner(holder, keys[-1], [], path)


def _inner(holder: dict[str, Any], key: str, otherwise: Any, path: Path) -> Any:
    found = holder.setdefault(key, deepcopy(otherwise))
    if not isinstance(found, type(otherwise)):
        kind = "list" if isinstance(otherwise, list) else "object"
        raise _refused(path, f"has something else than a JSON {kind} as {key}")
    return found


def _written(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a pair, which only an escape can carry
        return json.dumps(content, indent=2, allow_nan=False).encode() + b"\n"


def _refused(path: Path, what: str) -> Invalid:
    return Invalid(f"{path} {what}.", _HINT, code="settings_invalid")


def _read_only(path: Path, hint: str) -> Forbidden:
    return Forbidden(
        f"{path} can't be written. Nothing was changed.", hint, code="settings_read_only"
    )


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is more than a number can hold")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
