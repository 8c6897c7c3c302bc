"""Tells the owner of a hosted server what becomes of it: in the news of its session and the log.

``offering.py`` calls it. What a server wrote, or another session said, is cleaned and cut.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from claudemesh_mcp.cleaning import clean_line
from claudemesh_mcp.hosting.callers import Caller
from claudemesh_mcp.hosting.keeping import Condition, State
from claudemesh_mcp.peer import Peer
from claudemesh_wire.errors import MeshError

logger: Final = logging.getLogger(__name__)

_LONGEST: Final = 300
_MOST_NAMED: Final = 8

Tools = Sequence[Mapping[str, Any]]


class OwnNews:
    """The news of one peer about servers of its own.

    Args:
        peer: The peer.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._failed: set[str] = set()

    def forget(self, name: str) -> None:
        """Forget a server that is hosted no more."""
        self._failed.discard(name)

    def condition(self, name: str, condition: Condition) -> None:
        """Tell that a server failed, once however often it does, and that it runs again."""
        if condition.state is State.FAILED and name not in self._failed:
            self._failed.add(name)
            self._tell(name, "state", f"failed, and is started again: {condition.why}")
        elif condition.state is State.RUNNING and name in self._failed:
            self._failed.discard(name)
            self._tell(name, "state", "runs again")

    def changed(self, name: str, before: Tools, now: Tools) -> None:
        """Tell that a server says something else of itself than before."""
        old, new = ({str(one["name"]): one for one in tools} for tools in (before, now))
        told = [
            ("without", [tool for tool in old if tool not in new]),
            ("with the new", [tool for tool in new if tool not in old]),
            ("with another", [tool for tool in new if tool in old and new[tool] != old[tool]]),
        ]
        parts = [f"{how} {_named(tools)}" for how, tools in told if tools]
        what = "; ".join(parts) or "with other resources or prompts"
        self._tell(name, "definitions", f"is offered anew, {what}")

    def unfit(self, name: str, error: MeshError) -> None:
        """Tell that what a server says of itself now can't be offered; what it said before is."""
        self._tell(name, "definitions", f"can't be offered as it is now: {error.reason}")

    def left_out(self, name: str, which: Sequence[str]) -> None:
        """Tell that some of what a server says of itself is shown to nobody."""
        more = f" (and {len(which) - 1} more)" if len(which) > 1 else ""
        self._tell(name, "left out", f"is offered without some: {which[0]}{more}")

    def mistrusted(self, name: str, tool: str, caller: Caller) -> None:
        """Tell that somebody calls a tool no more until a human has looked at it again."""
        who = f"{caller.certificate.fields.handle} ({caller.member.name})"
        what = f"{who} does not call {tool} any more, which is not what was approved there"
        self._tell(name, f"mistrusted {tool} {caller.member.id}", f"was refused: {what}")

    def _tell(self, name: str, about: str, what: str) -> None:
        text = clean_line(f"your MCP server {name} {what}").text[:_LONGEST]
        logger.warning("the server %s: news of its %s", name, about.partition(" ")[0])
        self._peer.news.tell((about, name), text, self._peer.now_ms())


def _named(tools: Sequence[str]) -> str:
    return ", ".join(tools[:_MOST_NAMED]) + (", …" if len(tools) > _MOST_NAMED else "")
