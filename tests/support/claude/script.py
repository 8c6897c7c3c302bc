"""The script of a model: what it answers when what is new before it matches a pattern.

A test writes the rules; ``model.py`` plays them.
"""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

SERVER: Final = "claudemesh"


@dataclass(frozen=True)
class Call:
    """The answer that calls a tool by its full name; several of them are one reply."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


Answer = str | Call | tuple[Call, ...]


def mesh(tool: str, /, **arguments: Any) -> Call:
    """Give the answer that calls a tool of the session's ``claudemesh mcp``."""
    return Call(f"mcp__{SERVER}__{tool}", arguments)


@dataclass(eq=False)
class Rule:
    """What the model does with a text.

    Args:
        pattern: A regular expression; it is searched in all that is new since the model spoke.
        answer: A text, a call or several, or what makes one of the match.
        until: If given, the answer waits until the test has set it: the turn is busy so long.
        times: How often it applies; always if not given.
    """

    pattern: str
    answer: Answer | Callable[[re.Match[str]], Answer]
    until: threading.Event | None = None
    times: int | None = None
    used: int = 0

    def match(self, text: str) -> re.Match[str] | None:
        """Tell whether and where it applies."""
        if self.times is not None and self.used >= self.times:
            return None
        return re.search(self.pattern, text, re.DOTALL)

    def apply(self, found: re.Match[str]) -> Answer:
        """Give the answer to what it matched."""
        return self.answer(found) if callable(self.answer) else self.answer


def choose(rules: Sequence[Rule], text: str) -> tuple[Rule, re.Match[str]] | None:
    """Give the first rule that applies, and what it matched."""
    for rule in rules:
        if (found := rule.match(text)) is not None:
            return rule, found
    return None
