"""What was heard of who came and went, and of MCP servers, kept and told as sentences.

``attachment.py`` lets it hear the broker's notices; ``sdk.py`` and ``shown_mesh.py`` read it. A
name is told only if its certificate proves it, and that is looked at when somebody asks. All else
is the broker's word, and the words of who offers a server: news prove nothing.
"""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from claudemesh_mcp.cleaning import clean_line
from claudemesh_mcp.trust import Trust
from claudemesh_wire.errors import MeshError
from claudemesh_wire.message import Notice
from claudemesh_wire.presence import Change, PresenceChanged
from claudemesh_wire.server_news import ServerChange, ServerChanged

MOST_KEPT: Final = 20
"""Of peers, and as much of servers."""
_MOST_TOOLS: Final = 8
_LONGEST_HOST: Final = 80
_UNITS: Final = ((86_400, "days", 172_800), (3600, "h", 3600), (60, "min", 60), (1, "s", 0))
_SAID: Final = {
    ServerChange.REGISTERED: "{handle} offers the MCP server {name}{where}{tools}",
    ServerChange.RESTORED: "{handle} offers the MCP server {name}{where} again{tools}",
    ServerChange.CHANGED: "{handle} has changed the MCP server {name}{where}{tools}",
    ServerChange.UNREGISTERED: "{handle} no longer offers the MCP server {name}{where}{tools}",
    ServerChange.OFFLINE: "the MCP server {name} of {handle}{where} is offline{tools}",
}


@dataclass(frozen=True)
class Heard:
    """One thing that was heard, and when; later ones have higher numbers."""

    notice: PresenceChanged | ServerChanged | str
    """A text is what this session tells of a server of its own."""
    at_ms: int
    number: int = 0

    def sentence(self, trust: Trust) -> str | None:
        """Tell it, if the peer is proved to have the name it is shown under."""
        notice = self.notice
        if isinstance(notice, str):
            return notice
        shown = notice if isinstance(notice, ServerChanged) else notice.card
        try:
            fields = trust.verify(shown.certificate).fields
        except MeshError:
            return None
        if (fields.peer, fields.handle) != (shown.peer, shown.handle):
            return None
        if isinstance(notice, ServerChanged):
            return _of_server(notice, fields.handle)
        return self._of_peer(notice, fields.handle)

    def _of_peer(self, notice: PresenceChanged, handle: str) -> str:
        if notice.change is Change.LEFT:
            return f"{handle} left"
        since_ms = notice.away_since_ms
        if since_ms is None:
            return f"{handle} joined"
        return f"{handle} is back, last seen {_span(self.at_ms - since_ms)} ago"


class News:
    """The last things that were heard; of each server the last one."""

    def __init__(self) -> None:
        self._of_peers: deque[Heard] = deque(maxlen=MOST_KEPT)
        self._of_servers: dict[tuple[str, str], Heard] = {}
        self.last_of_servers = 0
        """The number of the last that was heard of a server."""
        self._last = 0
        self._more = anyio.Event()

    def hear(self, notice: Notice, at_ms: int) -> None:
        """Keep that a peer came or went, or what became of a server; all else is no news."""
        match notice:
            case PresenceChanged() if notice.change is not Change.UPDATED:
                self._of_peers.append(self._counted(notice, at_ms))
            case ServerChanged():
                self._keep((notice.peer, notice.name), notice, at_ms)
            case _:
                return
        self._wake()

    def tell(self, about: tuple[str, str], text: str, at_ms: int) -> None:
        """Keep what became of a server of this session's own: one text for what it is about."""
        self._keep(about, text, at_ms)
        self._wake()

    def _keep(self, about: tuple[str, str], told: ServerChanged | str, at_ms: int) -> None:
        """Keep the last of a server: one that changes all the time drives out its own alone."""
        self._of_servers.pop(about, None)
        self._of_servers[about] = self._counted(told, at_ms)
        self.last_of_servers = self._last
        if len(self._of_servers) > MOST_KEPT:
            del self._of_servers[next(iter(self._of_servers))]

    def _wake(self) -> None:
        more, self._more = self._more, anyio.Event()
        more.set()

    def _counted(self, notice: PresenceChanged | ServerChanged | str, at_ms: int) -> Heard:
        self._last += 1
        return Heard(notice, at_ms, self._last)

    def kept(self) -> list[Heard]:
        """Give what is kept, oldest first."""
        every = [*self._of_peers, *self._of_servers.values()]
        return sorted(every, key=lambda heard: heard.number)

    async def follow(self) -> AsyncIterator[Heard]:
        """Give what is heard from now on, as it comes."""
        told = self._last
        while True:
            more = self._more
            for heard in self.kept():
                if heard.number > told:
                    told = heard.number
                    yield heard
            await more.wait()


def _of_server(notice: ServerChanged, handle: str) -> str:
    host = clean_line(notice.host).text[:_LONGEST_HOST]
    return _SAID[notice.change].format(
        handle=handle,
        name=notice.name,
        where=f" on {host}" if host else "",
        tools=_named(notice.tools),
    )


def _named(tools: Sequence[str]) -> str:
    """Name some tools, behind a colon."""
    names = [name for tool in tools[:_MOST_TOOLS] if (name := clean_line(tool).text)]
    more = ", …" if len(tools) > _MOST_TOOLS else ""
    return f": {', '.join(names)}{more}" if names else ""


def _span(milliseconds: int) -> str:
    """Say how long something is, roughly: ``2 h``."""
    seconds = max(0, milliseconds) // 1000
    size, unit, _ = next(one for one in _UNITS if seconds >= one[2])
    return f"{seconds // size} {unit}"
