"""The hooks that Claude Code is asked to call, as a plugin's and as a user's settings have them.

``.claude-plugin/hooks.json`` is written from here (``python -m claudemesh_mcp.plugin.entries``),
and ``claudemesh install`` puts the same ones into a settings file.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

EVENTS: Final = ("SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd")
REWAKE: Final = "rewake"
REWAKING: Final = frozenset({"SessionStart", "UserPromptSubmit"})
"""Behind these a hook stays in the background that can wake the session once it is idle.

What one has rung for becomes a prompt, by which the next one comes; a turn may end without a Stop.
"""
SUMMARY: Final = "claudemesh: messages wait"

_LIMIT_S: Final = 10
WAIT_S: Final = 24 * 24 * 3600
"""As long as the client's timer can wait: at 2^31 ms, near 24.8 days, it would run out at once."""
_START: Final = "${CLAUDE_PLUGIN_ROOT}/claudemesh_mcp/plugin/start.sh"
_FILE: Final = Path(__file__).parents[2] / ".claude-plugin" / "hooks.json"
# A shell or a Python that does not find its file ends with 2, by which a hook forbids the prompt or
# wakes the session: a plugin that was moved away would take the user's turns from him.
_IF_THERE: Final = '[ -r "$0" ] || exit 0; . "$0"'

Command = Callable[[str], dict[str, Any]]
"""Gives the fields of an entry that start ``hook.py`` with a word: an event, or ``rewake``."""


def hooks(command: Command) -> dict[str, list[dict[str, Any]]]:
    """Give what belongs below ``hooks``: a list of groups per event."""
    return {event: [{"hooks": _entries(event, command)}] for event in EVENTS}


def in_plugin(word: str) -> dict[str, Any]:
    """Start a hook by what the plugin brings along."""
    words = ["-c", _IF_THERE, _START, "${CLAUDE_PLUGIN_DATA}", "hook", word]
    return {"command": "sh", "args": words}


def _entries(event: str, command: Command) -> list[dict[str, Any]]:
    entries = [{"type": "command", **command(event), "timeout": _LIMIT_S}]
    if event in REWAKING:
        waits = {"type": "command", **command(REWAKE), "timeout": WAIT_S, "asyncRewake": True}
        entries.append({**waits, "rewakeMessage": "claudemesh:", "rewakeSummary": SUMMARY})
    return entries


def file_of_the_plugin() -> str:
    """Give what ``.claude-plugin/hooks.json`` holds."""
    said = "Shows a session the messages that wait for it, and says when it works or rests."
    return json.dumps({"description": said, "hooks": hooks(in_plugin)}, indent=2) + "\n"


if __name__ == "__main__":
    _FILE.write_text(file_of_the_plugin(), "utf-8")
    sys.stdout.write(f"{_FILE}\n")
