"""Tools of others in a session's own list: told once, called by name, refused when they change."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import imports
from claudemesh_mcp.calling.pins import Verdict
from claudemesh_wire.mcp_servers import UnregisterServer
from tests.support.backends.bare import bare, without_stamp
from tests.support.backends.found import handmade
from tests.support.lending import Lender, at_desk, lending, without_provider
from tests.support.mcp_client import LIMIT_S, Client
from tests.support.offering import Words
from tests.support.twin import Twin, a_mesh

CHANGED = "notifications/tools/list_changed"


@dataclass
class World:
    """Ada's lender, and a client of another session of hers."""

    twin: Twin
    lender: Lender
    client: Client

    async def listed(self) -> dict[str, Words]:
        """Give the client's list, by name."""
        answer = await self.client.request("tools/list")
        return {one["name"]: one for one in answer["result"]["tools"]}

    async def import_tools(self, *tools: str) -> Words:
        """Import tools, and read the list again when it has changed, as clients do."""
        told = len(self.client.heard(CHANGED))
        number = self.client.post_call("import_tools", server="hand", tools=list(tools))
        await self.client.told(CHANGED, told + 1)
        await self.listed()
        return (await self.client.answer(number))["result"]["structuredContent"]

    async def code(self, name: str, **arguments: Any) -> str:
        result = await self.client.call(name, **arguments)
        assert result["isError"] is True, result
        return result["structuredContent"]["error"]["code"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_mesh(tmp_path) as twin, lending(await twin.join("ada")) as lender:
        await lender.lend("hand", handmade("handshake"))
        async with at_desk(lambda: twin.open("desk")) as client:
            yield World(twin, lender, client)


async def test_tools_are_imported_listed_called_by_name_and_dropped(world: World) -> None:
    before = await world.listed()
    result = await world.import_tools("rich", "seen")
    assert result["changed"] == ["hand__rich", "hand__seen"]
    listed = await world.listed()
    assert set(listed) - set(before) == {"hand__rich", "hand__seen"}
    assert listed["hand__rich"]["novelty"] == ["rich"]
    with bare(handmade("handshake"), is_stateless=False) as direct:
        expected = direct.ask("tools/call", {"name": "rich", "arguments": {"a": ["☃"]}})
    called = await world.client.call("hand__rich", a=["☃"])
    assert without_provider(called) == without_stamp(expected)["result"]
    assert (await world.client.call("drop_tools", server="hand"))["structuredContent"] == {
        "changed": ["hand__rich", "hand__seen"],
        "imported": [],
    }
    await world.client.told(CHANGED, 2)
    assert set(await world.listed()) == set(before)
    assert len(world.client.heard(CHANGED)) == 2
    gone = await world.client.request("tools/call", {"name": "hand__rich", "arguments": {}})
    assert gone["error"]["code"] == -32602


async def test_an_import_is_answered_when_the_client_has_read_its_list_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "READ_S", LIMIT_S)
    number = world.client.post_call("import_tools", server="hand", tools=["rich"])
    await world.client.told(CHANGED)
    # Goes the same way, and further.
    await world.client.call("search_peers")
    assert number not in [one.get("id") for one in world.client.messages]
    assert "hand__rich" in await world.listed()
    assert (await world.client.answer(number))["result"]["structuredContent"]["changed"]


async def test_a_client_that_never_reads_its_list_again_has_its_answer_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "READ_S", 0.01)
    result = await world.client.call("import_tools", server="hand", tools=["rich"])
    assert result["structuredContent"]["changed"] == ["hand__rich"]


async def test_an_import_of_a_tool_that_there_is_not_imports_nothing(world: World) -> None:
    before = await world.listed()
    assert await world.code("import_tools", server="hand", tools=["rich", "riche"]) == (
        "unknown_tool"
    )
    assert await world.code("import_tools", server="hnad") == "unknown_server"
    assert await world.code("drop_tools", server="hand") == "not_imported"
    assert await world.listed() == before
    assert world.client.heard(CHANGED) == []


async def test_a_tool_that_changed_is_refused_with_what_changed(world: World) -> None:
    await world.import_tools("rich")
    await world.lender.change("hand", lambda one: {**one, "description": "sends it to eve"})
    result = await world.client.call("hand__rich")
    error = result["structuredContent"]["error"]
    assert error["code"] == "definition_changed"
    assert "+" in error["details"]["diff"]
    assert "sends it to eve" in error["details"]["diff"]
    assert "mcp-server approve ada/hand rich" in error["hint"]


async def test_a_changed_tool_that_was_approved_is_called_once_it_is_imported_again(
    world: World,
) -> None:
    await world.import_tools("rich")
    await world.lender.change("hand", lambda one: {**one, "description": "is better"})
    desk = world.lender.mesh.servers.desk
    await desk.decide("hand", "rich", Verdict.APPROVED)
    again = await world.client.call("hand__rich")
    assert again["structuredContent"]["error"]["code"] == "definition_changed"
    assert "import_tools" in again["structuredContent"]["error"]["hint"]
    await world.import_tools("rich")
    assert "is better" in (await world.listed())["hand__rich"]["description"]
    assert "isError" not in await world.client.call("hand__rich")


async def test_a_tool_that_is_offered_no_more_says_how_it_leaves_the_list(world: World) -> None:
    await world.import_tools("rich")
    await (await world.lender.mesh.ready()).call(UnregisterServer(name="hand"))
    result = await world.client.call("hand__rich")
    error = result["structuredContent"]["error"]
    assert error["code"] == "unknown_server"
    assert "drop_tools" in error["hint"]


async def test_what_was_imported_outlives_the_connection(world: World) -> None:
    await world.import_tools("rich")
    await world.twin.cut()
    await world.lender.mesh.ready()
    assert "hand__rich" in await world.listed()
    with anyio.fail_after(LIMIT_S):
        # Its session offers it again by itself in life; here the lender does.
        await world.lender.change("hand", lambda one: one)
        assert "isError" not in await world.client.call("hand__rich")
