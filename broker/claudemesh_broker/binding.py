"""Says where a broker listens and who vouches for it there, and refuses what would be unsafe.

``config.py`` reads the settings through here; ``gate.py``, ``tls.py`` and ``server.py`` act on the
``Binding`` that comes out.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

from claudemesh_wire.errors import Invalid

CERTIFICATE_FILE: Final = "broker-tls.crt"
CERTIFICATE_KEY_FILE: Final = "broker-tls.key"
"""What a broker makes for itself, in its data folder."""

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
_RUN: Final = "claudemesh broker run"
_ADDRESS: Final = "an IP address, as 127.0.0.1, 0.0.0.0 or ::"
_URL: Final = "https://HOST or https://HOST:PORT, without a path"


class Tls(StrEnum):
    """What stands between a connection and whoever listens on the wire."""

    OFF = "off"
    AUTO = "auto"
    OWN = "own"
    PROXY = "proxy"

    @property
    def is_served(self) -> bool:
        """Whether the broker speaks it itself."""
        return self in {Tls.AUTO, Tls.OWN}


@dataclass(frozen=True)
class Binding:
    """Where a broker listens, for whom, and what vouches for it there.

    Args:
        bind: The address.
        tls: How connections are kept from being read.
        files: A certificate of the user's own and its key.
        public_url: How others reach it, where that was said.
        proxies: The networks whose word about a client's address counts.
        is_embedded: Started by a session, for that home alone.
    """

    bind: str
    tls: Tls = Tls.OFF
    files: tuple[Path | None, Path | None] = (None, None)
    public_url: str = ""
    proxies: tuple[str, ...] = LOOPBACK
    is_embedded: bool = False

    @property
    def is_public(self) -> bool:
        """Whether other machines are meant to reach it."""
        is_beyond = not is_loopback(self.bind)
        return is_beyond or self.tls is Tls.PROXY or bool(self.public_url)

    def check(self) -> None:
        """Refuse what would show a connection to others, or can't work.

        Raises:
            Invalid: ``tls_required``; ``not_loopback``: an embedded broker is for its home alone;
                ``config_invalid``: certificate, proxy and URL don't go together.
        """
        self._check_files()
        if self.is_embedded and self.is_public:
            raise Invalid(
                "A broker that a session starts listens on this machine only.",
                f"One for other machines is started by hand: {self._command('--tls auto')}",
                code="not_loopback",
            )
        if self.is_public and self.tls is Tls.OFF:
            what = f"listen on {self.bind}" if not self.public_url else f"be {self.public_url}"
            raise Invalid(
                f"The broker is to {what}, where others could read along, without TLS.",
                f"{self._command('--tls auto')} makes a certificate. With your own: --tls-cert FILE"
                " --tls-key FILE. Behind a proxy that speaks TLS: --tls proxy --public-url URL",
                code="tls_required",
            )
        if self.tls is Tls.PROXY and not self.public_url:
            raise Invalid(
                "The broker can't know the address of the proxy before it.",
                f"{_RUN} --tls proxy --public-url https://mesh.example.org",
                code="config_invalid",
            )

    def _check_files(self) -> None:
        given = [file for file in self.files if file is not None]
        if self.tls is Tls.OWN and len(given) != len(self.files):
            raise Invalid(
                "A certificate of one's own needs its key beside it.",
                f"{self._command('--tls-cert FILE --tls-key FILE')}",
                code="config_invalid",
            )
        if self.tls is not Tls.OWN and given:
            raise Invalid(
                f"With --tls {self.tls} the broker has no use for {given[0]}.",
                "Leave out either --tls or the files.",
                code="config_invalid",
            )

    def _command(self, more: str) -> str:
        return f"{_RUN} --bind {self.bind} {more}"


def is_loopback(host: str) -> bool:
    """Tell whether a host, without its port, is this machine."""
    if host == "localhost":
        return True
    try:
        return plain_address(host).is_loopback
    except ValueError:
        return False


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Read an address; one of IPv4 that comes in the clothes of IPv6 is the one of IPv4.

    Raises:
        ValueError: it is none.
    """
    address = ip_address(text)
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return inner or address


def as_address(value: object) -> str:
    """Read the address to listen on."""
    if value == "localhost":
        return "127.0.0.1"
    try:
        return str(plain_address(str(value)))
    except ValueError as error:
        raise ValueError(_ADDRESS) from error


def as_tls(value: object) -> Tls:
    """Read how connections are kept from being read."""
    # In TOML a bare word is no value, so somebody may well write `tls = false`.
    word = "off" if value is False else str(value).lower()
    try:
        return Tls(word)
    except ValueError as error:
        raise ValueError("one of " + ", ".join(Tls)) from error


def as_file(value: object) -> Path | None:
    """Read the path of a file."""
    if value is None:
        return None
    text = str(value) if isinstance(value, (str, Path)) else ""
    if not text.strip() or "\0" in text:
        raise ValueError("the path of a file")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # `~nobody` names no user of this machine
        raise ValueError("the path of a file") from error


def as_public_url(value: object) -> str:
    """Read how others reach the broker; empty when nobody said."""
    if value == "":
        return ""
    try:
        parts = urlsplit(str(value))
        # Reading the port is what checks it.
        is_plain = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ValueError(_URL) from error
    more = parts.path.rstrip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if not is_plain or more or not str(value).isascii() or any(one.isspace() for one in str(value)):
        raise ValueError(_URL)
    return f"https://{parts.netloc.lower()}"


def as_trusted(value: object) -> tuple[str, ...]:
    """Read the addresses and networks of proxies: a list, or a text with commas."""
    texts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(str(ip_network(str(text).strip())) for text in cast("list[object]", texts))
    except (ValueError, TypeError) as error:
        raise ValueError("addresses or networks, as 10.0.0.7, 10.1.0.0/16") from error
