"""What another MCP server says reaches the client through the front as it was said."""

import json
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from claudemesh_mcp.streams import MAX_UNWRITTEN
from tests.support.mcp_client import Client, connected
from tests.support.relaying import OFFER, Relay

ODD = {
    "content": [
        {"type": "text", "text": "hi\x1b[2J</message>\u202e\ud800", "annotations": {"x": None}},
        {"type": "hologram", "data": ["\u0000", 1e-300, 12345678901234567890123]},
    ],
    "structuredContent": ["no", "object"],
    "isError": False,
    "_meta": {"io.modelcontextprotocol/x": 1, "a": {}},
    "resultType": "input_required",
}
PROGRESS = {"progressToken": 77, "progress": 1.5, "total": None, "note": {"deep": [1]}}


def log(level: Any) -> dict[str, Any]:
    return {"level": level, "logger": "theirs", "data": ["any", {"thing": 1}], "more": True}


async def settle() -> None:
    """Let everything happen that nothing but the loop's turns keeps from happening."""
    for _ in range(40):
        await checkpoint()


async def report(client: Client, logs: list[dict[str, Any]], meta: Any = None) -> None:
    await client.answer(client.post_call("report", meta, progress=PROGRESS, logs=logs))


@pytest.mark.parametrize("result", [ODD, {}, {"content": [], "isError": True}])
async def test_a_raw_result_reaches_the_client_as_it_is(result: dict[str, Any]) -> None:
    async with connected(Relay(), offer=OFFER) as client:
        assert await client.call("raw", result=result) == result


async def test_a_raw_result_of_5_megabytes_passes() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        result = await client.call("fetch", what="5 MB")
        pong = await client.request("ping")
    assert result["thing"] == "x" * 4_999_999 + "é"
    assert pong["result"] == {}


async def test_a_client_that_does_not_read_large_results_is_not_read_from_either() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        client.pipe.open = anyio.Event()
        calls = [client.post_call("fetch", what="5 MB") for _ in range(5)]
        for _ in range(3):
            await settle()
            client.post("ping")
        unread = len(client.pipe.sent) - client.pipe.taken
        client.pipe.open.set()
        answers = [await client.answer(call) for call in calls]
        await client.request("ping")
    assert unread > 0
    assert client.pipe.taken == len(client.pipe.sent)
    assert len({len(one["result"]["thing"]) for one in answers}) == 1


async def test_a_raw_result_may_be_nested_deeper_than_what_a_client_may_send() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        result = await client.call("fetch", what="depth")
    assert json.dumps(result["thing"]) == "[" * 500 + '"bottom"' + "]" * 500


async def test_a_raw_result_that_is_no_json_is_a_typed_error_and_no_silence() -> None:
    async with connected(Relay(), offer=OFFER, protocolVersion="2025-03-26") as client:
        refused = await client.call("fetch", what="infinity")
        params = {"name": "fetch", "arguments": {"what": "infinity"}}
        client.write(
            [
                {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": params},
                {"jsonrpc": "2.0", "id": "b", "method": "ping"},
            ]
        )
        with anyio.fail_after(10):
            while not isinstance(client.messages[-1], list):
                await client.pipe.news.wait()
    batch = {one["id"]: one["result"] for one in client.messages[-1]}
    assert refused["isError"] is True
    assert refused["structuredContent"]["error"]["code"] == "unwritable"
    assert batch["a"] == refused
    assert batch["b"] == {}


async def test_rows_of_a_raw_result_that_is_no_error_are_proved_as_any() -> None:
    desk = Relay()
    async with connected(desk, offer=OFFER) as client:
        await client.call("raw", result={"content": [], "isError": False}, row="r1")
        await client.call("raw", result={"content": [], "isError": True}, row="r2")
        await client.request("ping")
    assert desk.events == ["evidence r1", "withdrawn r2"]


async def test_progress_is_passed_on_under_the_client_s_own_token() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        await report(client, [], {"progressToken": "mine"})
        await report(client, [])
    told = [one["params"] for one in client.heard("notifications/progress")]
    assert told == [{**PROGRESS, "progressToken": "mine"}]


async def test_log_messages_are_passed_on_from_the_level_that_the_client_set() -> None:
    levels = ["debug", "info", "error", "emergency", "loud", None, ["error"]]
    async with connected(Relay(), offer=OFFER) as client:
        await report(client, [log(level) for level in levels])
        await client.request("logging/setLevel", {"level": "info"})
        await report(client, [log("info"), log("debug")])
    told = [one["params"] for one in client.heard("notifications/message")]
    assert told == [log("error"), log("emergency"), log("info")]


async def test_a_notification_that_is_no_json_costs_nothing_but_itself() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        # By the way of Python: as JSON no client could send it.
        client.pipe.send(
            b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"report",'
            b'"arguments":{"progress":{},"logs":[{"level":"error","data":1e999}]}}}\n'
        )
        answer = await client.answer("x")
    assert answer["result"] == {"content": []}


async def test_a_client_that_does_not_read_is_not_buried_in_what_a_call_tells() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        client.pipe.open = anyio.Event()
        asked = client.post_call("report", progress={}, logs=[log("error")] * 10 * MAX_UNWRITTEN)
        with anyio.fail_after(10):
            while not client.pipe.waiting:
                await client.pipe.news.wait()
        client.pipe.open.set()
        await client.answer(asked)
    heard = len(client.heard("notifications/message"))
    assert MAX_UNWRITTEN <= heard <= MAX_UNWRITTEN + 2


async def test_a_tool_sees_the_meta_of_its_request_without_the_keys_of_the_protocol() -> None:
    meta = {
        "claudemesh/hops": 2,
        "anyone": {"else": True},
        "example.com/mcp": 1,
        "progressToken": "p",
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "modelcontextprotocol.io/x": 1,
        "tools.mcp.com/x": 1,
    }
    async with connected(Relay(), offer=OFFER) as client:
        with_meta = await client.answer(client.post_call("meta", meta))
        without = await client.call("meta")
    seen = with_meta["result"]["structuredContent"]
    seen.pop("waiting")
    assert seen == {"claudemesh/hops": 2, "anyone": {"else": True}, "example.com/mcp": 1}
    assert without["structuredContent"] == {"waiting": {"now": 1}}
