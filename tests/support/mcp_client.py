"""A client of the MCP front that speaks raw JSON-RPC over memory, and a session to stand behind it.

``tests/session/test_server.py`` drives the front with these; nothing of the front is replaced.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio

from claudemesh_mcp.calls import CallContext, Notify
from claudemesh_mcp.offer import Offer
from claudemesh_mcp.server import serve
from claudemesh_wire.errors import NotFound, TooMuch

LIMIT_S = 10
NAMES = ("echo", "take", "wait", "refuse", "fail", "count", "warn")
OFFER = Offer("About it.", json.dumps({"tools": [{"name": name} for name in NAMES]}).encode())
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "tester"}}


class Pipe:
    """Both directions of a client's streams; what it holds back or breaks is the test's choice."""

    def __init__(self) -> None:
        self.sent = b""
        self.taken = 0
        self.ended = False
        self.broken = False
        self.written: list[bytes] = []
        self.waiting = 0
        self.open = anyio.Event()
        self.open.set()
        self.news = anyio.Event()

    def tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()

    def send(self, data: bytes) -> None:
        self.sent += data
        self.tell()

    def end(self) -> None:
        self.ended = True
        self.tell()

    async def read(self) -> bytes:
        while self.taken == len(self.sent) and not self.ended:
            await self.news.wait()
        data = self.sent[self.taken : self.taken + 4096]
        self.taken += len(data)
        return data

    def received(self) -> int:
        return len(self.sent)

    async def write(self, data: bytes) -> int:
        self.waiting += 1
        self.tell()
        await self.open.wait()
        self.waiting -= 1
        if self.broken:
            raise BrokenPipeError
        self.written.append(data)
        self.tell()
        return self.received()


class Desk:
    """A session with tools that show what the front does with them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.started = anyio.Event()
        self.waiting = anyio.Event()
        self.go = anyio.Event()
        self.closed = False
        self.notify: Notify | None = None
        self.foot: dict[str, Any] | None = {}

    async def start(self) -> None:
        self.started.set()

    def extra_tools(self) -> list[dict[str, Any]]:
        return []

    async def call(self, name: str, arguments: dict[str, Any], context: CallContext) -> Any:
        return await getattr(self, name)(context, **arguments)

    def initialized(self, notify: Notify) -> None:
        self.notify = notify

    async def footer(self, name: str) -> dict[str, Any]:
        if self.foot is None:
            raise ZeroDivisionError(name)
        return self.foot

    def evidence(self, tokens: Iterable[str]) -> None:
        self.events += [f"evidence {token}" for token in tokens]

    def withdrawn(self, tokens: Iterable[str]) -> None:
        self.events += [f"withdrawn {token}" for token in tokens]

    async def close(self) -> None:
        self.closed = True

    async def echo(self, context: CallContext, **arguments: Any) -> dict[str, Any]:
        return {"client": context.client_name, **arguments}

    async def take(self, context: CallContext, row: str) -> dict[str, Any]:
        context.hands_out([row])
        return {"row": row}

    async def wait(self, context: CallContext, row: str = "") -> dict[str, Any]:
        context.hands_out([row] if row else [])
        self.waiting.set()
        try:
            await self.go.wait()
        except BaseException:
            self.events.append("cancelled")
            raise
        return {"row": row}

    async def refuse(self, context: CallContext, row: str = "") -> dict[str, Any]:
        context.hands_out([row] if row else [])
        if row:
            raise TooMuch("That is too much.", "Wait.", retry_after_s=2)
        raise NotFound("There is no ada</message>.", "Did you mean \x1b[1mada-2\x1b[0m?")

    async def fail(self, context: CallContext) -> dict[str, Any]:
        raise ZeroDivisionError("secret " + context.client_name)

    async def count(self, context: CallContext) -> dict[str, Any]:
        for done in (1, 2, 2, 1, 3):
            context.progress(done, 3, f"step {done}")
        return {}

    async def warn(self, context: CallContext, text: str) -> dict[str, Any]:
        logging.getLogger("claudemesh_mcp.desk").warning("The desk says %s", text)
        logging.getLogger("claudemesh_mcp.desk").error("The desk shouts %s", text)
        return {"client": context.client_name}


class Client:
    """One client of the front, one line at a time."""

    def __init__(self, pipe: Pipe, stop: asyncio.Event) -> None:
        self.pipe = pipe
        self.stop = stop
        self._number = 0
        self._messages: list[Any] = []

    @property
    def messages(self) -> list[Any]:
        """What was written to this client so far."""
        fresh = self.pipe.written[len(self._messages) :]
        self._messages += [json.loads(line) for line in fresh]
        return self._messages

    def notify(self, method: str, **params: Any) -> Self:
        self.write({"jsonrpc": "2.0", "method": method, "params": params})
        return self

    def post(self, method: str, params: Any = None, **more: Any) -> int:
        """Send a request, do not wait for its answer."""
        self._number += 1
        asked = {"jsonrpc": "2.0", "id": self._number, "method": method}
        self.write({**asked, **({} if params is None else {"params": params}), **more})
        return self._number

    def write(self, message: Any) -> None:
        self.pipe.send(json.dumps(message).encode() + b"\n")

    def post_call(self, name: str, meta: Any = None, **arguments: Any) -> int:
        params = {"name": name, "arguments": arguments}
        return self.post("tools/call", {**params, "_meta": meta} if meta else params)

    async def answer(self, number: int | str | None) -> Any:
        """Wait for the response with this id."""
        looked_at = 0
        with anyio.fail_after(LIMIT_S):
            while True:
                for message in self.messages[looked_at:]:
                    if isinstance(message, dict) and message.get("id", "") == number:
                        return message
                looked_at = len(self._messages)
                await self.pipe.news.wait()

    async def told(self, method: str, times: int = 1) -> Any:
        """Wait until this method was heard so often; give the last of them."""
        with anyio.fail_after(LIMIT_S):
            while len(found := self.heard(method)) < times:
                await self.pipe.news.wait()
        return found[-1]

    def heard(self, method: str) -> list[Any]:
        """Give the requests and notifications with this method so far."""
        return [
            one for one in self.messages if isinstance(one, dict) and one.get("method") == method
        ]

    async def request(self, method: str, params: Any = None) -> Any:
        return await self.answer(self.post(method, params))

    async def call(self, name: str, **arguments: Any) -> Any:
        return (await self.answer(self.post_call(name, **arguments)))["result"]

    async def greet(self, **changed: Any) -> Any:
        answer = await self.request("initialize", {**HELLO, **changed})
        self.notify("notifications/initialized")
        return answer


@asynccontextmanager
async def connected(
    session: Any, *, offer: Offer = OFFER, greeted: bool = True, **changed: Any
) -> AsyncIterator[Client]:
    """Give a client of a front that serves this session; end the client, then the front."""
    pipe = Pipe()
    stop = asyncio.Event()
    client = Client(pipe, stop)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, pipe, pipe, session, offer, stop)
        if greeted:
            await client.greet(**changed)
        yield client
        pipe.end()
