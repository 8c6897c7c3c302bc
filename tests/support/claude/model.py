"""A model on 127.0.0.1 that plays a script, and keeps every request that a client sent to it.

A real HTTP server in threads of its own, so that a test may block. What has arrived at the model is
read from here and from nowhere else: ``arrivals`` says in which requests a text came up newly.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import anyio.to_thread

from tests.support.claude.asked import Asked, Place
from tests.support.claude.script import Answer, Call, Rule, choose

LIMIT_S: Final = 60
_MESSAGES: Final = "/v1/messages"


@dataclass(frozen=True)
class Arrival:
    """One request in which a text came up anew.

    Args:
        asked: The request.
        places: Where it stands, once for each time. The client puts some texts there twice itself,
            say what a Stop hook said.
    """

    asked: Asked
    places: tuple[Place, ...]

    @property
    def place(self) -> Place:
        """Give the one place where it stands."""
        (one,) = self.places
        return one


class Model:
    """The scripted model of one client or of several.

    Args:
        rules: The first that applies decides; a test may append to them while it runs.
    """

    def __init__(self, *rules: Rule) -> None:
        self.rules = list(rules)
        self.all: list[Asked] = []
        self.faults: list[BaseException] = []
        self._changed = threading.Condition()
        self._closed = False
        self._ids = itertools.count(1)
        self._server = _Server(self)

    @property
    def url(self) -> str:
        """What a client takes for the base of the API."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def turns(self) -> list[Asked]:
        """The requests that belong to a conversation, oldest first; side queries do not."""
        return [asked for asked in list(self.all) if asked.is_turn]

    def arrivals(self, text: str) -> list[Arrival]:
        """Say in which requests a text stands more often than in the one before of that talk."""
        found: list[Arrival] = []
        had: dict[str, int] = {}
        for asked in self.turns:
            places = asked.places_of(text)
            if fresh := places[had.get(asked.conversation, 0) :]:
                found.append(Arrival(asked, tuple(fresh)))
            had[asked.conversation] = len(places)
        return found

    def arrival(self, text: str) -> Arrival:
        """Give the one request in which a text came up anew; that there is one only is checked."""
        (one,) = self.arrivals(text)
        return one

    async def arrived(self, text: str) -> Arrival:
        """Wait until a text is before the model; it has come exactly once so far."""
        await self.wait(lambda: bool(self.arrivals(text)), f"{text!r} at the model")
        return self.arrival(text)

    async def turned(self, count: int) -> Asked:
        """Wait for so many requests of conversations; gives the last of them."""
        await self.wait(lambda: len(self.turns) >= count, f"{count} turns")
        return self.turns[count - 1]

    async def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds; it is looked at after each request."""
        waiting = lambda: self._wait(holds)  # noqa: E731 - the name says what the thread does
        if not await anyio.to_thread.run_sync(waiting, abandon_on_cancel=True):
            told = [f"{block.place}: {block.text[-500:]}" for block in self._last()]
            raise AssertionError(f"No {what} after {LIMIT_S} s; last asked: {told}")

    def answer(self, headers: dict[str, str], body: dict[str, Any]) -> Answer | None:
        """Note a request and give the script's answer; none when the model is closed."""
        with self._changed:
            asked = Asked(len(self.all), time.monotonic(), headers, body)
            self.all.append(asked)
            chosen = choose(self.rules, "\n".join(block.text for block in asked.fresh))
            if asked.is_turn and chosen:
                chosen[0].used += 1
            self._changed.notify_all()
        if not asked.is_turn or chosen is None:
            return "Good."
        rule, found = chosen
        if rule.until is not None:
            rule.until.wait()
        return None if self._closed else rule.apply(found)

    def next_number(self) -> int:
        """Give a number that no answer had."""
        return next(self._ids)

    def close(self) -> None:
        """Answer nobody any more, also not those who wait."""
        self._closed = True
        for rule in self.rules:
            if rule.until is not None:
                rule.until.set()
        self._server.shutdown()
        self._server.server_close()

    def open(self) -> None:
        """Begin to answer."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _wait(self, holds: Callable[[], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(holds, LIMIT_S)

    def _last(self) -> list[Any]:
        return self.turns[-1].fresh if self.turns else []


@contextmanager
def a_model(*rules: Rule) -> Iterator[Model]:
    """Open a model; what went wrong inside it goes wrong in the test."""
    model = Model(*rules)
    model.open()
    try:
        yield model
    finally:
        model.close()
    assert model.faults == []


class _Server(ThreadingHTTPServer):
    """Hears the clients of one model."""

    daemon_threads = True

    def __init__(self, model: Model) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed while it was answered is no fault."""


class _Handler(BaseHTTPRequestHandler):
    """Speaks the part of the Messages API that the client uses."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._send(200, b"")

    def do_GET(self) -> None:
        self._send(404, b'{"type":"error"}')

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == f"{_MESSAGES}/count_tokens":
            self._send(200, b'{"input_tokens": 1000}')
        elif path != _MESSAGES:
            self._send(404, b'{"type":"error"}')
        else:
            self._converse(json.loads(body))

    def _converse(self, body: dict[str, Any]) -> None:
        assert isinstance(self.server, _Server)
        model = self.server.model
        try:
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = model.answer(headers, body)
        except Exception as error:  # noqa: BLE001 - of the test's own rule: raised when it ends
            model.faults.append(error)
            answer = "The script failed."
        if answer is None:
            self.close_connection = True
        elif body.get("stream"):
            told = _stream(body["model"], answer, model.next_number())
            self._send(200, told, "text/event-stream")
        else:
            told = _whole(body["model"], answer, model.next_number())
            self._send(200, json.dumps(told).encode())

    def _send(self, code: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing: the requests are kept."""


def _blocks(answer: Answer, number: int) -> list[dict[str, Any]]:
    if isinstance(answer, str):
        return [{"type": "text", "text": answer}]
    calls = (answer,) if isinstance(answer, Call) else answer
    return [
        {
            "type": "tool_use",
            "id": f"toolu_{number:020}_{place:03}",
            "name": call.name,
            "input": call.arguments,
        }
        for place, call in enumerate(calls)
    ]


def _whole(name: str, answer: Answer, number: int) -> dict[str, Any]:
    """Give a whole answer."""
    return {
        "id": f"msg_{number:024}",
        "type": "message",
        "role": "assistant",
        "model": name,
        "content": _blocks(answer, number),
        "stop_reason": "end_turn" if isinstance(answer, str) else "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 1000, "output_tokens": 10},
    }


def _pieces(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    """Give one block as the events of a stream."""
    if block["type"] == "text":
        empty, piece = {"text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        told = json.dumps(block["input"])
        empty, piece = {"input": {}}, {"type": "input_json_delta", "partial_json": told}
    return [
        {"type": "content_block_start", "index": index, "content_block": {**block, **empty}},
        {"type": "content_block_delta", "index": index, "delta": piece},
        {"type": "content_block_stop", "index": index},
    ]


def _stream(name: str, answer: Answer, number: int) -> bytes:
    """Give an answer as the events of a stream."""
    whole = _whole(name, answer, number)
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    start = {**whole, "content": [], "stop_reason": None}
    events = [
        {"type": "message_start", "message": start},
        *itertools.chain(*(_pieces(*one) for one in enumerate(whole["content"]))),
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 10}},
        {"type": "message_stop"},
    ]
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )
