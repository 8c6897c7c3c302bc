"""The settings there are: for each the variable that gives it, and what makes its value of a text.

``config.py`` reads all of them by these rules, ``cli/`` shows and writes them; what a value is for
is said in the README from here.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

MODES: Final = ("push", "inbox", "off")
"""How messages come to a session: into its context, as a count, not at all."""
_LEVELS: Final = ("debug", "info", "warning", "error")
_YES: Final = frozenset({"on", "true", "yes", "1"})
_NO: Final = frozenset({"off", "false", "no", "0"})
_ROLE: Final = 80
_GROUP: Final = re.compile("[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_LEAST_S: Final = 0.1
_MOST_S: Final = 3600.0


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value.strip()
    raise ValueError("a text of one line")


def _path(value: object) -> Path:
    if isinstance(value, Path) or (isinstance(value, str) and value and "\0" not in value):
        try:
            return Path(value).expanduser().absolute()
        except RuntimeError as error:  # `~nobody` names no user of this machine
            raise ValueError("the path of a file or folder") from error
    raise ValueError("the path of a file or folder")


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _YES | _NO:
        return value.lower() in _YES
    raise ValueError('"on" or "off"')


def _level(value: object) -> str:
    if isinstance(value, str) and value.lower() in _LEVELS:
        return value.lower()
    raise ValueError("one of " + ", ".join(_LEVELS))


def _seconds(value: object) -> float:
    wanted = f"a number of seconds from {_LEAST_S:g} to {_MOST_S:g}"
    given = value if isinstance(value, (str, int, float)) else ""
    try:
        seconds = float("" if isinstance(given, bool) else given)
    except (ValueError, OverflowError) as error:
        raise ValueError(wanted) from error
    # A comparison that is false for NaN too.
    if not _LEAST_S <= seconds <= _MOST_S:
        raise ValueError(wanted)
    return seconds


def _mode(value: object) -> str:
    if isinstance(value, str) and value.lower() in MODES:
        return value.lower()
    raise ValueError("one of " + ", ".join(MODES))


def _names(value: object) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else value
    if isinstance(given, list | tuple):
        items = cast("Iterable[object]", given)
        names = tuple(dict.fromkeys(one.strip().lower() for one in items if isinstance(one, str)))
        if all(names) and names:
            return names
    raise ValueError("names with commas between them")


def _groups(value: object) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else value
    items = cast("Iterable[object]", given if isinstance(given, list | tuple) else ())
    pairs = [str(one).partition(":") for one in items]
    groups = {name.strip().lower().removeprefix("@"): role.strip() for name, _, role in pairs}
    if not all(_GROUP.fullmatch(name) for name in groups) or not groups:
        raise ValueError("groups with commas between them, as in ops,review:lead")
    return tuple(f"{name}:{role[:_ROLE]}".removesuffix(":") for name, role in groups.items())


def _any_text(value: object) -> str:
    # Another program's variable: whatever it says is no mistake of this user.
    return str(value)


def _not_no(value: object) -> bool:
    return str(value).lower() not in _NO


@dataclass(frozen=True, slots=True)
class Rule:
    """How one setting is given and read.

    Args:
        variable: The environment variable that gives it.
        read: Turns what was given into the value, or raises ``ValueError(what it must be)``.
        says: What it does, as one sentence for the reader of the documentation.
        in_file: Whether the config file may give it; what belongs to one process may not.
    """

    variable: str
    read: Callable[[object], Any]
    says: str
    in_file: bool = True


RULES: Final[dict[str, Rule]] = {
    "home": Rule("CLAUDEMESH_HOME", _path, "Holds all state of one user.", in_file=False),
    "enabled": Rule("CLAUDEMESH", _switch, "`off` disables claudemesh in this session."),
    "mesh": Rule("CLAUDEMESH_MESH", _text, "The mesh to be in, by its name here or its id."),
    "name": Rule("CLAUDEMESH_NAME", _text, "The handle wished for."),
    "role": Rule("CLAUDEMESH_ROLE", _text, "What this session is, as others see it."),
    "groups": Rule(
        "CLAUDEMESH_GROUPS",
        _groups,
        "The groups to enter at the start, each with a role if one is wanted: `ops,review:lead`.",
    ),
    "resume": Rule("CLAUDEMESH_RESUME", _text, "Be the peer with this resume id.", in_file=False),
    "session_id": Rule(
        "CLAUDE_CODE_SESSION_ID", _text, "Anchors the peer, so that it returns.", in_file=False
    ),
    "project_dir": Rule(
        "CLAUDE_PROJECT_DIR", _path, "The project that this session works on.", in_file=False
    ),
    "host": Rule("CLAUDEMESH_HOST", _text, "The label of this machine, instead of its hostname."),
    "key_file": Rule("CLAUDEMESH_KEY_FILE", _path, "The file that holds the wrapping key."),
    "credentials_dir": Rule(
        "CREDENTIALS_DIRECTORY", _path, "Where systemd puts this unit's secrets.", in_file=False
    ),
    "keyring": Rule("CLAUDEMESH_KEYRING", _switch, "`off` never asks the OS keyring."),
    "ping_interval_s": Rule(
        "CLAUDEMESH_PING_INTERVAL_S", _seconds, "How often the broker is asked whether it lives."
    ),
    "strict": Rule(
        "CLAUDEMESH_STRICT", _switch, "`on` lets another member wake this session by a grant only."
    ),
    "messages": Rule(
        "CLAUDEMESH_MESSAGES",
        _mode,
        "How messages come: `push` shows them, `inbox` says how many wait, `off` says nothing.",
    ),
    "channel": Rule(
        "CLAUDEMESH_CHANNEL", _switch, "`off` keeps Claude Code's channel notifications out of use."
    ),
    "multicast": Rule(
        "CLAUDEMESH_MULTICAST",
        _switch,
        "Whether `*` and `@group` reach this session; not in `claude -p` unless it is `on`.",
    ),
    "toolsets": Rule(
        "CLAUDEMESH_TOOLSETS", _names, "The tools that are listed, by the names of their sets."
    ),
    "entrypoint": Rule(
        "CLAUDE_CODE_ENTRYPOINT", _any_text, "Says how Claude Code was started.", in_file=False
    ),
    "attended": Rule(
        "CLAUDE_CODE_SESSION_ATTENDED", _not_no, "Says whether anybody sits there.", in_file=False
    ),
    "log_level": Rule("CLAUDEMESH_LOG_LEVEL", _level, "Least level that is logged."),
}
