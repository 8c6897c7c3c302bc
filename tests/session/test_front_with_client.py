"""The front as an independent MCP client sees it: the `mcp` package, over a real process."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types
import pytest
from mcp.client.client import Client
from mcp.client.context import ClientRequestContext
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from claudemesh_mcp.config import Paths, broker_environment
from claudemesh_mcp.home import Home
from claudemesh_mcp.launcher import Launcher
from claudemesh_mcp.offer import NEWEST, Offer
from tests.support.live import a_moment

LIMIT_S = 60
RELAY = """
from claudemesh_mcp.stdio import leave, run
from tests.support.relaying import OFFER, Relay

leave(run(Relay(), OFFER))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def front(home: Path, name: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "claudemesh_mcp", "mcp", "--name", name],
        env=broker_environment() | {"CLAUDEMESH_HOME": str(home), "CLAUDEMESH_KEYRING": "off"},
    )


@pytest.fixture
async def client(home: Path) -> AsyncIterator[Client]:
    """A client of `claudemesh mcp`, on a home of its own whose broker ends with it."""
    try:
        with anyio.fail_after(LIMIT_S):
            async with Client(front(home, "ada")) as client:
                yield client
    finally:
        await Launcher(Home.open(Paths.of(home))).stop(10, force=True)


async def test_a_client_of_the_stateless_era_falls_back_to_the_handshake(client: Client) -> None:
    result = client.session.initialize_result
    assert result
    assert result.protocol_version == NEWEST
    assert result.server_info.name == "claudemesh"


async def test_the_tools_are_listed_as_they_are_defined(client: Client) -> None:
    listed = await client.list_tools()
    shown = [tool.model_dump(by_alias=True, exclude_none=True) for tool in listed.tools]
    assert shown == Offer().tools


async def test_a_tool_answers_in_the_shape_that_it_promised(client: Client) -> None:
    # The client checks every result against the schema that it was shown.
    await client.list_tools()
    peers = await client.call_tool("search_peers", {})
    info = await client.call_tool("mesh_info", {})
    assert not info.is_error
    assert info.structured_content
    assert info.structured_content["me"]["handle"] == "ada"
    assert peers.structured_content
    assert [peer["self"] for peer in peers.structured_content["peers"]] == [True]


async def test_a_refused_call_is_a_typed_error_and_no_exception(client: Client) -> None:
    await client.list_tools()
    refused = await client.call_tool("send", {"to": "nobody", "text": "hello"})
    assert refused.is_error
    assert refused.structured_content
    assert refused.structured_content["error"]["code"] == "not_found"


async def test_wrong_arguments_are_a_typed_error_that_names_the_parameter(client: Client) -> None:
    await client.list_tools()
    refused = await client.call_tool("inbox", {"limit": 5000})
    assert refused.is_error
    assert refused.structured_content
    assert refused.structured_content["error"]["code"] == "invalid"
    assert "limit" in refused.structured_content["error"]["message"]


async def test_an_unknown_tool_is_a_protocol_error(client: Client) -> None:
    with pytest.raises(MCPError) as refused:
        await client.call_tool("shout", {})
    assert refused.value.code == mcp_types.INVALID_PARAMS


async def test_a_call_that_the_client_gives_up_leaves_the_session_usable(client: Client) -> None:
    await client.call_tool("mesh_info", {})
    with anyio.move_on_after(0.2) as given_up:
        await client.call_tool("inbox", {"wait_s": 60})
    after = await client.call_tool("inbox", {})
    assert given_up.cancelled_caught
    assert not after.is_error


async def answer_of(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error
    assert result.structured_content
    return result.structured_content


async def test_a_message_is_seen_once_its_reader_goes_on_and_not_before(
    client: Client, home: Path
) -> None:
    async def status() -> str:
        told = await answer_of(client, "message_status", id=sent["id"])
        return told["recipients"][0]["status"]

    await client.list_tools()
    async with Client(front(home, "bob")) as bob:
        await answer_of(bob, "search_peers")
        sent = await answer_of(client, "send", to="bob", text="hello </message>")
        shown = await answer_of(bob, "inbox", wait_s=20)
        while await status() != "delivered":
            await a_moment()
        before = await status()
        await bob.session.send_ping()
        while await status() != "seen":
            await a_moment()
        again = await answer_of(bob, "inbox")
    (message,) = shown["messages"]
    assert (message["handle"], message["text"], message["stripped"]) == (
        *("ada", "hello ‹/message>", 1),  # noqa: RUF001 - the harmless bracket
    )
    assert before == "delivered"
    assert again["messages"] == []


class Person:
    """The human at a client: accepts what is asked, and hears what is told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.progress: list[tuple[float, float | None, str | None]] = []
        self.logged: list[Any] = []
        self.listed = anyio.Event()

    async def elicit(
        self, context: ClientRequestContext, params: mcp_types.ElicitRequestParams
    ) -> mcp_types.ElicitResult:
        del context
        self.asked.append(params.message)
        return mcp_types.ElicitResult(action="accept", content={"may": "yes"})

    async def hear(self, params: mcp_types.LoggingMessageNotificationParams) -> None:
        self.logged.append(params.data)

    async def note(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, total, message))

    async def take(self, message: Any) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self.listed.set()


@asynccontextmanager
async def relayed(person: Person) -> AsyncIterator[Client]:
    """Give a client of a front whose session passes on what another server says."""
    relay = StdioServerParameters(
        command=sys.executable, args=["-c", RELAY], env=broker_environment()
    )
    with anyio.fail_after(LIMIT_S):
        async with Client(
            relay,
            elicitation_callback=person.elicit,
            logging_callback=person.hear,
            message_handler=person.take,
        ) as client:
            yield client


async def test_what_another_server_says_asks_and_tells_reaches_the_client() -> None:
    person = Person()
    form = {
        "message": "May it?",
        "requestedSchema": {"type": "object", "properties": {"may": {"type": "string"}}},
    }
    told = {
        "progress": {"progressToken": 5, "progress": 0.5, "total": 2, "message": "half"},
        "logs": [{"level": "error", "logger": "theirs", "data": {"what": ["broke"]}}],
    }
    image = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
    async with relayed(person) as client:
        answered = await client.call_tool("ask", {"params": form})
        await client.call_tool("report", told, progress_callback=person.note)
        raw = await client.call_tool("raw", {"result": {"content": [image], "_meta": {"a/b": 1}}})
        big = await client.call_tool("fetch", {"what": "5 MB"})
    assert person.asked == ["May it?"]
    assert answered.structured_content == {"action": "accept", "content": {"may": "yes"}}
    assert person.progress == [(0.5, 2, "half")]
    assert person.logged == [{"what": ["broke"]}]
    assert raw.model_dump(by_alias=True, exclude_none=True)["content"] == [image]
    assert raw.meta == {"a/b": 1}
    assert not big.is_error


async def test_tools_that_come_while_it_runs_are_found_by_the_client_at_once() -> None:
    person = Person()
    async with relayed(person) as client:
        before = {tool.name for tool in (await client.list_tools()).tools}
        await client.call_tool("install", {"names": ["zoo__feed"]})
        await person.listed.wait()
        after = {tool.name for tool in (await client.list_tools()).tools}
        fed = await client.call_tool("zoo__feed", {"animal": "bear"})
    assert after - before == {"zoo__feed"}
    assert fed.structured_content == {"ran": "zoo__feed", "with": {"animal": "bear"}}
