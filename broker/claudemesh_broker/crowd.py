"""Counts the connections of each address, so that nobody holds all of a broker's alone.

``protocols.py`` counts by it whoever connects, before a byte is read; ``websocket.py`` counts the
sessions among them, of which a proxy has told by then where they come from. ``gate.py`` says for
both which place a connection counts for.
"""

from collections import Counter
from ipaddress import ip_network
from typing import Final

from claudemesh_broker.binding import plain_address

_IPV4: Final = 4
_ROUTED_BITS: Final = 64


class Crowd:
    """How many connections each place has; the empty one is not counted, and has no limit.

    Args:
        most: How many a place may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def enter(self, place: str) -> bool:
        """Count one more of a place if there is room for it; gives whether it was counted."""
        if place and self._open[place] >= self._most:
            return False
        if place:
            self._open[place] += 1
        return True

    def leave(self, place: str) -> None:
        """Count one less of those that were counted."""
        if place:
            self._open[place] -= 1
            if not self._open[place]:
                del self._open[place]


def place_of(address: str) -> str:
    """Give what one subscriber has: an address of IPv4, or all those with 64 bits in common."""
    try:
        plain = plain_address(address)
    except ValueError:
        return address
    if plain.version == _IPV4:
        return str(plain)
    return str(ip_network((plain, _ROUTED_BITS), strict=False))
