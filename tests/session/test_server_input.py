"""What a client may send to the MCP front: batches, garbage, and everything between."""

import json
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from claudemesh_mcp.jsonrpc import MAX_LINE_BYTES, Lines
from claudemesh_mcp.offer import PROTOCOL_VERSIONS
from tests.support.mcp_client import LIMIT_S, NAMES, Client, Desk, connected


def code_of(response: dict[str, Any]) -> tuple[int, str]:
    return response["error"]["code"], response["error"]["data"]["error"]["code"]


async def settle() -> None:
    """Let everything happen that nothing but the loop's turns keeps from happening."""
    for _ in range(20):
        await checkpoint()


async def test_a_batch_is_answered_by_one_of_the_version_that_has_them() -> None:
    async with connected(Desk(), protocolVersion="2025-03-26") as client:
        ping = {"jsonrpc": "2.0", "id": "a", "method": "ping"}
        params = {"name": "echo", "arguments": {}}
        call = {"jsonrpc": "2.0", "id": "b", "method": "tools/call", "params": params}
        told = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
        client.write([ping, told, call, 7])
        await client.request("ping")
        await settle()
    batches = [message for message in client.messages if isinstance(message, list)]
    assert len(batches) == 1
    assert {message["id"] for message in batches[0]} == {"a", "b", None}


async def test_a_batch_goes_out_without_the_call_that_was_cancelled() -> None:
    desk = Desk()
    async with connected(desk, protocolVersion="2025-03-26") as client:
        ping = {"jsonrpc": "2.0", "id": "a", "method": "ping"}
        call = {"jsonrpc": "2.0", "id": "b", "method": "tools/call", "params": {"name": "wait"}}
        client.write([ping, call])
        with anyio.fail_after(LIMIT_S):
            await desk.waiting.wait()
        client.notify("notifications/cancelled", requestId="b")
        await client.request("ping")
        await settle()
    batches = [message for message in client.messages if isinstance(message, list)]
    assert [[message["id"] for message in batch] for batch in batches] == [["a"]]


async def test_a_batch_of_nothing_but_notifications_is_not_answered() -> None:
    async with connected(Desk(), protocolVersion="2025-03-26") as client:
        client.write([{"jsonrpc": "2.0", "method": "notifications/initialized"}])
        before = len(client.messages)
        await client.request("ping")
    assert len(client.messages) == before + 1


@pytest.mark.parametrize(
    ("version", "batch"),
    [("2025-03-26", []), ("2025-11-25", [{"jsonrpc": "2.0", "id": 1, "method": "ping"}])],
)
async def test_other_batches_are_refused(version: str, batch: list[Any]) -> None:
    async with connected(Desk(), protocolVersion=version) as client:
        client.write(batch)
        refused = await client.answer(None)
    assert code_of(refused) == (-32600, "invalid_request")


def padded(before: str, after: str) -> bytes:
    return f"{before}{'x' * (MAX_LINE_BYTES + 1)}{after}".encode()


BAD_LINES = [
    pytest.param(b"garbage", -32700, "parse_error", None, id="garbage"),
    pytest.param(b'{"jsonrpc":"2.0",', -32700, "parse_error", None, id="half an object"),
    pytest.param(
        b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', -32700, "parse_error", None, id="not UTF-8"
    ),
    pytest.param(b"\xef\xbb\xbf{}", -32700, "parse_error", None, id="a byte order mark"),
    pytest.param(b"[" * 100_000, -32700, "parse_error", None, id="a bomb of brackets"),
    pytest.param(b'{"a":' * 70 + b"1" + b"}" * 70, -32700, "parse_error", None, id="nested"),
    pytest.param(b'{"id":' + b"9" * 5000 + b"}", -32700, "parse_error", None, id="a huge number"),
    pytest.param(
        b'{"jsonrpc":"2.0","id":1,"params":{"a":NaN}}', -32700, "parse_error", None, id="NaN"
    ),
    pytest.param(b'"hello"', -32600, "invalid_request", None, id="a text"),
    pytest.param(b"null", -32600, "invalid_request", None, id="null"),
    pytest.param(b"{}", -32600, "invalid_request", None, id="an empty object"),
    pytest.param(b'{"id":5,"method":"ping"}', -32600, "invalid_request", 5, id="no version"),
    pytest.param(
        b'{"jsonrpc":"2.0","id":6,"method":7}', -32600, "invalid_request", 6, id="no method"
    ),
    pytest.param(
        b'{"jsonrpc":"2.0","id":null,"method":"ping"}',
        -32600,
        "invalid_request",
        None,
        id="id null",
    ),
    pytest.param(
        b'{"jsonrpc":"2.0","id":true,"method":"ping"}',
        -32600,
        "invalid_request",
        None,
        id="id true",
    ),
    pytest.param(
        b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
        -32600,
        "invalid_request",
        None,
        id="id object",
    ),
    pytest.param(
        b'{"jsonrpc":"2.0","id":8,"method":"ping","params":[1]}',
        -32602,
        "invalid",
        8,
        id="positions",
    ),
    pytest.param(padded("", ""), -32600, "too_much", None, id="a line without end"),
    pytest.param(
        padded('{"jsonrpc":"2.0","id":21,"method":"ping","params":{"a":"', '"}}'),
        *(-32600, "too_much", 21),
        id="a huge request with its id first",
    ),
    pytest.param(
        padded('{"method":"ping","params":{"a":"', '"},"jsonrpc":"2.0","id":"z"}'),
        *(-32600, "too_much", "z"),
        id="a huge request with its id last",
    ),
    pytest.param(
        padded('{"jsonrpc":"2.0","method":"told","params":{"a":"', '","id":4}}'),
        *(-32600, "too_much", None),
        id="a huge notification with an id inside",
    ),
]


@pytest.mark.parametrize(("line", "number", "code", "request_id"), BAD_LINES)
async def test_a_bad_line_is_refused_by_type_and_the_next_one_read(
    line: bytes, number: int, code: str, request_id: int | str | None
) -> None:
    async with connected(Desk()) as client:
        client.pipe.send(line + b"\r\n")
        refused = await client.answer(request_id)
        after = await client.request("ping", {})
    assert code_of(refused) == (number, code)
    assert after["result"] == {}


@pytest.mark.parametrize("line", [b"", b"   \r", b'{"jsonrpc":"2.0","id":1,"result":{}}'])
async def test_empty_lines_and_stray_answers_are_passed_over(line: bytes) -> None:
    async with connected(Desk()) as client:
        client.pipe.send(line + b"\n")
        before = len(client.messages)
        await client.request("ping")
    assert len(client.messages) == before + 1


async def test_a_last_line_without_its_end_is_read() -> None:
    async with connected(Desk()) as client:
        client.pipe.send(b'{"jsonrpc":"2.0","id":"last","method":"ping"}')
        client.pipe.end()
        last = await client.answer("last")
    assert last["result"] == {}


def test_no_more_is_held_of_a_line_than_it_may_have() -> None:
    lines = Lines()
    for _ in range(40):
        assert lines.feed(b"y" * 1_000_000) == []
        assert len(lines._rest) <= MAX_LINE_BYTES
    (line,) = lines.feed(b"end\nnext")
    assert (len(line.data) + len(line.tail or b"")) < 2048
    assert [(one.start, one.data, one.tail) for one in lines.feed(b"\n")] == [
        (40_000_004, b"next", None)
    ]


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_lines_are_the_same_however_they_were_cut_into_chunks(
    parts: list[bytes], data: st.DataObject
) -> None:
    stream = b"\n".join(parts)
    cut = data.draw(st.lists(st.integers(0, len(stream)), max_size=5).map(sorted))
    lines = Lines()
    got = [
        line
        for start, end in zip([0, *cut], [*cut, len(stream)], strict=True)
        for line in lines.feed(stream[start:end])
    ]
    got += lines.end()
    assert b"\n".join(line.data for line in got) == stream.removesuffix(b"\n")
    assert all(stream[line.start :].startswith(line.data) for line in got)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
METHODS = st.sampled_from(
    [
        "initialize",
        "ping",
        "tools/list",
        "tools/call",
        "logging/setLevel",
        "notifications/cancelled",
    ]
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "id": st.integers() | st.text(max_size=3) | JSON,
        "method": METHODS | JSON,
        "params": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(NAMES) | JSON,
                "arguments": JSON,
                "_meta": JSON,
                "level": JSON,
                "cursor": JSON,
                "requestId": JSON,
                "protocolVersion": st.sampled_from(PROTOCOL_VERSIONS) | JSON,
                "clientInfo": JSON,
            },
        )
        | JSON,
    },
)
GARBAGE = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode()),
    MESSAGES.map(lambda value: json.dumps(value).encode()),
    st.lists(MESSAGES, max_size=3).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(GARBAGE, max_size=12))
def test_whatever_comes_in_only_protocol_goes_out_and_the_front_lives(lines: list[bytes]) -> None:
    async def feed() -> Client:
        desk = Desk()
        desk.go.set()
        async with connected(desk, greeted=False) as client:
            client.pipe.send(b"\n".join([*lines, b""]))
            client.write({"jsonrpc": "2.0", "id": "still there", "method": "ping"})
            await client.answer("still there")
        return client

    for message in anyio.run(feed).messages:
        for one in message if isinstance(message, list) else [message]:
            assert one["jsonrpc"] == "2.0"
            assert ("method" in one) + ("result" in one) + ("error" in one) == 1
