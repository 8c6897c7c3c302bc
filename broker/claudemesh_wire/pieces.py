"""Cuts what is too long for one frame into pieces, and joins them at the other end.

``claudemesh_mcp.tunnels`` sends its messages so. A piece is one byte that says whether more
follows, and a part of the message.
"""

from collections.abc import Iterator
from typing import Final

from claudemesh_wire.errors import ProtocolError, TooMuch

MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
PIECE_BYTES: Final = 128 * 1024
_LAST: Final = b"\x01"
_MORE: Final = b"\x00"


def cut(message: bytes) -> Iterator[bytes]:
    """Give the pieces of a message, at least one.

    Raises:
        TooMuch: ``message_too_large``.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise _too_large()
    return _pieces(message)


def _pieces(message: bytes) -> Iterator[bytes]:
    for start in range(0, len(message), PIECE_BYTES) or (0,):
        end = start + PIECE_BYTES
        yield (_LAST if end >= len(message) else _MORE) + message[start:end]


class Joining:
    """Joins the pieces of one message after the other, and never holds more than one may have."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def add(self, piece: bytes) -> bytes | None:
        """Take a piece; give the message that is complete with it.

        Raises:
            ProtocolError: ``malformed``: it does not begin as a piece does.
            TooMuch: ``message_too_large``.
        """
        if piece[:1] not in {_LAST, _MORE}:
            raise ProtocolError("A piece of a message is malformed.", code="malformed")
        self._size_bytes += len(piece) - 1
        if self._size_bytes > MAX_MESSAGE_BYTES:
            raise _too_large()
        self._parts.append(piece[1:])
        if piece[:1] == _MORE:
            return None
        parts, self._parts, self._size_bytes = self._parts, [], 0
        return b"".join(parts)


def _too_large() -> TooMuch:
    return TooMuch(
        f"A call or its result has at most {MAX_MESSAGE_BYTES} bytes.",
        "Ask for less at once, or share a file.",
        code="message_too_large",
    )
