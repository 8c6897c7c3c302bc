"""How other machines reach this broker, as invites tell it.

``__main__.py`` works it out when it listens; ``features/invites.py`` hands it to admins. A broker
that listens on loopback alone has none.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the broker is for others, and by which certificate they know it.

    Args:
        url: ``https://HOST:PORT``, without a path.
        pin: SHA-256 of its own certificate (32 bytes) when that is self-made; empty when the
            system's certificate authorities vouch for it.
    """

    url: str
    pin: bytes = b""
