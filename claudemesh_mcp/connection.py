"""The text transport to a broker: a WebSocket in life, a pair of streams in tests.

``attachment.py`` dials; ``client.py`` speaks over whatever it is given. Both ends of a ``Link`` see
whole texts in order, or ``LinkClosed``. The library ``websockets`` speaks the protocol; its own
shell for asyncio brings an HTTP client along, which is memory that every session would pay for.
"""

import asyncio
import random
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, cast

import anyio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidState, WebSocketException
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from claudemesh_mcp import tls
from claudemesh_wire.errors import Unavailable
from claudemesh_wire.frame import MAX_FRAME_BYTES

# Time for two pings: the one that follows an unanswered one is not waited for in full.
STALE_IN_INTERVALS: Final = 2.5
_AHEAD: Final = 16
_AT_ONCE_BYTES: Final = 64 * 1024
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 15.0
_CONTROL: Final = (Opcode.PING, Opcode.PONG, Opcode.CLOSE)


class LinkClosed(Exception):
    """The other end is gone; nothing more arrives and nothing can be sent."""


class Link(Protocol):
    """A transport as a function of text."""

    async def send(self, text: str) -> None:
        """Send one text, in order; raises ``LinkClosed``."""
        ...

    async def receive(self) -> str:
        """Give the next text; raises ``LinkClosed`` at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a connection waits for its other end.

    Args:
        ping_interval_s: A silent other end is asked whether it lives, and given up after 2.5 times
            as long.
        open_s: For the connection and the WebSocket's handshake.
        send_s: For room to send.
        close_s: For the answer to a goodbye.
    """

    ping_interval_s: float
    open_s: float = 10.0
    send_s: float = 20.0
    close_s: float = 1.0


@asynccontextmanager
async def websocket(url: str, patience: Patience, pin: bytes = b"") -> AsyncGenerator[Link]:
    """Open a WebSocket to a broker and close it behind the block.

    Args:
        url: The broker's address, ``https://HOST:PORT``, or with ``http`` on this machine.
        patience: How long it is waited for.
        pin: SHA-256 of the certificate that it has to show; without one, and with https, one of
            the system's authorities has to vouch for it.

    Raises:
        Unavailable: ``unreachable``: nobody answers there, or not with a WebSocket.
        Unauthenticated: ``certificate_changed`` or ``certificate_invalid``; nothing was sent.
        Invalid: ``tls_required``: plain http to another machine.
    """
    try:
        with anyio.fail_after(patience.open_s):
            link = await _open(url, patience, pin)
    except ssl.SSLCertVerificationError as error:
        raise tls.refused(url, error) from error
    except (OSError, WebSocketException, LinkClosed) as error:
        raise Unavailable(
            f"The broker at {url} does not answer.",
            "Ask whoever hosts it whether it runs; check the address, and this machine's network.",
            code="unreachable",
        ) from error
    try:
        yield link
    finally:
        await link.close()


async def _open(url: str, patience: Patience, pin: bytes) -> "WebSocketLink":
    secured = tls.context_for(url, pin)
    uri = parse_uri(url.replace("http", "ws", 1) + "/ws")
    protocol = ClientProtocol(uri, max_size=MAX_FRAME_BYTES)
    # Directly: a broker on loopback is not asked for through somebody's proxy.
    transport, link = await asyncio.get_running_loop().create_connection(
        lambda: WebSocketLink(protocol, patience), uri.host, uri.port, ssl=secured
    )
    try:
        tls.check_pin(transport, pin)
        await link.shake_hands()
    except BaseException:
        link.abort()
        raise
    return link


class WebSocketLink(asyncio.Protocol):
    """The shell around the library's protocol: it moves the bytes and watches the time.

    Args:
        protocol: Of a client that has said nothing yet.
        patience: How long the other end is waited for.
    """

    def __init__(self, protocol: ClientProtocol, patience: Patience) -> None:
        self._protocol = protocol
        self._patience = patience
        self._texts: deque[str] = deque()
        self._parts: list[bytes] = []
        self._is_paused = False
        self._due_bytes = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = asyncio.Event()

    async def shake_hands(self) -> None:
        """Ask for a WebSocket.

        Raises:
            LinkClosed: the connection ended.
            WebSocketException: what answers is not a WebSocket.
        """
        self._protocol.send_request(self._protocol.connect())
        self._write()
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            await self._more()
        if self._protocol.handshake_exc is not None:
            raise self._protocol.handshake_exc

    async def send(self, text: str) -> None:
        """Send one text, in order.

        Raises:
            LinkClosed: the other end is gone, or has taken nothing for too long.
        """
        try:
            data = text.encode()
            self._protocol.send_text(data)
            # What one turn of the loop sends is one call into the system, unless it is much.
            self._due_bytes += len(data)
            if self._due_bytes > _AT_ONCE_BYTES:
                self._write()
            elif self._due_bytes == len(data):
                self._loop.call_soon(self._write)
            if not self._room.is_set():
                with anyio.fail_after(self._patience.send_s):
                    await self._room.wait()
        except (InvalidState, TimeoutError) as error:
            # Whoever receives has to learn of it too.
            self.abort()
            raise LinkClosed("the connection ended while sending") from error

    async def receive(self) -> str:
        """Give the next text.

        Raises:
            LinkClosed: the other end is gone, or did not keep to the protocol.
        """
        while not self._texts:
            if self._is_paused:
                self._is_paused = False
                self._transport.resume_reading()
            await self._more()
        return self._texts.popleft()

    async def _more(self) -> None:
        if self._protocol.state in {State.CLOSING, State.CLOSED}:
            raise LinkClosed("the connection ended")
        self._news.clear()
        await self._news.wait()

    async def close(self) -> None:
        """Say goodbye, and wait a little for the other end to close."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._write()
        self._transport.resume_reading()
        with anyio.move_on_after(self._patience.close_s, shield=True):
            await self._ended.wait()
        self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the event loop calls this and the five below."""
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._watching = self._loop.call_later(self._patience.ping_interval_s, self._watch)
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Take in bytes; what the protocol answers by itself is sent."""
        self._heard = self._loop.time()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
        self._write()
        is_open = self._protocol.state is State.OPEN
        if len(self._texts) >= _AHEAD and is_open and not self._is_paused:
            # Who sends more than is taken has to wait.
            self._is_paused = True
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> None:
        """Let the transport close, as the other end has."""
        self._protocol.receive_eof()
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait."""
        del exc
        self._watching.cancel()
        self._protocol.receive_eof()
        for waited in (self._news, self._room, self._ended):
            waited.set()

    def pause_writing(self) -> None:
        """Let whoever sends wait."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Let them go on."""
        self._room.set()

    def _take(self, frame: Frame) -> None:
        if frame.opcode in _CONTROL:
            return
        if frame.opcode is Opcode.BINARY:
            self._protocol.fail(CloseCode.UNSUPPORTED_DATA, "only text is understood")
            return
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        whole, self._parts = b"".join(self._parts), []
        try:
            self._texts.append(whole.decode())
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "a text is not UTF-8")

    def _write(self) -> None:
        self._due_bytes = 0
        waiting = self._protocol.data_to_send()
        if data := b"".join(waiting):
            self._transport.write(data)
        # An empty piece, the last there ever is, stands for the end.
        if waiting and not waiting[-1] and self._transport.can_write_eof():
            self._transport.write_eof()

    def _watch(self) -> None:
        """Ask a silent other end whether it lives; give it up when it has been silent for long."""
        interval_s = self._patience.ping_interval_s
        stale_s = STALE_IN_INTERVALS * interval_s
        silent_s = self._loop.time() - self._heard
        if silent_s >= stale_s:
            self.abort()
            return
        if silent_s >= interval_s and self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"")
            self._write()
        next_s = stale_s if silent_s >= interval_s else interval_s
        self._watching = self._loop.call_later(next_s - silent_s, self._watch)


def pauses(random_unit: random.Random | None = None) -> Iterator[float]:
    """Give the seconds to wait before each further attempt: growing, and spread by chance.

    Args:
        random_unit: The source of chance; a seeded one in tests.
    """
    chance = random_unit or random.Random()  # noqa: S311 - it spreads load, it guards nothing
    pause = _FIRST_PAUSE_S
    while True:
        yield pause * (0.5 + chance.random())
        pause = min(pause * 1.8, _LONGEST_PAUSE_S)
