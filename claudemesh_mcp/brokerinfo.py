"""What a running broker says about itself, read with suspicion.

The broker writes ``run/broker.json`` after it listens; ``launcher.py`` reads it through here and
hands it to ``client.py`` and ``cli/``.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

_TOKEN_BYTES: Final = 32
_PIN_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    """What a running broker says about itself in ``run/broker.json``.

    Args:
        id: Its id, the hash of its key.
        url: ``http://127.0.0.1:PORT``, or with ``https`` where it speaks TLS.
        token: 32 bytes that key the proof of being local; never sent.
        pid: Its process.
        version: Of its program.
        data: Its data folder.
        data_version: Of its database.
        started_ms: When it began to listen.
        pin: SHA-256 of the certificate that it shows there, if it speaks TLS.
        bind: The address that it listens on; empty if it does not say.
    """

    id: str
    url: str
    token: bytes = field(repr=False)
    pid: int
    version: str
    data: Path
    data_version: int
    started_ms: int
    pin: bytes = b""
    bind: str = ""

    @property
    def host(self) -> str:
        """The address at which this machine reaches it."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return urlsplit(self.url).port or 0


def read_info(data: bytes) -> BrokerInfo | None:
    """Read ``run/broker.json``.

    Args:
        data: Its content.

    Returns:
        What it says, or ``None`` when it makes no sense or names an address of
        another machine without a certificate to know it by.
    """
    try:
        told: dict[str, Any] = json.loads(data)
        info = BrokerInfo(
            id=str(told["id"]),
            url=str(told["url"]),
            token=base64.urlsafe_b64decode(told["token"] + "=="),
            pid=int(told["pid"]),
            version=str(told["version"]),
            data=Path(told["data"]),
            data_version=int(told["data_version"]),
            started_ms=int(told["started_ms"]),
            # An older broker has neither.
            pin=base64.urlsafe_b64decode(told.get("pin", "") + "=="),
            bind=str(told.get("bind", "")),
        )
        is_secured = info.url.startswith("https://") and len(info.pin) == _PIN_BYTES
        usable = info.port and (ip_address(info.host).is_loopback or is_secured)
        return info if usable and len(info.token) == _TOKEN_BYTES else None
    except (ValueError, LookupError, TypeError):
        return None


def is_newer(mine: str, theirs: str) -> bool:
    """Compare two versions by the numbers of their release.

    Args:
        mine: A version such as ``0.10.2`` or ``1.0rc1``.
        theirs: Another.

    Returns:
        Whether the first is the later release.
    """
    return _release(mine) > _release(theirs)


def _release(version: str) -> tuple[int, ...]:
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
