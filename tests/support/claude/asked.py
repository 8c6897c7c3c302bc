"""What one request to the model API holds: who asked, what is new in it, and where a text stands.

``model.py`` makes an ``Asked`` of every body it receives; tests read arrivals from them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any


class Place(StrEnum):
    """The kind of block in which the model reads a text."""

    RESULT = "tool_result"
    REMINDER = "system-reminder"
    SYSTEM = "system message"
    USER = "user text"


@dataclass(frozen=True)
class Block:
    """One block that was put before the model; what the model said itself is none.

    Args:
        place: Its kind.
        text: All of its text.
        message: The position of its message in the request.
    """

    place: Place
    text: str
    message: int


@dataclass(frozen=True)
class Asked:
    """One request of a client.

    Args:
        number: Its position among all that the model received, from 0.
        at: The monotonic clock when it had been received.
        headers: Its headers, by their names in small letters.
        body: The body, as it came.
    """

    number: int
    at: float
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def is_turn(self) -> bool:
        """Whether it is part of a conversation: side queries, say for a title, have no tools."""
        return bool(self.body.get("tools"))

    @cached_property
    def session(self) -> str:
        """The id of the Claude session that asks."""
        told = json.loads(self.body.get("metadata", {}).get("user_id") or "{}")
        return told.get("session_id", "")

    @property
    def conversation(self) -> str:
        """The talk it goes on with: that of a session, or of one of its subagents."""
        return f"{self.session} {self.headers.get('x-claude-code-agent-id', '')}"

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        """The tools that are listed to the model, by name."""
        return {tool["name"]: tool for tool in self.body.get("tools", [])}

    @cached_property
    def system(self) -> str:
        """The system prompt."""
        system = self.body.get("system", "")
        return system if isinstance(system, str) else "\n".join(part["text"] for part in system)

    @cached_property
    def blocks(self) -> list[Block]:
        """Everything that was put before the model, oldest first."""
        return list(self._read())

    @cached_property
    def fresh(self) -> list[Block]:
        """What was put before the model since it spoke last."""
        spoke = [
            place
            for place, message in enumerate(self.body["messages"])
            if message["role"] == "assistant"
        ]
        return [block for block in self.blocks if block.message > max(spoke, default=-1)]

    def places_of(self, text: str) -> list[Place]:
        """Where a text stands, once for each time it does."""
        return [block.place for block in self.blocks for _ in range(block.text.count(text))]

    def _read(self) -> Iterator[Block]:
        for position, message in enumerate(self.body["messages"]):
            if message["role"] == "assistant":
                continue
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for part in parts:
                yield Block(_place(message["role"], part), _text(part), position)


def _place(role: str, part: dict[str, Any]) -> Place:
    if part["type"] == "tool_result":
        return Place.RESULT
    if role == "system":
        return Place.SYSTEM
    if part.get("text", "").lstrip().startswith("<system-reminder>"):
        return Place.REMINDER
    return Place.USER


def _text(part: dict[str, Any]) -> str:
    # A result of the tool search has references; the API puts the tools' definitions there.
    held = part.get("text", part.get("content", part.get("tool_name", "")))
    return held if isinstance(held, str) else "\n".join(_text(inner) for inner in held)
