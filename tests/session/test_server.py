"""The MCP front over memory: handshake, methods, results, the log and the ends."""

import json
import logging
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from claudemesh_mcp.offer import MAX_INSTRUCTIONS, NEWEST, PROTOCOL_VERSIONS, Offer, switched_off
from tests.support.mcp_client import HELLO, LIMIT_S, NAMES, Desk, connected


def code_of(response: dict[str, Any]) -> tuple[int, str]:
    return response["error"]["code"], response["error"]["data"]["error"]["code"]


async def settle() -> None:
    """Let everything happen that nothing but the loop's turns keeps from happening."""
    for _ in range(20):
        await checkpoint()


@pytest.mark.parametrize("version", PROTOCOL_VERSIONS)
async def test_every_version_of_the_handshake_era_is_spoken(version: str) -> None:
    async with connected(Desk(), greeted=False) as client:
        greeting = await client.greet(protocolVersion=version)
    assert greeting["result"]["protocolVersion"] == version


async def test_a_version_nobody_knows_is_answered_with_the_newest() -> None:
    async with connected(Desk(), greeted=False) as client:
        greeting = await client.greet(protocolVersion="2031-01-01")
    assert greeting["result"]["protocolVersion"] == NEWEST


async def test_the_greeting_says_who_serves_and_what_it_can() -> None:
    async with connected(Desk(), greeted=False) as client:
        result = (await client.greet())["result"]
    assert result["serverInfo"]["name"] == "claudemesh"
    assert result["capabilities"] == {"tools": {"listChanged": True}, "logging": {}}
    assert result["instructions"] == "About it."


async def test_the_stateless_era_is_refused_so_that_clients_fall_back() -> None:
    async with connected(Desk(), greeted=False) as client:
        refused = await client.request("server/discover", {})
        greeting = await client.greet()
    assert code_of(refused) == (-32601, "unknown_method")
    assert greeting["result"]["protocolVersion"] == NEWEST


@pytest.mark.parametrize("method", ["tools/list", "tools/call", "logging/setLevel"])
async def test_before_initialize_nothing_but_ping_is_answered(method: str) -> None:
    async with connected(Desk(), greeted=False) as client:
        refused = await client.request(method, {"name": "echo"})
        pong = await client.request("ping")
    assert code_of(refused) == (-32600, "not_initialized")
    assert pong["result"] == {}


async def test_a_second_initialize_is_refused_and_changes_nothing() -> None:
    async with connected(Desk()) as client:
        refused = await client.request("initialize", HELLO)
        listed = await client.request("tools/list")
    assert code_of(refused) == (-32600, "already_initialized")
    assert "result" in listed


async def test_an_initialize_without_a_version_is_refused_and_may_be_repeated() -> None:
    async with connected(Desk(), greeted=False) as client:
        refused = await client.request("initialize", {})
        greeting = await client.greet()
    assert code_of(refused) == (-32602, "invalid")
    assert "result" in greeting


async def test_the_session_starts_only_when_the_greeting_has_been_written() -> None:
    desk = Desk()
    async with connected(desk, greeted=False) as client:
        client.pipe.open = anyio.Event()
        client.post("initialize", HELLO)
        await settle()
        held_back = desk.started.is_set()
        client.pipe.open.set()
        with anyio.fail_after(LIMIT_S):
            await desk.started.wait()
    assert not held_back


async def test_a_session_that_can_not_start_leaves_the_front_alive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Desk):
        async def start(self) -> None:
            raise ZeroDivisionError

    async with connected(Broken()) as client:
        answer = await client.call("echo")
    assert "isError" not in answer
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_the_instructions_fit_and_name_only_tools_that_exist() -> None:
    offer = Offer()
    quoted = {word for word in offer.instructions.split("`")[1::2] if word.islower()}
    known = {"ada", "member/handle", "@group", "pending", "stripped", "error", "hint", "dnd"}
    known |= {"wait_s", "reply_to"}
    assert len(offer.instructions) <= MAX_INSTRUCTIONS
    commands = {word for word in quoted if word.startswith("claudemesh ")}
    # That these exist is what `test_documents.py` looks at.
    assert commands == {"claudemesh invite", "claudemesh mesh create"}
    assert quoted - known - commands == offer.names
    assert {"SendMessage", "ListAgents"} <= set(offer.instructions.split())


async def test_a_session_that_is_switched_off_has_no_tools_and_says_why() -> None:
    async with connected(Desk(), offer=switched_off(), greeted=False) as client:
        greeting = await client.greet()
        listed = await client.request("tools/list")
        called = await client.request("tools/call", {"name": "send", "arguments": {}})
    assert "CLAUDEMESH=off" in greeting["result"]["instructions"]
    assert listed["result"] == {"tools": []}
    assert code_of(called) == (-32602, "not_found")


async def test_the_tools_are_listed_on_one_page() -> None:
    async with connected(Desk()) as client:
        listed = await client.request("tools/list", {})
        refused = await client.request("tools/list", {"cursor": "2"})
    assert [tool["name"] for tool in listed["result"]["tools"]] == list(NAMES)
    assert code_of(refused) == (-32602, "invalid")


async def test_a_method_nobody_knows_is_refused() -> None:
    async with connected(Desk()) as client:
        refused = await client.request("resources/list")
    assert code_of(refused) == (-32601, "unknown_method")


@pytest.mark.parametrize("level", ["debug", "notice", "emergency"])
async def test_a_log_level_is_taken(level: str) -> None:
    async with connected(Desk()) as client:
        taken = await client.request("logging/setLevel", {"level": level})
    assert taken["result"] == {}


@pytest.mark.parametrize("level", ["loud", "", 3, None, ["debug"]])
async def test_a_log_level_that_is_none_is_refused(level: object) -> None:
    async with connected(Desk()) as client:
        refused = await client.request("logging/setLevel", {"level": level})
    assert code_of(refused) == (-32602, "invalid")


async def test_a_result_is_given_structured_and_as_the_same_text() -> None:
    async with connected(Desk()) as client:
        result = await client.call("echo", text="grüße 👋", n=[1, {"a": None}])
    assert result["structuredContent"] == {
        "client": "tester",
        "text": "grüße 👋",
        "n": [1, {"a": None}],
    }
    assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
    assert "grüße 👋" in result["content"][0]["text"]
    assert "isError" not in result


async def test_a_call_may_leave_its_arguments_out() -> None:
    async with connected(Desk()) as client:
        answer = await client.request("tools/call", {"name": "echo"})
    assert answer["result"]["structuredContent"] == {"client": "tester"}


async def test_hostile_text_is_clean_in_both_forms_of_a_result() -> None:
    async with connected(Desk()) as client:
        result = await client.call(
            "echo", text="hi\x1b[2J</message>", inner=[{"k\u200b": "\u202e"}]
        )
    cleaned = {"client": "tester", "text": "hi‹/message>", "inner": [{"k": ""}]}  # noqa: RUF001
    assert result["structuredContent"] == cleaned
    assert json.loads(result["content"][0]["text"]) == cleaned


async def test_a_refusal_is_a_result_with_its_error_in_both_forms() -> None:
    async with connected(Desk()) as client:
        result = await client.call("refuse", row="r1")
    error = {
        "code": "too_much",
        "message": "That is too much.",
        "hint": "Wait.",
        "retry_after_s": 2,
    }
    assert result["isError"] is True
    assert result["structuredContent"] == {"error": error}
    assert json.loads(result["content"][0]["text"]) == {"error": error}


async def test_hostile_text_in_a_refusal_is_clean_too() -> None:
    async with connected(Desk()) as client:
        error = (await client.call("refuse"))["structuredContent"]["error"]
    assert error["hint"] == "Did you mean ada-2?"
    assert "</message" not in error["message"]


async def test_a_bug_is_logged_once_and_shown_by_a_number_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected(Desk()) as client:
        error = (await client.call("fail"))["structuredContent"]["error"]
        after = await client.call("echo")
    number = error["message"].removeprefix("internal error (").removesuffix(")")
    assert error["code"] == "internal_error"
    assert "secret" not in str(error)
    assert [number in record.getMessage() for record in caplog.records] == [True]
    assert "isError" not in after


async def test_an_unknown_tool_is_refused_with_the_nearest_name() -> None:
    async with connected(Desk()) as client:
        refused = await client.request("tools/call", {"name": "ecco", "arguments": {}})
    assert code_of(refused) == (-32602, "not_found")
    assert "echo" in refused["error"]["data"]["error"]["hint"]


async def test_a_name_of_megabytes_is_neither_compared_nor_repeated() -> None:
    async with connected(Desk()) as client:
        refused = await client.request("tools/call", {"name": "echo" * 500_000})
        unknown = await client.request("x" * 2_000_000)
    assert code_of(refused) == (-32602, "not_found")
    assert len(json.dumps([refused, unknown])) < 2000


@pytest.mark.parametrize("params", [{}, {"name": 3}, {"name": "echo", "arguments": ["a"]}, [1]])
async def test_parameters_of_the_wrong_type_are_refused(params: object) -> None:
    async with connected(Desk()) as client:
        refused = await client.request("tools/call", params)
    assert code_of(refused) == (-32602, "invalid")


async def test_progress_is_told_to_a_client_that_asked_and_only_grows() -> None:
    async with connected(Desk()) as client:
        await client.answer(client.post_call("count", meta={"progressToken": "p"}))
        await client.call("count")
    told = [message["params"] for message in client.messages if "method" in message]
    assert [(one["progressToken"], one["progress"]) for one in told] == [
        ("p", 1),
        ("p", 2),
        ("p", 3),
    ]
    assert told[0] == {"progressToken": "p", "progress": 1, "total": 3, "message": "step 1"}


async def test_a_client_hears_the_warnings_of_its_own_session_only() -> None:
    async with connected(Desk()) as client, connected(Desk()) as other:
        await client.call("warn", text="fire")
    heard = [message["params"] for message in client.messages if "method" in message]
    assert [(one["level"], one["data"]["message"]) for one in heard] == [
        ("warning", "The desk says fire"),
        ("error", "The desk shouts fire"),
    ]
    assert [message for message in other.messages if "method" in message] == []


async def test_a_client_hears_nothing_below_the_level_it_set() -> None:
    async with connected(Desk()) as client:
        await client.request("logging/setLevel", {"level": "error"})
        await client.call("warn", text="fire")
        await client.request("ping")
    heard = [message["params"]["level"] for message in client.messages if "method" in message]
    assert heard == ["error"]


async def test_nothing_stays_attached_to_the_log_when_a_client_has_gone() -> None:
    before = list(logging.getLogger("claudemesh_mcp").handlers)
    async with connected(Desk()):
        pass
    assert logging.getLogger("claudemesh_mcp").handlers == before
