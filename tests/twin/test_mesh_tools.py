"""A model's client calls what another session runs: the same answers as without the mesh between.

Everything goes through the real front, and a real server stands at the other end.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.backends.bare import bare, without_stamp
from tests.support.backends.found import handmade
from tests.support.lending import (
    FORMS,
    PROVIDER,
    Lender,
    answering,
    at_desk,
    lending,
    without_provider,
)
from tests.support.mcp_client import Client
from tests.support.offering import Words
from tests.support.twin import Twin, a_mesh

ERAS = pytest.mark.parametrize("era", ["handshake", "stateless"])
ACCEPTED = {"result": {"action": "accept", "content": {"name": "Ada"}}}
CALLED = [
    ("rich", {"a": [1.5, None, "☃"]}),
    ("failing", {"why": {"not": True}}),
    ("half", {}),
    ("large", {}),
]


@dataclass
class World:
    """Ada, who lends the server made by hand, and a client of another session of hers."""

    twin: Twin
    lender: Lender
    client: Client
    said: Path

    async def use(self, tool: str, **arguments: Any) -> Any:
        """Call a tool of the server."""
        return await self.client.call("call_tool", server="hand", tool=tool, arguments=arguments)

    async def refused(self, name: str, **arguments: Any) -> Words:
        """Give the error of a call that is refused."""
        result = await self.client.call(name, **arguments)
        assert result["isError"] is True, result
        return result["structuredContent"]["error"]

    async def written(self, line: str) -> None:
        """Wait until the server has written this."""
        with anyio.fail_after(20):
            while not self.said.exists() or line not in self.said.read_text("utf-8"):
                await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def a_world(folder: Path, era: str = "handshake", **changed: Any) -> AsyncIterator[World]:
    said = folder / "said"
    async with a_mesh(folder) as twin, lending(await twin.join("ada")) as lender:
        await lender.lend("hand", handmade(era, said))
        async with at_desk(lambda: twin.open("desk"), **changed) as client:
            yield World(twin, lender, client, said)


@ERAS
async def test_a_result_is_the_one_that_the_server_gives(era: str, tmp_path: Path) -> None:
    with bare(handmade(era), is_stateless=era == "stateless") as direct:
        params = [{"name": tool, "arguments": arguments} for tool, arguments in CALLED]
        expected = [without_stamp(direct.ask("tools/call", one))["result"] for one in params]
    async with a_world(tmp_path, era) as world:
        results = [await world.use(tool, **arguments) for tool, arguments in CALLED]
    assert [without_provider(one) for one in results] == expected
    provider = results[0]["_meta"][PROVIDER]
    assert (provider["handle"], provider["server"]) == ("ada", "hand")


async def test_an_error_of_the_protocol_keeps_code_message_and_data(tmp_path: Path) -> None:
    with bare(handmade("handshake"), is_stateless=False) as direct:
        expected = direct.ask("tools/call", {"name": "refusing", "arguments": {}})["error"]
    async with a_world(tmp_path) as world:
        result = await world.use("refusing")
    assert result["isError"] is True
    assert result["structuredContent"] == {"error": expected}
    assert json.loads(result["content"][0]["text"]) == {"error": expected}


async def test_progress_and_log_lines_come_while_the_call_runs(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        client = world.client
        await client.request("logging/setLevel", {"level": "info"})
        asked = {"server": "hand", "tool": "steps"}
        answered = client.post_call("call_tool", {"progressToken": "mine"}, **asked)
        await client.answer(answered)
        progress = [one["params"] for one in client.heard("notifications/progress")]
        [log] = [
            one["params"]
            for one in client.heard("notifications/message")
            if one["params"].get("logger") == "steps"
        ]
    assert [(one["progressToken"], one["progress"]) for one in progress] == [
        ("mine", 1),
        ("mine", 2),
    ]
    assert progress[0]["x"]["big"] == 2**70
    assert log["level"] == "info"


async def test_who_wants_no_progress_hears_of_none(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.use("steps")
        assert world.client.heard("notifications/progress") == []


async def test_what_a_request_says_besides_reaches_the_server(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        meta = {"own/note": [1], "claudemesh/hops": 2, "claudemesh/caller": "eve"}
        number = world.client.post_call("call_tool", meta, server="hand", tool="seen")
        result = (await world.client.answer(number))["result"]
    seen = result["structuredContent"]["_meta"]
    assert (seen["own/note"], seen["claudemesh/hops"]) == ([1], 3)
    assert seen["claudemesh/caller"]["handle"] == "desk"


async def test_a_call_that_went_through_too_many_sessions_goes_no_further(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        number = world.client.post_call(
            "call_tool", {"claudemesh/hops": 4}, server="hand", tool="seen"
        )
        result = (await world.client.answer(number))["result"]
    assert result["structuredContent"]["error"]["code"] == "too_many_hops"


async def test_a_cancelled_call_is_cancelled_at_the_server(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        number = world.client.post_call("call_tool", server="hand", tool="waiting")
        await world.written("waits")
        world.client.notify("notifications/cancelled", requestId=number)
        await world.written("cancelled: ")
        await world.client.request("ping")
        assert not [one for one in world.client.messages if one.get("id") == number]


@ERAS
async def test_what_the_server_asks_is_asked_of_the_client(era: str, tmp_path: Path) -> None:
    async with a_world(tmp_path, era, capabilities=FORMS) as world:
        number = world.client.post_call("call_tool", server="hand", tool="asking")
        [asked] = await answering(world.client, ACCEPTED)
        result = (await world.client.answer(number))["result"]
    assert asked["message"] == "your name?"
    assert asked["x"]["ünïcode"] == "☃"
    given = result["structuredContent"]
    if era == "handshake":
        assert given["result"] == ACCEPTED["result"]
    else:
        assert given == {"state": "s1", "given": {"a": ACCEPTED["result"]}}


async def test_a_client_that_can_not_be_asked_says_so_in_words(tmp_path: Path) -> None:
    async with a_world(tmp_path, "stateless") as world:
        error = await world.refused("call_tool", server="hand", tool="asking")
    assert error["code"] == "input_required"
    assert "your name?" in error["hint"]


async def test_a_resource_is_given_as_an_embedded_one(tmp_path: Path) -> None:
    with bare(handmade("handshake"), is_stateless=False) as direct:
        read = direct.ask("resources/read", {"uri": "own://a"})["result"]
    async with a_world(tmp_path) as world:
        result = await world.client.call("read_mesh_resource", server="hand", uri="own://a")
    expected = [{"type": "resource", "resource": one} for one in read["contents"]]
    assert result["content"] == expected
    assert result["_meta"][PROVIDER]["handle"] == "ada"


async def test_a_prompt_is_given_whole_as_structure_and_as_text(tmp_path: Path) -> None:
    with bare(handmade("handshake"), is_stateless=False) as direct:
        got = direct.ask("prompts/get", {"name": "p", "arguments": {"who": "bob"}})["result"]
    async with a_world(tmp_path) as world:
        asked = {"server": "hand", "name": "p", "arguments": {"who": "bob"}}
        params = {"name": "get_mesh_prompt", "arguments": asked}
        result = (await world.client.request("tools/call", params))["result"]
    assert result["structuredContent"] == got
    assert json.loads(result["content"][0]["text"]) == got


async def test_names_that_there_are_not_are_told_with_near_ones(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        tool = await world.refused("call_tool", server="hand", tool="riche")
        server = await world.refused("call_tool", server="ada/hnd", tool="rich")
        listed = await world.refused("mesh_tools", server="hnad")
        resource = await world.refused("read_mesh_resource", server="hnd", uri="own://a")
    assert (tool["code"], "rich" in tool["hint"]) == ("unknown_tool", True)
    for error in (server, listed, resource):
        assert (error["code"], "hand" in error["hint"]) == ("unknown_server", True)


async def test_arguments_that_the_schema_refuses_never_reach_the_server(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        needs = {"inputSchema": {"type": "object", "required": ["file"]}}
        await world.lender.change("hand", lambda one: {**one, **needs})
        error = await world.refused("call_tool", server="hand", tool="crashing", arguments={})
    assert error["code"] == "bad_arguments"
    assert not world.said.exists()


async def test_a_server_whose_session_has_gone_is_offline_since_when(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        async with twin.open("ada") as ada, lending(ada) as lender:
            await ada.ready()
            await lender.lend("hand", handmade("handshake"))
        async with at_desk(lambda: twin.open("desk")) as client:
            listed = await client.call("mesh_tools")
            refused = await client.call("call_tool", server="hand", tool="rich")
    [server] = listed["structuredContent"]["servers"]
    [provider] = server["providers"]
    assert (provider["online"], provider["host"]) == (False, "desk")
    error = refused["structuredContent"]["error"]
    assert error["code"] == "peer_offline"
    assert error["details"] == {"host": "desk", "since": provider["since"]}
    assert provider["since"] in error["message"]
