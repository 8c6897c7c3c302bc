"""Links: what an admin hands to somebody who is to join, as one URL.

``https://HOST:PORT/i/CODE#FRAGMENT``: the path names an invite and proves nothing, so that a link
preview that opens it learns nothing and uses up nothing. The fragment, which no server is sent,
holds the one-time key, and the mesh, broker and certificate that the joiner must find there.

Fragment:  base64url( u8 1 | seed(32) | mesh(16) | broker(16) | certificate SHA-256 (32 or none) )
"""

import base64
import re
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from claudemesh_wire.errors import Invalid
from claudemesh_wire.keys import KEY_BYTES, SigningKey, b64, make_id, unb64

VERSION: Final = 1
PATH: Final = "/i/"
MAX_LINK: Final = 1000
_ID_BYTES: Final = 16
_SHORT: Final = 1 + KEY_BYTES + 2 * _ID_BYTES
_LONG: Final = _SHORT + KEY_BYTES
_CODE: Final = re.compile("[a-z2-7]{26}", re.ASCII)
_HINT: Final = (
    "Copy the whole link, with everything behind the #, as `claudemesh invite` printed it."
)


@dataclass(frozen=True)
class InviteLink:
    """An invite as it is handed over; whoever has it can use it.

    Args:
        url: Where the broker is, without a path.
        code: The invite's id.
        seed: The one-time key, 32 bytes.
        mesh: The mesh it leads to.
        broker: The broker that must be found there.
        pin: SHA-256 of the broker's certificate; empty when certificate authorities vouch for it.
    """

    url: str
    code: str
    seed: bytes = field(repr=False)
    mesh: str
    broker: str
    pin: bytes = b""

    @property
    def one_time(self) -> SigningKey:
        """The key that proves possession of the link."""
        return SigningKey(self.seed)

    def to_text(self) -> str:
        """Write it as one URL."""
        packed = bytes([VERSION]) + self.seed + _raw(self.mesh) + _raw(self.broker) + self.pin
        return f"{self.url}{PATH}{self.code}#{b64(packed)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a link as somebody pasted it.

        Raises:
            Invalid: ``bad_invite``: it is cut off, altered, or no such link;
                ``unsupported_version``: a later version made it.
        """
        try:
            parts = urlsplit(text.strip())
            url = site_of(parts)
        except ValueError as error:
            raise _bad("This is not a link.") from error
        if len(text) > MAX_LINK or parts.scheme not in {"https", "http"} or not parts.hostname:
            raise _bad("This is not the link of an invite.")
        if parts.query or parts.username or not parts.path.startswith(PATH):
            raise _bad("This is not the link of an invite.")
        code = parts.path.removeprefix(PATH)
        if not _CODE.fullmatch(code):
            raise _bad("The link names no invite.")
        return cls(url, code, *_unpacked(parts.fragment))


def site_of(parts: SplitResult) -> str:
    """Give the part of a URL that says where its server is: ``https://HOST:PORT``.

    Raises:
        ValueError: its port is no number of a port.
    """
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{parts.port}" if parts.port else "")


def _unpacked(fragment: str) -> tuple[bytes, str, str, bytes]:
    if not fragment:
        raise _bad("The link has lost the part behind the #, which holds its key.")
    try:
        packed = unb64(fragment)
    except (Invalid, UnicodeError) as error:
        raise _bad("The part of the link behind the # is damaged.") from error
    if packed[:1] != bytes([VERSION]):
        raise Invalid(
            "The link was made by another version of claudemesh, or is damaged.",
            "Update claudemesh; else copy the link again.",
            code="unsupported_version",
        )
    if len(packed) not in {_SHORT, _LONG}:
        raise _bad("The part of the link behind the # is cut off.")
    mesh = 1 + KEY_BYTES
    broker = mesh + _ID_BYTES
    return (
        packed[1:mesh],
        make_id("mesh_", packed[mesh:broker]),
        make_id("b_", packed[broker:_SHORT]),
        packed[_SHORT:],
    )


def _raw(identifier: str) -> bytes:
    """Give the 16 bytes of an id."""
    digits = identifier.rpartition("_")[2].upper()
    return base64.b32decode(digits + "=" * (-len(digits) % 8))


def _bad(reason: str) -> Invalid:
    return Invalid(reason, _HINT, code="bad_invite")
