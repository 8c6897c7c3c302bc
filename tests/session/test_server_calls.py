"""Calls of the MCP front: side by side, cancelled, proved, and cut off by an end."""

import json
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from claudemesh_mcp import server
from claudemesh_mcp.opencalls import MAX_AT_ONCE
from claudemesh_mcp.streams import MAX_UNWRITTEN
from tests.support.mcp_client import HELLO, LIMIT_S, Desk, connected


def code_of(response: dict[str, Any]) -> tuple[int, str]:
    return response["error"]["code"], response["error"]["data"]["error"]["code"]


async def settle() -> None:
    """Let everything happen that nothing but the loop's turns keeps from happening."""
    for _ in range(20):
        await checkpoint()


async def test_calls_run_side_by_side_and_are_answered_as_they_end() -> None:
    desk = Desk()
    async with connected(desk) as client:
        slow = client.post_call("wait")
        quick = await client.call("echo")
        desk.go.set()
        await client.answer(slow)
    assert quick["structuredContent"] == {"client": "tester"}


async def test_too_many_calls_at_once_are_refused_for_the_moment() -> None:
    desk = Desk()
    async with connected(desk) as client:
        open_calls = [client.post_call("wait") for _ in range(MAX_AT_ONCE)]
        refused = await client.call("echo")
        desk.go.set()
        for number in open_calls:
            await client.answer(number)
        taken = await client.call("echo")
    assert refused["structuredContent"]["error"]["code"] == "too_much"
    assert refused["structuredContent"]["error"]["retry_after_s"] > 0
    assert "isError" not in taken


async def test_an_id_that_is_still_open_is_refused() -> None:
    desk = Desk()
    async with connected(desk) as client:
        number = client.post_call("wait")
        params = {"name": "echo", "arguments": {}}
        client.write({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        refused = await client.answer(number)
        desk.go.set()
    assert code_of(refused) == (-32600, "id_in_use")


async def test_a_cancelled_call_is_stopped_never_answered_and_gives_its_rows_back() -> None:
    desk = Desk()
    async with connected(desk) as client:
        number = client.post_call("wait", row="r1")
        with anyio.fail_after(LIMIT_S):
            await desk.waiting.wait()
        client.notify("notifications/cancelled", requestId=number, reason="changed my mind")
        await client.request("ping")
        await client.request("ping")
    assert desk.events == ["cancelled", "withdrawn r1"]
    assert number not in [message.get("id") for message in client.messages]


async def test_a_call_cancelled_before_it_began_is_not_answered_either() -> None:
    desk = Desk()
    async with connected(desk) as client:
        call = {"jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": {"name": "wait"}}
        stop = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c"}}
        client.pipe.send(b"%b\n%b\n" % (json.dumps(call).encode(), json.dumps(stop).encode()))
        await client.request("ping")
    assert "c" not in [message.get("id") for message in client.messages]
    assert desk.events == []


@pytest.mark.parametrize("request_id", [99, "x", None, [1], {}])
async def test_cancelling_what_is_not_open_changes_nothing(request_id: object) -> None:
    async with connected(Desk()) as client:
        client.notify("notifications/cancelled", requestId=request_id)
        pong = await client.request("ping")
    assert pong["result"] == {}


async def test_a_request_after_a_result_proves_that_it_arrived() -> None:
    desk = Desk()
    async with connected(desk) as client:
        await client.call("take", row="r1")
        before = list(desk.events)
        await client.call("take", row="r2")
    assert before == []
    assert desk.events == ["evidence r1"]


async def test_a_notification_proves_nothing() -> None:
    desk = Desk()
    async with connected(desk) as client:
        await client.call("take", row="r1")
        client.notify("notifications/roots/list_changed")
        await settle()
    assert desk.events == []


async def test_a_request_that_was_sent_before_the_result_was_written_proves_nothing() -> None:
    desk = Desk()
    async with connected(desk) as client:
        client.pipe.open = anyio.Event()
        take = client.post_call("take", row="r1")
        await settle()
        # On its way while the result is: it says nothing of a result that nobody had yet.
        ping = client.post("ping")
        client.pipe.open.set()
        await client.answer(take)
        await client.answer(ping)
        early = list(desk.events)
        await client.request("ping")
    assert early == []
    assert desk.events == ["evidence r1"]


async def test_rows_of_a_refusal_are_given_back() -> None:
    desk = Desk()
    async with connected(desk) as client:
        await client.call("refuse", row="r1")
        await client.request("ping")
    assert desk.events == ["withdrawn r1"]


async def test_a_cancellation_that_crosses_the_answer_gives_the_rows_back() -> None:
    desk = Desk()
    async with connected(desk) as client:
        number = client.post_call("take", row="r1")
        await client.answer(number)
        client.notify("notifications/cancelled", requestId=number)
        await client.request("ping")
    assert desk.events == ["withdrawn r1"]


async def test_a_session_that_fails_to_note_evidence_does_not_stop_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Forgetful(Desk):
        def evidence(self, tokens: object) -> None:
            raise ZeroDivisionError(tokens)

    async with connected(Forgetful()) as client:
        await client.call("take", row="r1")
        after = await client.call("echo")
    assert "isError" not in after
    assert len(caplog.records) == 1


async def test_the_end_of_the_input_closes_the_session_after_what_was_asked() -> None:
    desk = Desk()
    async with connected(desk) as client:
        number = client.post_call("echo", text="last words")
        client.pipe.end()
        answer = await client.answer(number)
    assert answer["result"]["structuredContent"]["text"] == "last words"
    assert desk.closed


async def test_a_call_that_does_not_end_with_the_input_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "FINISH_S", 0.01)
    desk = Desk()
    with anyio.fail_after(LIMIT_S):
        async with connected(desk) as client:
            number = client.post_call("wait", row="r1")
    assert desk.events == ["cancelled", "withdrawn r1"]
    assert desk.closed
    assert client.messages[-1]["id"] == number
    assert client.messages[-1]["result"]["structuredContent"]["error"]["code"] == "interrupted"


async def test_a_client_that_reads_no_more_has_gone() -> None:
    desk = Desk()
    with anyio.fail_after(LIMIT_S):
        async with connected(desk) as client:
            client.pipe.broken = True
            client.post("ping")
            while not desk.closed:
                await checkpoint()
    assert not client.pipe.ended or desk.closed


async def test_a_client_that_does_not_read_is_not_read_from_either() -> None:
    desk = Desk()
    async with connected(desk) as client:
        client.pipe.open = anyio.Event()
        for _ in range(20 * MAX_UNWRITTEN):
            client.post("ping")
        await settle()
        unread = len(client.pipe.sent) - client.pipe.taken
        client.pipe.open.set()
        await client.request("ping")
    assert unread > len(client.pipe.sent) / 2
    assert client.pipe.taken == len(client.pipe.sent)


async def test_a_session_that_does_not_close_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lasting(Desk):
        async def start(self) -> None:
            await anyio.sleep_forever()

        async def close(self) -> None:
            await anyio.sleep_forever()

    monkeypatch.setattr(server, "CLOSE_S", 0.01)
    with anyio.fail_after(LIMIT_S):
        async with connected(Lasting()):
            pass


async def test_being_stopped_waits_for_no_call_and_closes_the_session() -> None:
    desk = Desk()
    with anyio.fail_after(LIMIT_S):
        async with connected(desk) as client:
            number = client.post_call("wait", row="r1")
            await desk.waiting.wait()
            client.stop.set()
            answer = await client.answer(number)
            while not desk.closed:
                await checkpoint()
    assert answer["result"]["structuredContent"]["error"]["code"] == "interrupted"
    assert desk.events == ["cancelled", "withdrawn r1"]


async def test_being_cancelled_stops_calls_and_closes_the_session() -> None:
    desk = Desk()
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks, connected(desk) as client:
            client.post_call("wait", row="r1")
            await desk.waiting.wait()
            tasks.cancel_scope.cancel()
    assert desk.closed
    assert desk.events == ["cancelled", "withdrawn r1"]


async def test_every_result_says_in_both_forms_what_waits() -> None:
    desk = Desk()
    desk.foot = {"waiting": {"now": 1, "hint": "call inbox"}}
    async with connected(desk) as client:
        results = [await client.call("echo"), await client.call("refuse")]
    for result in results:
        assert result["structuredContent"]["waiting"] == {"now": 1, "hint": "call inbox"}
        assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
    assert results[1]["isError"]


async def test_a_result_is_whole_when_what_waits_can_not_be_counted() -> None:
    desk = Desk()
    desk.foot = None
    async with connected(desk) as client:
        result = await client.call("take", row="r1")
        await client.request("ping")
    assert result["structuredContent"] == {"row": "r1"}
    assert desk.events == ["evidence r1"]


async def test_a_session_can_notify_from_the_client_s_word_on_and_not_before() -> None:
    desk = Desk()
    async with connected(desk, greeted=False) as client:
        client.notify("notifications/initialized")
        await client.request("initialize", HELLO)
        await client.request("ping")
        assert desk.notify is None
        client.notify("notifications/initialized")
        await client.request("ping")
        assert desk.notify is not None
        desk.notify("notifications/claude/channel", {"content": "one", "meta": {}})
        await client.request("ping")
    heard = [one["params"] for one in client.messages if one.get("method", "").endswith("channel")]
    assert heard == [{"content": "one", "meta": {}}]
