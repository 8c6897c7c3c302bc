"""One live line to another peer: messages of any length, sealed, in pieces, in order.

``tunnels.py`` makes lines and tells them what the broker passed on; whoever calls a tool of another
peer, and what answers calls, talk through them.
"""

import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final, cast

import anyio

from claudemesh_mcp.client import Client
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import MeshError, ProtocolError, TooMuch, Unavailable
from claudemesh_wire.pieces import MAX_MESSAGE_BYTES, Joining, cut
from claudemesh_wire.tunnel_keys import Directions
from claudemesh_wire.tunnels import CloseTunnel, PassData

_MOST_UNREAD_BYTES: Final = 2 * MAX_MESSAGE_BYTES
_NEVER_LEFT: Final = frozenset({"no_tunnel", "peer_offline", "rate_limited"})

Words = dict[str, Any]
"""One message of a line: a JSON object."""


class LineEnded(Exception):
    """A line is no more.

    Args:
        why: What ended it.
        left: Whether what was to be sent may have reached the other end.
    """

    def __init__(self, why: MeshError, *, left: bool) -> None:
        super().__init__(str(why))
        self.why = why
        self.left = left


class Line:
    """One line to another peer, whose certificate was verified.

    Args:
        client: The connection it goes over.
        number: The tunnel's.
    """

    def __init__(self, client: Client, number: int) -> None:
        self.number = number
        self._client = client
        self._peer: Certificate | None = None
        self._keys: Directions | None = None
        self._data: deque[bytes] = deque()
        self._unread_bytes = 0
        self._more = anyio.Event()
        self._joining = Joining()
        self._sending = anyio.Lock()
        self._why: MeshError | None = None
        self.is_gone = False
        """Whether the broker has it no more."""

    @property
    def peer(self) -> Certificate:
        """Who is at the other end."""
        if self._peer is None:
            raise ProtocolError(
                "This line was not answered yet.", "Wait for the answer.", remote=False
            )
        return self._peer

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._why is not None

    def begin(self, peer: Certificate, keys: Directions) -> None:
        """Use these keys from now on, with this peer."""
        self._peer, self._keys = peer, keys

    def hear(self, data: bytes) -> None:
        """Take in data of the other end."""
        self._unread_bytes += len(data)
        if self._unread_bytes > _MOST_UNREAD_BYTES:
            self.end(
                TooMuch(
                    "The other end sends more than is read here.",
                    "Ask it for less at once.",
                    code="too_much_unread",
                )
            )
            return
        self._data.append(data)
        self._more.set()

    def end(self, why: MeshError) -> None:
        """Take note that it is no more; what came before can still be read."""
        self._why = self._why or why
        self._more.set()

    async def first(self) -> bytes:
        """Give the first data, which are not sealed; raises ``LineEnded``."""
        return await self._next()

    async def _next(self) -> bytes:
        while not self._data:
            if self._why is not None:
                raise LineEnded(self._why, left=False)
            self._more = anyio.Event()
            await self._more.wait()
        data = self._data.popleft()
        self._unread_bytes -= len(data)
        return data

    async def send(self, words: Words) -> None:
        """Send one message.

        Raises:
            TooMuch: ``message_too_large``: nothing was sent; the line goes on.
            LineEnded: with ``left``: whether the whole message may have reached the other end.
        """
        pieces = list(cut(json.dumps(words, separators=(",", ":"), allow_nan=False).encode()))
        async with self._sending:
            if self._why is not None or self._keys is None:
                raise LineEnded(self._why or closed(), left=False)
            for place, piece in enumerate(pieces, 1):
                await self._pass(self._keys.out.seal(piece), is_last=place == len(pieces))

    async def _pass(self, data: bytes, *, is_last: bool) -> None:
        """Hand data to the broker; a message of which a piece is missing is none."""
        try:
            await self.hand_over(data)
        except MeshError as error:
            self.end(error)
            raise LineEnded(error, left=is_last and error.code not in _NEVER_LEFT) from error
        except BaseException:
            # A piece that may be missing: nothing that is sealed behind it can be opened.
            self.end(closed())
            raise

    async def hand_over(self, data: bytes) -> None:
        """Hand data to the broker, as often as it asks to wait; raises ``MeshError``."""
        while True:
            try:
                await self._client.call(PassData(tunnel=self.number, data=data))
            except TooMuch as error:
                if error.retry_after_s is None:
                    raise
                await anyio.sleep(error.retry_after_s)
            else:
                return

    async def messages(self) -> AsyncIterator[Words]:
        """Give what the other end sends, until the line ends.

        Raises:
            MeshError: what came is broken: the line has ended for that.
        """
        while True:
            try:
                data = await self._next()
            except LineEnded:
                return
            try:
                words = self._read(data)
            except MeshError as error:
                self.end(error)
                raise
            if words is not None:
                yield words

    def _read(self, data: bytes) -> Words | None:
        if self._keys is None:
            raise ProtocolError("Data came before the line was answered.")
        message = self._joining.add(self._keys.back.open(data))
        if message is None:
            return None
        try:
            words = json.loads(message)
        except (ValueError, RecursionError) as error:
            raise ProtocolError("A message of a line is not JSON.", code="malformed") from error
        if not isinstance(words, dict):
            raise ProtocolError("A message of a line is not an object.", code="malformed")
        return cast("Words", words)

    async def close(self, reason: str = "") -> None:
        """End it; the other end is told, if it can be."""
        self.end(closed())
        with suppress(MeshError):
            await self._client.call(CloseTunnel(tunnel=self.number, reason=reason[:200]))


def closed() -> MeshError:
    """Say that a line was closed on purpose."""
    return Unavailable("The line was closed.", "Open another.", code="line_closed")
