"""The settings that a launched client is given: our hooks, and those that its user gave it.

``launch.py`` asks for it. The client takes the last ``--settings`` alone, so that two of them would
be one lost without a word: what the user wrote and what we add become one.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from claudemesh_mcp.home import atomic_write, private_folder
from claudemesh_mcp.installation import entries
from claudemesh_mcp.installation.jsonfile import JsonFile
from claudemesh_mcp.installation.record import Note
from claudemesh_mcp.routes import records
from claudemesh_wire.errors import NotFound

if TYPE_CHECKING:
    from claudemesh_mcp.home import Home

_OPTION: Final = "--settings"
_ENDS_OPTIONS: Final = "--"


def with_hooks(words: Sequence[str], home: "Callable[[], Home]") -> list[str]:
    """Add our hooks to what a client is started with.

    Args:
        words: What its user wrote for it.
        home: Opens the home; what a file of the user's says is kept there, and not told on the
            command line, which everybody on this machine can read.

    Returns:
        The words, with one ``--settings`` that says it all in front of them.

    Raises:
        NotFound: ``settings_not_found``: the user's settings are a file that is not there.
        Invalid: ``settings_invalid``: they are no JSON object, or have other things as hooks.
    """
    given, rest = _taken_out(words)
    own = _is_text(given)
    file = JsonFile(Path(_OPTION), given.encode("utf-8", "surrogateescape"))
    if given and not own:
        file = JsonFile.read(Path(given))
        if file.raw is None:
            raise NotFound(
                f"{file.path.absolute()} is not there, and {_OPTION} names it.",
                f"Write {_OPTION} and a file that is there, or the JSON itself.",
                code="settings_not_found",
            )
    content = file.content()
    entries.add_hooks(content, Note(), file.path, entries.own_hook)
    if given and not own:
        return [_OPTION, _kept(home(), content), *rest]
    return [_OPTION, json.dumps(content), *rest]


def _taken_out(words: Sequence[str]) -> tuple[str, list[str]]:
    """Take the option out, wherever it stands; gives the last of its values, as the client does."""
    given, rest, left = "", list[str](), iter(words)
    for word in left:
        if word == _ENDS_OPTIONS:
            return given, [*rest, word, *left]
        if word.startswith(f"{_OPTION}="):
            given = word.partition("=")[2]
        elif word != _OPTION:
            rest.append(word)
        elif (value := next(left, None)) is None:
            rest.append(word)  # The client says what is missing.
        else:
            given = value
    return given, rest


def _is_text(given: str) -> bool:
    """Tell whether it is JSON, by the client's own rule: everything else names a file."""
    text = given.strip()
    return text.startswith("{") and text.endswith("}")


def _kept(home: "Home", content: dict[str, object]) -> str:
    """Keep settings for the client that this process becomes; they go when it is gone."""
    records.sweep(home.data)
    path = Path(records.place(home.data, os.getpid(), "settings"))
    private_folder(path.parent)
    atomic_write(path, json.dumps(content).encode())
    return str(path)
