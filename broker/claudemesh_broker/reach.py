"""How other machines reach this broker, as invites tell it.

``server.py`` works it out when it listens; ``features/invites.py`` hands it to admins. A broker
that listens on loopback alone has none.
"""

import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

# Addresses that are set aside for documents: no route but the default one can be the way there.
_ANYWHERE: Final = {4: (socket.AF_INET, "192.0.2.1"), 6: (socket.AF_INET6, "2001:db8::1")}


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

    @property
    def told(self) -> str:
        """The URL as ``claudemesh mesh create --broker`` takes it, with the certificate to meet."""
        return f"{self.url}#{self.pin.hex()}" if self.pin else self.url


def main_address(version: int) -> str | None:
    """Give this machine's address on the way to other networks, or ``None`` if there is no way.

    Args:
        version: Of the Internet Protocol, 4 or 6.
    """
    family, anywhere = _ANYWHERE[version]
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asked:
        # Nothing is sent: to connect such a socket is to look up the route.
        asked.connect((anywhere, 9))
        return str(asked.getsockname()[0])
    return None


def address_for_others(bind: str) -> str:
    """Give the host by which others reach a broker that was told no name of its own.

    Args:
        bind: The address that it listens on.
    """
    versions = {"0.0.0.0": (4,), "::": (4, 6)}.get(bind)  # noqa: S104 - it is compared
    if versions is None:
        return bind
    found = (main_address(version) for version in versions)
    # An address, not the name of the machine: of that, others often know nothing.
    return next((address for address in found if address), None) or socket.gethostname()


def https_url(host: str, port: int) -> str:
    """Write the address of a broker that speaks TLS."""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
