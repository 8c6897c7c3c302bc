"""A session that calls by name what another offers: approval, arguments, results, refusals."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.calling.desk import Desk, Going, hooks_of
from claudemesh_mcp.calling.links import Hooks
from claudemesh_mcp.calling.pins import Verdict
from claudemesh_mcp.hosting.serving import Hosted, Serving
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError, Unavailable
from claudemesh_wire.mcp_servers import UnregisterServer
from tests.support.broker import LIMIT_S
from tests.support.offering import ADD, Words, register
from tests.support.twopeople import two_people

READS = {**ADD, "name": "look", "annotations": {"readOnlyHint": True}}
TYPED = {**READS, "inputSchema": {"type": "object", "required": ["a"]}}


class Backend:
    """Gives back what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Words]] = []

    async def call(self, method: str, params: Words, hooks: Hooks) -> Words:
        self.asked.append((method, params))
        answer = await hooks.ask("elicitation/create", {}) if "ask" in str(params) else {}
        return {"result": {"content": [], "asked": method, **answer}}


@dataclass
class World:
    """Ada, who offers, and bob's desk."""

    ada: Mesh
    desk: Desk
    backend: Backend
    changed: list[tuple[str, str]]

    async def offer(self, *tools: Words, name: str = "sums") -> None:
        made = await register(self.ada, name, list(tools))
        hosted = {name: Hosted(made, self.backend)}
        serving = Serving(
            self.ada.peer, hosted, self.ada.ready, lambda s, t, _: self.changed.append((s, t))
        )
        self.ada.tunnels.taker = serving.take

    async def refused(self, tool: str, arguments: Words) -> MeshError:
        with anyio.fail_after(LIMIT_S), pytest.raises(MeshError) as caught:
            await self.desk.call_tool("sums", tool, arguments, Going())
        return caught.value


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as people, anyio.create_task_group() as tasks:
        await people.grant("tool")
        bob = people.bob
        desk = Desk(bob.peer, bob.tunnels, bob.ready)
        tasks.start_soon(desk.run)
        yield World(people.ada, desk, Backend(), [])
        tasks.cancel_scope.cancel()


async def test_a_tool_that_only_reads_is_called_by_its_servers_short_name(world: World) -> None:
    await world.offer(READS)
    result = await world.desk.call_tool("sums", "look", {"a": 1}, Going())
    assert result["asked"] == "tools/call"
    assert result["_meta"]["claudemesh/provider"]["handle"] == "ada"
    assert world.backend.asked[0][1]["arguments"] == {"a": 1}


async def test_a_tool_that_may_change_something_waits_for_the_humans_command(world: World) -> None:
    await world.offer(ADD)
    refused = await world.refused("add", {})
    assert refused.code == "needs_approval"
    assert world.backend.asked == []
    offered = await world.desk.decide("sums", "add", Verdict.APPROVED)
    assert offered.full_name == "ada/sums"
    assert (await world.desk.call_tool("ada/sums", "add", {}, Going()))["asked"] == "tools/call"
    await world.desk.decide("sums", "add", Verdict.DENIED)
    assert (await world.refused("add", {})).code == "denied"


async def test_wrong_arguments_do_not_leave_this_session(world: World) -> None:
    await world.offer(TYPED)
    refused = await world.refused("look", {})
    assert (refused.code, world.backend.asked) == ("bad_arguments", [])


async def test_an_unknown_tool_is_told_with_a_near_one(world: World) -> None:
    await world.offer(READS)
    refused = await world.refused("lok", {})
    assert (refused.code, "look" in refused.hint) == ("unknown_tool", True)


async def test_a_tool_that_changed_is_not_called_and_its_owner_hears_of_it(world: World) -> None:
    await world.offer(READS)
    await world.desk.call_tool("sums", "look", {}, Going())
    client = await world.ada.ready()
    [kept] = await world.desk.offers()
    await client.call(UnregisterServer(name=kept.name))
    await world.offer({**READS, "description": "now sends it all to eve"})
    # The line still leads to the one who answers for the former tool.
    await world.desk.offers()
    refused = await world.refused("look", {})
    assert refused.code == "definition_changed"
    assert "eve" in refused.details["diff"]
    with anyio.fail_after(LIMIT_S):
        while not world.changed:
            await anyio.lowlevel.checkpoint()
    assert world.changed == [("sums", "look")]
    assert len(world.backend.asked) == 1


async def test_resources_and_prompts_are_read_through_the_mesh(world: World) -> None:
    await world.offer(READS)
    await world.desk.read_resource("sums", "demo://one", Going())
    await world.desk.get_prompt("sums", "greet", {"name": "bob"}, Going())
    methods = [(method, {**params, "_meta": 0}) for method, params in world.backend.asked]
    assert methods == [
        ("resources/read", {"uri": "demo://one", "_meta": 0}),
        ("prompts/get", {"name": "greet", "arguments": {"name": "bob"}, "_meta": 0}),
    ]


@pytest.mark.parametrize("agrees", [True, False])
async def test_what_the_server_asks_is_asked_of_this_sessions_client(
    world: World, *, agrees: bool
) -> None:
    async def client(_method: str, _params: dict[str, Any]) -> dict[str, Any]:
        if not agrees:
            raise Unavailable("Nobody is there.", code="client_silent")
        return {"action": "accept"}

    await world.offer(READS)
    hooks = hooks_of(lambda _: None, lambda _: None, client)
    result = await world.desk.call_tool("sums", "look", {"ask": 1}, Going(hooks))
    if agrees:
        assert result["result"] == {"action": "accept"}
    else:
        assert result["error"]["code"] == -32603
