"""Counts what each peer sends and receives, until its connection ends and the counts are written.

``features/*`` count, ``session.py`` takes the counts when a connection ends. They are kept in
memory because a statement per message would cost more than they are worth: a broker that is killed
forgets those of the connections it had.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """What one peer did since its counts were last written."""

    sent: int = 0
    received: int = 0


@dataclass(frozen=True)
class Tallies:
    """The counts of all peers that did something."""

    _peers: dict[tuple[str, str], Tally] = field(default_factory=dict[tuple[str, str], Tally])

    def of(self, mesh: str, peer: str) -> Tally:
        """Give what a peer did that is not written yet, to look at or to add to."""
        return self._peers.setdefault((mesh, peer), Tally())

    def look(self, mesh: str, peer: str) -> Tally:
        """Give what a peer did that is not written yet, to look at only."""
        return self._peers.get((mesh, peer)) or Tally()

    @contextmanager
    def written_off(self, mesh: str, peer: str) -> Generator[Tally]:
        """Give what is to be written in a block; it counts from nothing again.

        If the block fails, it is kept for the next time; not if the block is cancelled, for a
        change that was handed in is made all the same.
        """
        tally = self._peers.pop((mesh, peer), None) or Tally()
        try:
            yield tally
        except Exception:
            kept = self.of(mesh, peer)
            kept.sent += tally.sent
            kept.received += tally.received
            raise
