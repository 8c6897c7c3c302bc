"""The set of hostile texts, and what must hold of each wherever a model reads it.

``hostile_texts.json`` has the texts by what they try. What is asked of them here is written down
without the code that cleans and frames: a reader of its own looks for what could mislead a model.
"""

# ruff: noqa: RUF001 - lookalikes of brackets are what this is about.

import json
import re
import unicodedata
from pathlib import Path
from typing import Final

TEXTS: Final[list[str]] = [
    one["text"]
    for one in json.loads(Path(__file__).with_name("hostile_texts.json").read_text("utf-8"))
]
_NAMES: Final = (
    "message|mesh-message|peer-message|teammate-message|cross-session-message|channel|claudemesh"
    "|claudemesh-message|system|system-reminder|system-prompt|system_message|task-notification"
    "|user-prompt-submit-hook|local-command-stdout|command-name|command-message|bash-input"
    "|bash-stdout|persisted-output|new-diagnostics|ide_selection|ide_opened_file"
    "|untrusted-content|human|user|assistant|function_calls|function_results|invoke|tool_use"
    "|tool_result|tool_response|antml:function_calls|antml:invoke|antml:parameter"
)
_TAG: Final = re.compile(
    rf"[<＜﹤]\s*[\\/]*\s*(?:{_NAMES})(?:-[0-9a-f]+)?(?:\s[^<>]*)?\s*[/]?>", re.IGNORECASE
)
_SPECIAL: Final = re.compile(r"<\|[a-z_]+\|>")
_TURN: Final = re.compile("(?:Human|Assistant):")
_EMOJI: Final = "\u200d\ufe0f"
_FRAME: Final = re.compile(
    r"^<mesh-message-(?P<nonce>[0-9a-f]{16})(?P<told>(?: [a-z0-9_]+=\"[^\"<>&\n]*\")+)>\n"
    r"(?P<body>.*?)\n^</mesh-message-(?P=nonce)>$",
    re.MULTILINE | re.DOTALL,
)


def faults(text: str, behind: str = "") -> list[str]:
    """Say what in a text could mislead a model; nothing if it is harmless.

    Args:
        text: The text.
        behind: What it stands behind, with which it might make the beginning of a turn.
    """
    found = [f"a tag: {tag}" for tag in _TAG.findall(text)]
    found += [f"a marker: {marker}" for marker in _SPECIAL.findall(text)]
    found += _turns(f"{behind}{text}")
    return found + [f"unseen: {sign!a}" for sign in text if _is_unseen(sign)]


def _turns(text: str) -> list[str]:
    """Give what could pass for the beginning of a turn: behind an empty line, or several."""
    before = ((one[0], text[: one.start()]) for one in _TURN.finditer(text))
    return [
        f"a turn: {turn}" for turn, there in before if there[len(there.rstrip()) :].count("\n") > 1
    ]


def _is_unseen(sign: str) -> bool:
    if sign in "\n\t" or sign in _EMOJI:
        return False
    hidden = sign in "\u034f\u115f\u1160\u3164\uffa0" or 0xFE00 <= ord(sign) <= 0xFE0F
    return hidden or unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def frames_of(text: str, count: int) -> list[tuple[dict[str, str], str]]:
    """Read an output as its reader would; gives attributes and body of each frame.

    Args:
        text: All of it.
        count: How many frames there have to be.
    """
    found = list(_FRAME.finditer(text))
    assert len(found) == count
    (nonce,) = {one["nonce"] for one in found}
    # In the notice once, and around each message: no text has it.
    assert text.count(nonce) == 1 + 2 * count
    outside = _FRAME.sub("", text)
    assert "<" not in outside
    assert outside.startswith("claudemesh: ")
    return [
        (dict(re.findall(r'([a-z0-9_]+)="([^"]*)"', one["told"])), one["body"]) for one in found
    ]
