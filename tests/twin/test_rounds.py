"""A server of the stateless era that asks: its questions reach the client, its answers the server.

The server is one of MCP's own SDK; the client is at the front of a session.
"""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.hosting.launch import Launch
from tests.support.checkout import ROOT
from tests.support.lending import FORMS, answering, at_desk, lending
from tests.support.mcp_client import Client
from tests.support.twin import a_mesh

ASKS = Launch(
    command=sys.executable,
    args=("-m", "tests.support.backends.asks"),
    cwd=str(ROOT),
    env={"PYTHONPATH": f"{ROOT}:{ROOT / 'broker'}"},
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with a_mesh(tmp_path) as twin, lending(await twin.join("ada")) as lender:
        await lender.lend("asks", ASKS)
        async with at_desk(lambda: twin.open("desk"), capabilities=FORMS) as client:
            yield client


def post(client: Client, tool: str, **arguments: Any) -> int:
    return client.post_call("call_tool", server="asks", tool=tool, arguments=arguments)


async def answered(client: Client, number: int) -> Any:
    return (await client.answer(number))["result"]


def accepts(**content: Any) -> Any:
    return {"result": {"action": "accept", "content": content}}


async def test_it_is_asked_and_answered_in_as_many_rounds_as_the_server_wants(
    client: Client,
) -> None:
    number = post(client, "travel", name="Ada")
    for times, answer in enumerate((accepts(city="Oslo"), accepts(days=3)), 1):
        question = await client.told("elicitation/create", times)
        client.write({"jsonrpc": "2.0", "id": question["id"], **answer})
    result = await answered(client, number)
    assert result["content"][0]["text"] == "Ada goes to Oslo for 3 days"
    asked = [one["params"]["message"] for one in client.heard("elicitation/create")]
    assert asked == ["Where to?", "How many days in Oslo?"]


async def test_that_the_human_says_no_is_for_the_server_to_hear(client: Client) -> None:
    number = post(client, "travel", name="Ada")
    await answering(client, {"result": {"action": "decline"}})
    result = await answered(client, number)
    assert result["isError"] is True
    assert "claudemesh/provider" in result["_meta"]


async def test_a_client_that_answers_with_an_error_ends_the_call_in_words(client: Client) -> None:
    number = post(client, "travel", name="Ada")
    await answering(client, {"error": {"code": -32603, "message": "no window"}})
    error = (await answered(client, number))["structuredContent"]["error"]
    assert error["code"] == "input_required"
    assert "Where to?" in error["hint"]


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [("endless", {}, "too_many_rounds"), ("model", {"text": "hi"}, "unsupported_question")],
)
async def test_what_nobody_can_answer_ends_the_call_in_words(
    client: Client, tool: str, arguments: dict[str, Any], code: str
) -> None:
    result = await answered(client, post(client, tool, **arguments))
    assert result["structuredContent"]["error"]["code"] == code
    assert client.heard("sampling/createMessage") == []
