"""What was heard of who came and went, kept for those who ask and told as sentences.

``attachment.py`` lets it hear the broker's notices; ``sdk.py`` and ``shown_mesh.py`` read it. A
name is told only if its certificate proves it, and that is looked at when somebody asks.
"""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import anyio

from claudemesh_mcp.trust import Trust
from claudemesh_wire.errors import MeshError
from claudemesh_wire.presence import Change, PresenceChanged

MOST_KEPT: Final = 20
_UNITS: Final = ((86_400, "days", 172_800), (3600, "h", 3600), (60, "min", 60), (1, "s", 0))


@dataclass(frozen=True)
class Heard:
    """One thing that was heard, and when."""

    notice: PresenceChanged
    at_ms: int

    def sentence(self, trust: Trust) -> str | None:
        """Tell it, if the peer is proved to have the name it is shown under."""
        card = self.notice.card
        try:
            fields = trust.verify(card.certificate).fields
        except MeshError:
            return None
        if (fields.peer, fields.handle) != (card.peer, card.handle):
            return None
        if self.notice.change is Change.LEFT:
            return f"{fields.handle} left"
        since_ms = self.notice.away_since_ms
        if since_ms is None:
            return f"{fields.handle} joined"
        return f"{fields.handle} is back, last seen {_span(self.at_ms - since_ms)} ago"


class PresenceNews:
    """The last things that were heard."""

    def __init__(self) -> None:
        self._heard: deque[Heard] = deque(maxlen=MOST_KEPT)
        self._count = 0
        self._more = anyio.Event()

    def hear(self, notice: PresenceChanged, at_ms: int) -> None:
        """Keep that somebody came or went; that one changed is no news."""
        if notice.change is not Change.UPDATED:
            self._heard.append(Heard(notice, at_ms))
            self._count += 1
            more, self._more = self._more, anyio.Event()
            more.set()

    def kept(self) -> list[Heard]:
        """Give what is kept, oldest first."""
        return list(self._heard)

    async def follow(self) -> AsyncIterator[Heard]:
        """Give what is heard from now on, as it comes."""
        told = self._count
        while True:
            more = self._more
            fresh = min(self._count - told, len(self._heard))
            told = self._count
            for heard in self.kept()[len(self._heard) - fresh :]:
                yield heard
            await more.wait()


def _span(milliseconds: int) -> str:
    """Say how long something is, roughly: ``2 h``."""
    seconds = max(0, milliseconds) // 1000
    size, unit, _ = next(one for one in _UNITS if seconds >= one[2])
    return f"{seconds // size} {unit}"
