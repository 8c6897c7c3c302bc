"""The broker's end of a WebSocket in a test's hands: what it reads, answers and sends.

``tests/session/test_connection.py`` writes scripts for it. The protocol is the library's sans-I/O
server; what moves its bytes is here, so that a script can as well not move them.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from claudemesh_mcp.connection import Link, Patience, websocket

LIMIT_S = 10
PATIENT = Patience(ping_interval_s=60)


class OtherEnd:
    """The broker's end of one connection.

    Args:
        reader: What comes from the client.
        writer: What goes there.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.protocol = ServerProtocol(max_size=None)
        self.reader = reader
        self.writer = writer
        self.request: Request | None = None
        self.frames: list[Frame] = []

    async def read(self) -> bool:
        """Take in what the client sent, and answer what the protocol answers; False at the end."""
        data = await self.reader.read(65_536)
        if not data:
            self.protocol.receive_eof()
            return False
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.request = event
                self.protocol.send_response(self.protocol.accept(event))
            elif isinstance(event, Frame):
                self.frames.append(event)
        await self.write()
        return True

    async def write(self) -> None:
        """Send what the protocol wants to have sent."""
        for data in self.protocol.data_to_send():
            if data:
                self.writer.write(data)
            elif self.writer.can_write_eof():
                self.writer.write_eof()
            else:  # TLS knows no half-closed connection
                self.writer.close()
        await self.writer.drain()

    async def shake_hands(self) -> None:
        """Accept the WebSocket."""
        while self.request is None:
            assert await self.read()

    async def frame(self, opcode: Opcode = Opcode.TEXT) -> Frame:
        """Wait for the next frame of a kind; drop what came before."""
        while True:
            while self.frames:
                if (frame := self.frames.pop(0)).opcode is opcode:
                    return frame
            assert await self.read(), "the client went away"

    async def say(self, *texts: str) -> None:
        """Send texts in one write."""
        for text in texts:
            self.protocol.send_text(text.encode())
        await self.write()

    async def until_the_end(self) -> None:
        """Serve until the client has gone."""
        while await self.read():
            pass
        await self.write()


Script = Callable[[OtherEnd], Awaitable[None]]


@asynccontextmanager
async def a_server(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve connections by a script, until its end; give the address."""
    failures: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(OtherEnd(reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as failure:  # noqa: BLE001 - raised in the test below
            failures.append(failure)
        finally:
            writer.transport.abort()

    listening = socket.create_server(("127.0.0.1", 0))
    # Small, so that an other end which does not read is soon felt.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    port = listening.getsockname()[1]
    async with await asyncio.start_server(serve, sock=listening, ssl=tls):
        with anyio.fail_after(LIMIT_S):
            yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    if failures:
        raise failures[0]


@asynccontextmanager
async def connected(script: Script, patience: Patience = PATIENT) -> AsyncIterator[Link]:
    """Give a link whose other end shakes hands and then follows a script."""

    async def accept(other: OtherEnd) -> None:
        await other.shake_hands()
        await script(other)

    async with a_server(accept) as url, websocket(url, patience) as link:
        yield link
