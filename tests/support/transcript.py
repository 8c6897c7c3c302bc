"""A client's transcript, as Claude Code 2.1.330 writes it: a line of JSON for each thing it keeps.

``tests/claude/README.md`` says how its lines were found out; here they are written by hand.
"""

import json
from pathlib import Path
from typing import Any


def reply(message: str, *calls: str, model: str = "claude-opus-5-5") -> str:
    """Give the line of a reply of the model, with its calls of tools."""
    content = [{"type": "tool_use", "id": call, "name": "Bash", "input": {}} for call in calls]
    told = {"id": message, "role": "assistant", "model": model, "content": content}
    return json.dumps({"type": "assistant", "message": told})


def result(call: str) -> str:
    """Give the line of a tool's result."""
    content = [{"type": "tool_result", "tool_use_id": call, "content": "ok"}]
    return json.dumps({"type": "user", "message": {"role": "user", "content": content}})


def prompt(text: str) -> str:
    """Give the line of a prompt."""
    return json.dumps({"type": "user", "message": {"role": "user", "content": text}})


def context(event: str, *texts: str) -> str:
    """Give the line of what the hooks of an event have brought into the context."""
    return _attached(type="hook_additional_context", content=texts, hookEvent=event)


def ran(event: str, stdout: str) -> str:
    """Give the line of a hook's run, which is there whatever became of what it printed."""
    told = {"content": "", "stdout": stdout, "stderr": "", "exitCode": 0}
    return _attached(type="hook_success", hookEvent=event, **told)


def _attached(**told: Any) -> str:
    return json.dumps({"type": "attachment", "attachment": told})


def write_down(path: Path, *lines: str) -> None:
    """Add lines to a transcript."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
