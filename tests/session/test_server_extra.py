"""Tools that a session gets while it runs: listed behind the others, called, and announced."""

from pathlib import Path
from typing import Any

from anyio.lowlevel import checkpoint

from claudemesh_mcp.front import ComingSession, RefusingSession, open_front
from claudemesh_mcp.offer import LIST_CHANGED, Offer
from tests.support.mcp_client import Client, connected
from tests.support.relaying import NAMES, OBJECT, OFFER, Relay


async def listed(client: Client) -> list[dict[str, Any]]:
    return (await client.request("tools/list"))["result"]["tools"]


async def test_extra_tools_are_listed_as_they_are_behind_those_that_are_always_there() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        before = await listed(client)
        await client.call("install", names=["zoo__feed", "art__draw"])
        after = await listed(client)
    assert [one["name"] for one in before] == list(NAMES)
    assert after == [
        *before,
        {"name": "zoo__feed", "inputSchema": OBJECT, "_meta": {"x": [1.5]}},
        {"name": "art__draw", "inputSchema": OBJECT, "_meta": {"x": [1.5]}},
    ]


async def test_an_extra_tool_is_run_by_the_session() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        await client.call("install", names=["zoo__feed"])
        result = await client.call("zoo__feed", animal="bear")
    assert result["structuredContent"] == {"ran": "zoo__feed", "with": {"animal": "bear"}}


async def test_changes_of_one_moment_are_announced_once() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        await client.call("install", names=["a__a", "b__b", "c__c"])
        await client.request("ping")
        once = len(client.heard(LIST_CHANGED))
        await client.call("install", names=["d__d"])
        await client.request("ping")
    assert once == 1
    assert len(client.heard(LIST_CHANGED)) == 2


async def test_an_unknown_tool_is_told_from_the_extra_ones_too() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        await client.call("install", names=["zoo__feed"])
        refused = await client.request("tools/call", {"name": "zoo__fed"})
    assert "zoo__feed" in refused["error"]["data"]["error"]["hint"]


async def test_an_extra_tool_takes_no_name_from_those_that_are_always_there() -> None:
    async with connected(Relay(), offer=OFFER) as client:
        await client.call("install", names=["meta"])
        tools = await listed(client)
        result = await client.call("meta")
    assert [one["name"] for one in tools] == list(NAMES)
    assert result["structuredContent"] == {"waiting": {"now": 1}}


async def test_a_session_that_fails_to_name_its_tools_leaves_the_others(caplog: Any) -> None:
    class Forgetful(Relay):
        def extra_tools(self) -> list[dict[str, Any]]:
            return [{"title": "it has no name"}]

    async with connected(Forgetful(), offer=OFFER) as client:
        tools = await listed(client)
    assert [one["name"] for one in tools] == list(NAMES)
    assert len(caplog.records) == 1


async def test_a_session_that_has_not_come_or_never_will_has_no_tools_besides(
    tmp_path: Path,
) -> None:
    coming, offer = open_front({"home": tmp_path})
    refusing, nothing = open_front({"toolsets": ["no such set"]})
    assert isinstance(coming, ComingSession)
    assert isinstance(refusing, RefusingSession)
    for session in (coming, refusing):
        assert session.extra_tools() == []
    assert offer.tools == nothing.tools == Offer().tools


async def test_a_client_that_has_not_spoken_is_told_nothing_of_the_list() -> None:
    desk = Relay()
    async with connected(desk, offer=OFFER, greeted=False) as client:
        await client.request("ping")
        await checkpoint()
        assert desk.notify is None
    assert client.heard(LIST_CHANGED) == []
