"""The shell around a session: whom the gate lets in, what a link is."""

from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from claudemesh_broker.binding import Binding, is_loopback
from claudemesh_broker.gate import Gate, Guard
from claudemesh_broker.websocket import WebSocketDoor, WebSocketLink
from tests.broker.test_gate import STRANGER, proxied, scope
from tests.support.broker import (
    LinkClosed,
    settings,
)

LIMIT_S = 30


@pytest.mark.parametrize(
    ("host", "is_this_machine"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("192.0.2.1", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_loopback_is_told_by_its_address(host: str, is_this_machine: bool) -> None:  # noqa: FBT001 - a case
    assert is_loopback(host) is is_this_machine


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ([(b"host", b"127.0.0.1:80")], True),
        ([(b"host", b"[::1]:80")], True),
        ([(b"host", b"localhost")], True),
        ([], False),
        ([(b"host", b"localhost"), (b"host", b"evil.example")], False),
        ([(b"host", b"[::1")], False),
        ([(b"host", b"localhost"), (b"origin", b"null")], False),
        ([(b"host", b"localhost"), (b"origin", b"http://[::1]:9")], True),
    ],
)
async def test_the_gate_looks_at_host_and_origin(
    headers: list[tuple[bytes, bytes]],
    is_let_in: bool,  # noqa: FBT001 - a case
) -> None:
    passed: list[str] = []
    answered: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        del receive, send
        passed.append(scope["type"])

    async def send(message: Any) -> None:
        answered.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    for kind in ("http", "websocket"):
        scope = {"type": kind, "headers": headers, "method": "GET", "path": "/"}
        await Gate(cast("Any", inner), Guard(Binding("127.0.0.1")))(scope, receive, send)
    assert passed == (["http", "websocket"] if is_let_in else [])
    assert len(answered) == (0 if is_let_in else 3)


async def test_a_socket_that_takes_nothing_does_not_hold_its_end_up() -> None:
    async def never(_: Any) -> None:
        await anyio.sleep_forever()

    link = WebSocketLink(cast("Any", None), never)
    with anyio.fail_after(LIMIT_S):
        await link.close(1008, "slow_reader")


def test_a_connection_without_an_address_is_not_local() -> None:
    guard = Guard(Binding("127.0.0.1"))
    assert not guard.origin_of({"client": None}).is_local
    assert guard.origin_of({"client": ("127.0.0.1", 5)}).is_local


async def test_a_link_tells_its_end_from_its_texts() -> None:
    sent: list[Any] = []
    events = [
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.receive", "bytes": b"x"},
        {"type": "websocket.disconnect", "code": 1000},
    ]

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        if message.get("text") == "late":
            raise OSError
        sent.append(message)

    link = WebSocketLink(receive, send)
    assert await link.receive() == "hello"
    for _ in range(2):
        with pytest.raises(LinkClosed):
            await link.receive()
    await link.send("text")
    with pytest.raises(LinkClosed):
        await link.send("late")
    assert [one["type"] for one in sent] == ["websocket.close", "websocket.send"]
    assert sent[0]["code"] == 1003


class Visitors:
    """Those who come to a door, of which each that is served stays."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.served: list[str] = []
        self.closed: list[int] = []
        told = settings(folder, **limits)
        self._door = WebSocketDoor(self._serve, proxied().origin_of, told)

    async def _serve(self, link: Any, origin: Any) -> None:
        del link
        self.served.append(origin.address)
        await anyio.sleep_forever()

    async def come(self, *headers: tuple[str, str]) -> None:
        """Come through a proxy that tells this, and take no goodbye."""

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            if message["type"] == "websocket.close":
                self.closed.append(message["code"])
                await anyio.sleep_forever()

        await self._door(scope("127.0.0.1", *headers, server="127.0.0.1"), receive, send)


async def test_who_is_turned_away_takes_nobody_s_place(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path, connections=2, connections_per_address=1)
    async with anyio.create_task_group() as tasks:
        for address in (STRANGER, STRANGER, "198.51.100.10", "198.51.100.11"):
            tasks.start_soon(visitors.come, ("x-forwarded-for", address))
            await anyio.wait_all_tasks_blocked()
        assert visitors.served == [STRANGER, "198.51.100.10"]
        assert visitors.closed == [1013, 1013]
        tasks.cancel_scope.cancel()


async def test_those_of_whom_a_proxy_says_two_things_share_one_limit(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path, connections_per_address=1)
    async with anyio.create_task_group() as tasks:
        for address in (STRANGER, "198.51.100.10"):
            told = (("x-forwarded-for", address), ("forwarded", "for=10.1.2.3"))
            tasks.start_soon(visitors.come, *told)
            await anyio.wait_all_tasks_blocked()
        assert (visitors.served, visitors.closed) == (["127.0.0.1"], [1013])
        tasks.cancel_scope.cancel()
