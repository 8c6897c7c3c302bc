"""What the front asks its client in the middle of a call, and what becomes of the answers."""

import json
from typing import Any

import anyio
import pytest

from claudemesh_mcp.asking import MAX_OPEN
from claudemesh_mcp.jsonrpc import MAX_LINE_BYTES
from tests.support.mcp_client import Client, connected
from tests.support.relaying import ASKED, OFFER, Relay

FORM = {"message": "May it?", "requestedSchema": {"type": "object"}, "x": [{"y": None}]}
CAN: dict[str, Any] = {"offer": OFFER, "capabilities": {"elicitation": {}}}
ACCEPTED = {"action": "accept", "content": {"may": True}, "_meta": {"z": 1}}


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    assert result["isError"] is True
    return result["structuredContent"]["error"]


def reply(client: Client, number: Any, **said: Any) -> None:
    client.write({"jsonrpc": "2.0", "id": number, **said})


async def test_a_tool_asks_the_client_and_gets_its_answer_as_it_is() -> None:
    async with connected(Relay(), **CAN) as client:
        call = client.post_call("ask", params=FORM)
        asked = await client.told(ASKED)
        reply(client, asked["id"], result=ACCEPTED)
        answer = await client.answer(call)
        await client.request("ping")
    assert asked["params"] == FORM
    assert answer["result"]["structuredContent"] == ACCEPTED
    assert client.heard("notifications/cancelled") == []


async def test_answers_find_their_questions_in_any_order() -> None:
    async with connected(Relay(), **CAN) as client:
        calls = [client.post_call("ask", params={"message": str(n)}) for n in range(3)]
        await client.told(ASKED, times=3)
        for asked in reversed(client.heard(ASKED)):
            reply(client, asked["id"], result={"to": asked["params"]["message"]})
        answers = [await client.answer(call) for call in calls]
    assert [one["result"]["structuredContent"] for one in answers] == [
        {"to": "0"},
        {"to": "1"},
        {"to": "2"},
    ]


@pytest.mark.parametrize(
    ("capabilities", "method", "params"),
    [
        ({}, ASKED, FORM),
        (None, ASKED, FORM),
        ({"elicitation": True}, ASKED, FORM),
        ({"elicitation": {}}, ASKED, {"mode": "url", "url": "https://a.example"}),
        ({"elicitation": {"url": {}}}, ASKED, FORM),
        ({"elicitation": {"form": {}, "url": {}}}, ASKED, {"mode": ["url"]}),
        ({"elicitation": {}, "sampling": {}}, "sampling/createMessage", {}),
        ({"elicitation": {}, "roots": {}}, "roots/list", {}),
    ],
)
async def test_a_client_is_not_asked_what_it_never_said_it_can(
    capabilities: Any, method: str, params: dict[str, Any]
) -> None:
    async with connected(Relay(), offer=OFFER, capabilities=capabilities) as client:
        error = error_of(await client.call("ask", method=method, params=params))
    assert error["code"] == "client_cannot"
    assert error["hint"]
    assert client.heard(method) == []


@pytest.mark.parametrize("mode", ["form", "url"])
async def test_a_client_is_asked_in_the_modes_that_it_named(mode: str) -> None:
    can = {"elicitation": {"form": {}, "url": {}}}
    async with connected(Relay(), offer=OFFER, capabilities=can) as client:
        client.post_call("ask", params={"mode": mode})
        asked = await client.told(ASKED)
        reply(client, asked["id"], result={"action": "decline"})
    assert asked["params"] == {"mode": mode}


async def test_an_error_of_the_client_is_a_typed_error_that_has_it() -> None:
    said = {"code": -32000, "message": "busy", "data": [1]}
    async with connected(Relay(), **CAN) as client:
        call = client.post_call("ask", params=FORM)
        reply(client, (await client.told(ASKED))["id"], error=said)
        error = error_of((await client.answer(call))["result"])
    assert error["code"] == "client_refused"
    assert error["details"] == {"error": said}


@pytest.mark.parametrize("said", [{"result": "yes"}, {"result": None}, {"error": 3}])
async def test_an_answer_that_is_no_result_is_a_typed_error(said: dict[str, Any]) -> None:
    async with connected(Relay(), **CAN) as client:
        call = client.post_call("ask", params=FORM)
        reply(client, (await client.told(ASKED))["id"], **said)
        error = error_of((await client.answer(call))["result"])
    assert error["code"] == "client_refused"


async def test_an_answer_that_is_too_long_ends_the_question_with_why() -> None:
    async with connected(Relay(), **CAN) as client:
        call = client.post_call("ask", params=FORM)
        number = (await client.told(ASKED))["id"]
        reply(client, number, result={"content": "x" * MAX_LINE_BYTES})
        error = error_of((await client.answer(call))["result"])
    assert error["code"] == "client_refused"
    assert str(MAX_LINE_BYTES) in error["details"]["error"]["message"]


async def test_a_client_that_is_silent_is_waited_for_no_longer_and_told() -> None:
    async with connected(Relay(), **CAN) as client:
        error = error_of(await client.call("ask", params=FORM, timeout_s=0))
        taken_back = await client.told("notifications/cancelled")
        late = (await client.told(ASKED))["id"]
        reply(client, late, result=ACCEPTED)
        await client.request("ping")
    assert error["code"] == "client_silent"
    assert taken_back["params"]["requestId"] == late


async def test_a_question_is_taken_back_when_its_call_is_cancelled() -> None:
    async with connected(Relay(), **CAN) as client:
        call = client.post_call("ask", params=FORM)
        number = (await client.told(ASKED))["id"]
        client.notify("notifications/cancelled", requestId=call)
        taken_back = await client.told("notifications/cancelled")
        reply(client, number, result=ACCEPTED)
        await client.request("ping")
    assert taken_back["params"]["requestId"] == number
    assert call not in [one.get("id") for one in client.messages]


async def test_a_question_does_not_outlive_the_answer_to_its_call() -> None:
    desk = Relay()
    async with connected(desk, **CAN) as client:
        await client.call("ask_behind")
        taken_back = await client.told("notifications/cancelled")
        await client.request("ping")
    (asked,) = client.heard(ASKED)
    assert desk.refusals == ["call_ended", "call_ended"]
    assert taken_back["params"]["requestId"] == asked["id"]


@pytest.mark.parametrize(
    "answer",
    [
        {"jsonrpc": "2.0", "id": "claudemesh-99", "result": {"action": "accept"}},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "what?"}},
        {"jsonrpc": "2.0", "id": [1], "result": {}},
        {"jsonrpc": "2.0", "id": True, "result": {}},
        {"jsonrpc": "2.0", "error": {}},
    ],
)
async def test_answers_to_nothing_are_passed_over_and_never_answered(answer: Any) -> None:
    async with connected(Relay(), **CAN) as client:
        call = client.post_call("ask", params=FORM)
        asked = await client.told(ASKED)
        before = len(client.messages)
        client.write(answer)
        await client.request("ping")
        assert len(client.messages) == before + 1
        reply(client, asked["id"], result=ACCEPTED)
        answered = await client.answer(call)
    assert answered["result"]["structuredContent"] == ACCEPTED


async def test_a_second_answer_changes_nothing() -> None:
    async with connected(Relay(), **CAN) as client:
        call = client.post_call("ask", params=FORM)
        number = (await client.told(ASKED))["id"]
        said = [{"jsonrpc": "2.0", "id": number, "result": {"n": n}} for n in (1, 2)]
        client.pipe.send(b"".join(json.dumps(one).encode() + b"\n" for one in said))
        answer = await client.answer(call)
    assert answer["result"]["structuredContent"] == {"n": 1}


async def test_an_answer_may_come_in_a_batch() -> None:
    async with connected(Relay(), protocolVersion="2025-03-26", **CAN) as client:
        call = client.post_call("ask", params=FORM)
        number = (await client.told(ASKED))["id"]
        client.write([{"jsonrpc": "2.0", "id": number, "result": ACCEPTED}])
        answer = await client.answer(call)
    assert answer["result"]["structuredContent"] == ACCEPTED


async def test_questions_without_end_are_refused_and_all_of_them_are_taken_back() -> None:
    desk = Relay()
    async with connected(desk, **CAN) as client:
        await client.call("ask_often", times=MAX_OPEN + 1)
        await client.told("notifications/cancelled", times=MAX_OPEN)
    asked = {one["id"] for one in client.heard(ASKED)}
    assert desk.refusals == ["too_much"]
    assert len(asked) == MAX_OPEN
    assert {one["params"]["requestId"] for one in client.heard("notifications/cancelled")} == asked


async def test_a_question_that_is_no_json_is_refused_and_not_sent() -> None:
    async with connected(Relay(), **CAN) as client:
        client.pipe.send(
            b'{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"ask",'
            b'"arguments":{"params":{"message":1e999}}}}\n'
        )
        error = error_of((await client.answer("x"))["result"])
    assert error["code"] == "unwritable"
    assert client.heard(ASKED) == []


async def test_a_client_that_goes_leaves_no_question_behind() -> None:
    desk = Relay()
    with anyio.fail_after(10):
        async with connected(desk, **CAN) as client:
            client.post_call("ask", params=FORM)
            await client.told(ASKED)
            client.stop.set()
    assert desk.closed
