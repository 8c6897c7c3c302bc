"""Functions of a program that others call as tools: schemas, results, errors, progress, threads."""

import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from pydantic import BaseModel, Field

from claudemesh_mcp.hosting.functions import FunctionCall, Functions
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import Invalid
from tests.support.broker import LIMIT_S
from tests.support.twin import a_mesh
from tests.support.twopeople import code, two_people


class Point(BaseModel):
    """A place."""

    x: int
    y: int


def add(a: int, b: Annotated[int, Field(description="The other one.")] = 1) -> int:
    """Add two numbers."""
    return a + b


async def move(point: Point, by: list[int]) -> Point:
    """Move a point."""
    return Point(x=point.x + by[0], y=point.y + by[1])


def fail(json: str) -> None:
    """Fail, whatever is given."""
    raise ValueError(f"{json} went wrong")


@dataclass
class World:
    """Ada, whose program offers, and her other session, which calls."""

    ada: Mesh
    desk: Mesh

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.desk.servers.call("ada/calc", tool, arguments)
        del result["_meta"]
        return result


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_mesh(tmp_path) as twin:
        yield World(await twin.join("ada"), await twin.join("desk"))


async def test_functions_are_tools_as_long_as_their_block(world: World) -> None:
    async with world.ada.servers.functions("calc", add, move, description="Sums.") as told:
        assert (told.name, told.tools, told.visible_to) == ("ada/calc", ["add", "move"], ["own"])
        assert await world.call("add", a=2) == {
            "content": [{"type": "text", "text": "3"}],
            "structuredContent": {"result": 3},
        }
        moved = await world.call("move", point={"x": 1, "y": 2}, by=[3, 4])
        assert moved["structuredContent"] == {"x": 4, "y": 6}
        [offered] = await world.desk.servers.desk.offers()
        assert offered.registration.fields.description == "Sums."
    assert await world.desk.servers.desk.offers() == []
    assert world.ada.servers.hosted() == []


async def test_signature_and_docstring_are_the_definition() -> None:
    [tool, other] = (await Functions("calc", [add, fail], read_only=True).definitions())["tools"]
    assert tool == {
        "name": "add",
        "description": "Add two numbers.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "a": {"type": "integer"},
                "b": {"type": "integer", "default": 1, "description": "The other one."},
            },
            "required": ["a"],
            "additionalProperties": False,
        },
        "outputSchema": {
            "type": "object",
            "properties": {"result": {"type": "integer"}},
            "required": ["result"],
        },
        "annotations": {"readOnlyHint": True},
    }
    assert "outputSchema" not in other
    assert other["inputSchema"]["properties"] == {"json": {"type": "string"}}


async def test_what_a_function_raises_is_the_tools_error(world: World) -> None:
    async with world.ada.servers.functions("calc", fail):
        failed = await world.call("fail", json="all")
    assert failed == {"content": [{"type": "text", "text": "all went wrong"}], "isError": True}


async def test_wrong_arguments_never_reach_the_function(world: World) -> None:
    async with world.ada.servers.functions("calc", add):
        for wrong in ({"a": "one"}, {}, {"a": 1, "c": 2}):
            assert await code(world.call("add", **wrong)) == "bad_arguments"


async def test_a_function_knows_its_caller_and_tells_how_far_it_is(world: World) -> None:
    async def steps(call: FunctionCall, times: int) -> str:
        for done in range(1, times + 1):
            call.progress(done, times, f"step {done}")
        return call.caller["handle"]

    def threaded(call: FunctionCall) -> bool:
        call.progress(0.5)
        return threading.current_thread() is threading.main_thread()

    told = list[dict[str, Any]]()
    async with world.ada.servers.functions("calc", steps, threaded):
        first = await world.desk.servers.call("calc", "steps", {"times": 2}, progress=told.append)
        second = await world.desk.servers.call("calc", "threaded", progress=told.append)
    assert first["content"][0]["text"] == "desk"
    assert second["structuredContent"] == {"result": False}
    assert told == [
        {"progress": 1, "total": 2, "message": "step 1"},
        {"progress": 2, "total": 2, "message": "step 2"},
        {"progress": 0.5},
    ]


async def test_a_caller_that_gives_up_stops_the_function(world: World) -> None:
    begun, stopped = anyio.Event(), anyio.Event()

    async def endless() -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    async with (
        world.ada.servers.functions("calc", endless),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(world.desk.servers.call, "calc", "endless")
        with anyio.fail_after(LIMIT_S):
            await begun.wait()
            tasks.cancel_scope.cancel()
    with anyio.fail_after(LIMIT_S):
        await stopped.wait()


async def test_another_member_calls_what_only_reads_without_approving(tmp_path: Path) -> None:
    async with two_people(tmp_path) as people:
        await people.grant("tool")
        servers = people.ada.servers
        async with servers.functions("calc", add, visible_to=("mesh",), read_only=True):
            result = await people.bob.servers.call("ada/calc", "add", {"a": 41})
            assert result["structuredContent"] == {"result": 42}
        async with servers.functions("sums", add, visible_to=("mesh",)):
            refused = await code(people.bob.servers.call("ada/sums", "add", {"a": 41}))
    assert refused == "needs_approval"


def nameless(*numbers: int) -> None:
    """Take any number of them."""


def untyped(a) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Say nothing of what it takes."""


@pytest.mark.parametrize("function", [nameless, untyped, lambda: None])
def test_what_no_schema_can_say_is_refused(function: Any) -> None:
    with pytest.raises(Invalid) as refused:
        Functions("calc", [function])
    assert refused.value.code == "bad_function"


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(Invalid) as refused:
        Functions("calc", [add, add])
    assert refused.value.code == "bad_function"
