"""Whoever is no session holds no connection for long, and no single address holds all of them."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from claudemesh_broker.crowd import Crowd, place_of
from claudemesh_broker.protocols import protocols
from tests.broker.test_gate import HERE, STRANGER, served
from tests.support.broker import settings
from tests.support.foreground import LIMIT_S, Hosted, hosted

PROXY = ("--tls", "proxy", "--public-url", "https://mesh.example.org")
SIGN_OF_LIFE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
BRIEF = {"CLAUDEMESH_BROKER_AUTH_TIMEOUT_S": "0.2"}


@contextmanager
def dialed(broker: Hosted) -> Iterator[socket.socket]:
    with socket.create_connection((broker.info.host, broker.info.port), LIMIT_S) as link:
        yield link


def answered(link: socket.socket) -> None:
    """Read one answer whole: it ends with the JSON of the sign of life, or a refusal's line."""
    read = b""
    while not read.endswith((b"}", b"\n", b"Not Allowed")):
        more = link.recv(4096)
        assert more
        read += more


def is_hung_up(link: socket.socket) -> bool:
    """Wait until the other end has gone; were it to stay, the socket's own limit fails this."""
    try:
        while link.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize(
    "rest",
    [b"G", b"GET /health HTTP/1.1\r\nHost: loc", b"\r\n"],
    ids=["a byte", "half a request", "an empty line"],
)
def test_who_was_answered_and_begins_a_request_without_an_end_is_hung_up_on(
    tmp_path: Path, rest: bytes
) -> None:
    with hosted(tmp_path, **BRIEF) as broker, dialed(broker) as link:
        for _ in range(2):
            link.sendall(SIGN_OF_LIFE + b"\r\n")
            answered(link)
        link.sendall(rest)
        assert is_hung_up(link)


def test_who_begins_no_tls_is_hung_up_on(tmp_path: Path) -> None:
    with hosted(tmp_path, "--tls", "auto", **BRIEF) as broker, dialed(broker) as link:
        # Well below the minute that the event loop would wait.
        link.settimeout(LIMIT_S / 2)
        assert is_hung_up(link)


def test_a_body_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    with hosted(tmp_path, **BRIEF) as broker, dialed(broker) as link:
        link.sendall(SIGN_OF_LIFE + b"Content-Length: 1000\r\n\r\nx")
        answered(link)
        assert is_hung_up(link)


async def test_a_session_outlives_the_patience_with_strangers(tmp_path: Path) -> None:
    with hosted(tmp_path, **BRIEF) as broker:
        async with connect(broker.info.url.replace("http", "ws", 1) + "/ws", proxy=None) as link:
            assert await link.recv()
            # Told that no hello came, in words and not by a reset.
            with anyio.fail_after(LIMIT_S):
                await link.wait_closed()
            assert link.close_code == 1008


async def test_one_address_behind_the_proxy_holds_only_its_share(tmp_path: Path) -> None:
    variables = {"CLAUDEMESH_BROKER_CONNECTIONS_PER_ADDRESS": "2"}
    with hosted(tmp_path, *PROXY, **variables) as broker:
        url = broker.info.url.replace("http", "ws", 1) + "/ws"

        async def comes_from(address: str) -> ClientConnection:
            told = {"X-Forwarded-For": address}
            return await stack.enter_async_context(
                connect(url, proxy=None, additional_headers=told)
            )

        async with AsyncExitStack() as stack:
            first, second = await comes_from(STRANGER), await comes_from(STRANGER)
            assert await first.recv()
            assert await second.recv()
            third = await comes_from(STRANGER)
            with pytest.raises(ConnectionClosed), anyio.fail_after(LIMIT_S):
                await third.recv()
            assert third.close_code == 1013
            assert await (await comes_from("198.51.100.10")).recv()
            assert await (await comes_from("2001:db8::1")).recv()
            assert await (await comes_from("2001:db8::2")).recv()
            neighbour = await comes_from("2001:db8::3")
            with pytest.raises(ConnectionClosed), anyio.fail_after(LIMIT_S):
                await neighbour.recv()
            # Who leaves makes room.
            await first.close()
            assert await (await comes_from(STRANGER)).recv()


class Socket(asyncio.Transport):
    """A connection's socket, as far as a server asks it who is there."""

    def __init__(self, peer: str, here: str) -> None:
        super().__init__({"peername": (peer, 50_000), "sockname": (here, 7467)})
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        self.is_aborted = True


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Serve nobody."""


async def answer(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer at length."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(100_000)})


async def test_who_asks_and_takes_no_answer_is_hung_up_on(tmp_path: Path) -> None:
    # Not a whole broker: its answers are so short that it would give ten thousands of them.
    http, websocket = protocols(settings(tmp_path, auth_timeout_s=0.2), served())
    config, state = uvicorn.Config(answer, http=http, ws=websocket, lifespan="off"), ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    asked = (SIGN_OF_LIFE + b"\r\n") * 1000
    made = loop.create_server(lambda: http(config, state, {}), "127.0.0.1", 0)
    with anyio.fail_after(LIMIT_S), socket.socket() as link:
        async with await made as server:
            link.setblocking(False)  # noqa: FBT003 - the socket's own word
            await loop.sock_connect(link, server.sockets[0].getsockname())
            with suppress(ConnectionError):  # Reset, or a pipe that is broken.
                while True:
                    await loop.sock_sendall(link, asked)


async def test_one_address_opens_only_its_share_of_connections(tmp_path: Path) -> None:
    http, websocket = protocols(settings(tmp_path, connections_per_address=3), served())
    config, state = uvicorn.Config(nothing, http=http, ws=websocket, lifespan="off"), ServerState()
    config.load()

    def come(peer: str) -> tuple[Any, Socket]:
        connection, transport = http(config, state, {}), Socket(peer, HERE)
        connection.connection_made(transport)
        return connection, transport

    # A few more than may be sessions, so that those are told why.
    those = [come(STRANGER) for _ in range(12)]
    assert [transport.is_aborted for _, transport in those] == [False] * 11 + [True]
    assert not come("198.51.100.10")[1].is_aborted
    assert not any(come("127.0.0.1")[1].is_aborted for _ in range(20))
    assert not any(come(HERE)[1].is_aborted for _ in range(20))
    for connection, _ in those[-2:]:
        connection.connection_lost(None)
    assert not come(STRANGER)[1].is_aborted


def test_an_address_is_one_place_in_either_dress() -> None:
    assert place_of(f"::ffff:{STRANGER}") == place_of(STRANGER) == STRANGER
    assert place_of("2001:db8:0:1::9") == "2001:db8:0:1::/64"
    assert place_of("unknown") == "unknown"


def test_a_crowd_forgets_who_has_left() -> None:
    crowd = Crowd(1)
    assert [crowd.enter(place) for place in ("a", "a", "b", "", "")] == [
        True,
        False,
        True,
        True,
        True,
    ]
    for place in ("a", "b", "", ""):
        crowd.leave(place)
    assert crowd.enter("a")
