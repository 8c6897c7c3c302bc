"""What stands in a settings file for us: hooks, rules for tools that only read, a status line.

``placing.py`` puts it there, ``removing.py`` takes it away. Both work on the content alone and
leave all that is somebody else's, in its order.
"""

import re
import shlex
import sys
from pathlib import Path
from typing import Any, Final, cast

from claudemesh_mcp.installation.jsonfile import lists_at
from claudemesh_mcp.installation.record import Note, both
from claudemesh_mcp.plugin.entries import EVENTS, REWAKE, Command, hooks
from claudemesh_mcp.routes.hook import RUNG_SHARED, SHARED

READ_ONLY: Final = (
    "inbox",
    "search_peers",
    "message_status",
    "history",
    "mesh_info",
    "mesh_tools",
)
"""The tools that change nothing outside of this session."""
BY_SERVER: Final = "mcp__claudemesh__"
BY_PLUGIN: Final = "mcp__plugin_claudemesh_mesh__"

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_PROGRAM: Final = "claudemesh"
_HOOK: Final = "/claudemesh_mcp/routes/hook.py"
_STATUS: Final = "/claudemesh_mcp/statusline.py"
_LOOK: Final = "command -v claudemesh >/dev/null || exit 0"
_WORD: Final = re.compile(r"\bclaudemesh'? hook (\w+)")
_SHARED_STATUS: Final = f"{_LOOK}; exec claudemesh statusline"
_REFRESH_S: Final = 5
# A Python that does not find its file ends with 2, by which a hook forbids the prompt or wakes the
# session: what is left of an installation that was removed would take the user's turns from him.
_IF_THERE: Final = '[ -x "$0" ] && [ -r "$1" ] || exit 0; exec "$0" -I -S "$@"'
_HELD: Final = (("hooks",), *(("hooks", event) for event in EVENTS))
_RULES: Final = (("permissions",), ("permissions", "allow"))


def own_hook(word: str) -> dict[str, Any]:
    """Start a hook by this installation's own Python, which needs no search."""
    words = ["-c", _IF_THERE, sys.executable, str(_PACKAGE / "routes/hook.py"), word]
    return {"command": "sh", "args": words}


def shared_hook(word: str) -> dict[str, Any]:
    """Start a hook on whatever machine a project is; where there is no claudemesh, nothing.

    What is called so there may be another program, and an exit code of its own is not to count.
    """
    if word == REWAKE:
        rung = f"[ $? -ne {RUNG_SHARED} ] || exit 2; exit 0"
        return {"command": f"{_LOOK}; claudemesh hook {REWAKE} {SHARED}; {rung}"}
    return {"command": f"{_LOOK}; claudemesh hook {word} || exit 0"}


def status_line(*, is_shared: bool) -> dict[str, Any]:
    """Give the status line."""
    own = shlex.join([sys.executable, "-I", "-S", str(_PACKAGE / "statusline.py")])
    command = _SHARED_STATUS if is_shared else own
    return {"type": "command", "command": command, "refreshInterval": _REFRESH_S}


def add_hooks(content: dict[str, Any], note: Note, path: Path, command: Command) -> list[str]:
    """Put the hooks in, in place of ours that start something else."""
    missing = [keys for keys in _HELD if not _stands(content, keys)]
    changed: list[str] = []
    for event, (wanted,) in hooks(command).items():
        groups = lists_at(content, path, "hooks", event)
        if [group for group in groups if _holds_ours(group)] != [wanted]:
            _take_ours_out(groups)
            groups.append(wanted)
            changed.append(event)
    _note_made(content, note, missing)
    return [f"hooks: {', '.join(changed)}"] if changed else []


def allow(content: dict[str, Any], note: Note, path: Path, prefix: str) -> list[str]:
    """Let the tools that only read be called without a question."""
    missing = [keys for keys in _RULES if not _stands(content, keys)]
    rules = lists_at(content, path, "permissions", "allow")
    added = [rule for name in READ_ONLY if (rule := prefix + name) not in rules]
    rules.extend(added)
    note.allow = both(note.allow, added)
    _note_made(content, note, missing)
    return [f"permissions.allow: {', '.join(added)}"] if added else []


def show_status(content: dict[str, Any], note: Note, line: dict[str, Any]) -> list[str]:
    """Put the status line in, if there is none."""
    if "statusLine" in content and not _is_our_status(content["statusLine"]):
        return []
    if content.get("statusLine") == line:
        return []
    content["statusLine"] = note.status_line = line
    return ["statusLine"]


def take_out(content: dict[str, Any], note: Note) -> list[str]:
    """Take out what was put in, and nothing else."""
    words = _take_hooks_out(content)
    allowed = _found(content, ("permissions", "allow"))
    gone = [rule for rule in note.allow if isinstance(allowed, list) and rule in allowed]
    if gone:
        allowed[:] = [rule for rule in cast("list[Any]", allowed) if rule not in gone]
    words += [f"permissions.allow: {', '.join(gone)}"] if gone else []
    line = content.get("statusLine")
    if line is not None and (line == note.status_line or _is_our_status(line)):
        del content["statusLine"]
        words.append("statusLine")
    for keys in sorted(note.made, key=len, reverse=True):
        if _stands(content, keys) and _found(content, keys) in ([], {}):
            del _found(content, keys[:-1])[keys[-1]]
    note.allow, note.made, note.status_line = [], [], None
    return words


def has_hooks(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Give our entries among the hooks."""
    held = content.get("hooks")
    lists = cast("dict[str, Any]", held).values() if isinstance(held, dict) else ()
    return [
        cast("dict[str, Any]", entry)
        for groups in lists
        for group in _items(groups)
        for entry in _entries(group)
        if _is_our_hook(entry)
    ]


def _take_hooks_out(content: dict[str, Any]) -> list[str]:
    held = content.get("hooks")
    if not isinstance(held, dict):
        return []
    changed = [
        event
        for event, groups in cast("dict[str, Any]", held).items()
        if isinstance(groups, list) and _take_ours_out(cast("list[Any]", groups))
    ]
    return [f"hooks: {', '.join(changed)}"] if changed else []


def _take_ours_out(groups: list[Any]) -> bool:
    """Take our entries out of groups, and a group that had nothing else; tell whether."""
    found = False
    for group in list(groups):
        if not _holds_ours(group):
            continue
        found = True
        group["hooks"] = [entry for entry in _entries(group) if not _is_our_hook(entry)]
        if not group["hooks"]:
            groups.remove(group)
    return found


def _holds_ours(group: object) -> bool:
    return any(_is_our_hook(entry) for entry in _entries(group))


def _entries(group: object) -> list[Any]:
    return _items(cast("dict[str, Any]", group).get("hooks")) if isinstance(group, dict) else []


def _items(found: object) -> list[Any]:
    return cast("list[Any]", found) if isinstance(found, list) else []


def _is_our_hook(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    told = cast("dict[str, Any]", entry)
    match [told.get("command"), *_items(told.get("args"))]:
        case [str() as line]:
            return _is_our_line(line)
        case [str(), "-I", "-S", str() as file, str()]:  # As it once was.
            return file.endswith(_HOOK)
        case ["sh", "-c", text, str(), str() as file, str()]:
            return text == _IF_THERE and file.endswith(_HOOK)
        case _:
            return False


def _is_our_line(line: str) -> bool:
    found = _WORD.search(line)
    if found is None:
        return False
    word = found[1]
    once = f"{_LOOK}; exec claudemesh hook {word}"
    return line in {shared_hook(word)["command"], once} or _by_hand(line) == ["hook", word]


def _is_our_status(line: object) -> bool:
    command = cast("dict[str, Any]", line).get("command") if isinstance(line, dict) else None
    if not isinstance(command, str):
        return False
    match _split(command):
        case [_, "-I", "-S", file]:
            return file.endswith(_STATUS)
        case _:
            return command == _SHARED_STATUS or _by_hand(command) == ["statusline"]


def _by_hand(line: str) -> list[str]:
    """Give the words behind our program's name or path, if that is all of a line."""
    words = _split(line)
    return words[1:] if words and Path(words[0]).name == _PROGRAM else []


def _split(line: str) -> list[str]:
    """Give the words of a line; none if it has more for a shell to do than to start them."""
    try:
        words = shlex.split(line)
    except ValueError:
        return []
    return words if shlex.join(words) == line else []


def _note_made(content: dict[str, Any], note: Note, missing: list[tuple[str, ...]]) -> None:
    note.made = both(note.made, [list(keys) for keys in missing if _stands(content, keys)])


def _stands(content: dict[str, Any], keys: "tuple[str, ...] | list[str]") -> bool:
    holder = _found(content, keys[:-1])
    return isinstance(holder, dict) and keys[-1] in holder


def _found(content: dict[str, Any], keys: "tuple[str, ...] | list[str]") -> Any:
    found: Any = content
    for key in keys:
        found = cast("dict[str, Any]", found).get(key) if isinstance(found, dict) else None
    return found
