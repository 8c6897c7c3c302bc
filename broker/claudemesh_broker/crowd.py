"""Counts the connections of each address, so that nobody holds all of a broker's alone.

``protocols.py`` counts by it whoever connects, ``websocket.py`` the sessions behind a proxy, whose
addresses that tells.
"""

from collections import Counter
from ipaddress import ip_network
from typing import Final

from claudemesh_broker.binding import plain_address

_IPV4: Final = 4
_ROUTED_BITS: Final = 64


class Crowd:
    """How many connections each address has; one that is empty is not counted.

    Args:
        most: How many it may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one more; gives whether it is one too many, which has to leave as well."""
        if not address:
            return False
        self._open[address] += 1
        return self._open[address] > self._most

    def leave(self, address: str) -> None:
        """Count one less."""
        if not address:
            return
        self._open[address] -= 1
        if self._open[address] <= 0:
            del self._open[address]


def place_of(address: str) -> str:
    """Give what one subscriber has: an address of IPv4, or all those with 64 bits in common."""
    try:
        plain = plain_address(address)
    except ValueError:
        return address
    if plain.version == _IPV4:
        return str(plain)
    return str(ip_network((plain, _ROUTED_BITS), strict=False))
