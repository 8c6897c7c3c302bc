"""What the requests of a client show its model: each text, in which offer, marked or not, and when.

``run.py`` reads it from all that its scripted model received. An offer is one output of a hook,
which its frames' nonce names, or one result of the `inbox` tool: the client repeats it in every
later request, and puts what a Stop hook says there twice.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tests.support.claude.asked import Asked

TOKEN: Final = re.compile(r"heron-\d+-\d+-[0-9a-f]{8}")
_FRAME: Final = re.compile(
    r"<mesh-message-([0-9a-f]{16})( [^>\n]*)>\n(.*?)\n</mesh-message-\1>", re.DOTALL
)
_HOOK: Final = re.compile(r"(SessionStart|UserPromptSubmit|PostToolUse)\S* hook additional context")
_BELL: Final = re.compile(r"\(bell [0-9a-f]{16}\)")
_ROUTES: Final = {
    "SessionStart": "session-start",
    "UserPromptSubmit": "prompt",
    "PostToolUse": "tool-boundary",
}


class Shown(NamedTuple):
    """One text in one offer, in the request that had it first.

    Args:
        offer: What the offer is told by.
        token: The text.
        marked: Whether it says ``redelivered``.
        route: The way by which it came.
        at: When the model had received the request.
    """

    offer: str
    token: str
    marked: bool
    route: str
    at: float


@dataclass
class Seen:
    """All that one client's requests have shown so far."""

    shown: list[Shown] = field(default_factory=list[Shown])
    _read: int = 0
    _known: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def read(self, asked: list[Asked]) -> None:
        """Read the requests that have come since the last time."""
        for one in asked[self._read :]:
            self._read += 1
            for shown in _shown_in(one):
                key = (shown.offer, shown.token)
                if key not in self._known:
                    self._known.add(key)
                    self.shown.append(shown)

    def of(self, token: str) -> list[Shown]:
        """Give the offers of a text, in the order in which the model had them."""
        return [one for one in self.shown if one.token == token]

    def lacks(self, tokens: Iterable[str]) -> list[str]:
        """Give the texts that no request has had."""
        had = {one.token for one in self.shown}
        return [token for token in tokens if token not in had]


def _shown_in(asked: Asked) -> Iterator[Shown]:
    for message in asked.body["messages"]:
        if message["role"] == "assistant":
            continue
        content = message["content"]
        for part in [{"text": content}] if isinstance(content, str) else content:
            text = _text(part)
            if TOKEN.search(text):
                yield from _in_part(part, text, asked)


def _in_part(part: dict[str, Any], text: str, asked: Asked) -> Iterator[Shown]:
    if part.get("type") == "tool_result":
        for message in json.loads(text)["messages"]:
            for token in TOKEN.findall(message["text"]):
                marked = bool(message.get("redelivered"))
                yield Shown(part["tool_use_id"], token, marked, "tool", asked.at)
        return
    for frame in _FRAME.finditer(text):
        nonce, attributes, body = frame.groups()
        for token in TOKEN.findall(body):
            marked = 'redelivered="true"' in attributes
            yield Shown(nonce, token, marked, _route(text[: frame.start()], asked), asked.at)
    for token in TOKEN.findall(_FRAME.sub("", text)):
        # Nothing puts a text of a peer there: if something does, it is not marked.
        yield Shown("bare", token, marked=False, route="bare", at=asked.at)


def _route(before: str, asked: Asked) -> str:
    hooks = _HOOK.findall(before)
    if not hooks:
        return "stop"
    if hooks[-1] != "UserPromptSubmit":
        return _ROUTES[hooks[-1]]
    rung = [block.text for block in asked.fresh if _BELL.search(block.text)]
    if not rung:
        return "prompt"
    return "monitor" if "<event>" in rung[-1] else "rewake"


def _text(part: dict[str, Any]) -> str:
    held = part.get("text", part.get("content", ""))
    return held if isinstance(held, str) else "\n".join(_text(inner) for inner in held)
