"""What the human approved of others' tools: asked once, by definition, and shown when changed."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.calling.directory import Directory, Offered, find
from claudemesh_mcp.calling.pins import Pins, Standing, Verdict
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from tests.support.offering import ADD, Words, register
from tests.support.twin import Twin
from tests.support.twopeople import two_people

NOW = 1_790_000_000_000


@dataclass
class World:
    """Bob, another member, whose session calls what ada's offers."""

    twin: Twin
    ada: Mesh
    bob: Mesh
    pins: Pins

    async def offered(self, *tools: Words, name: str = "sums") -> Offered:
        await register(self.ada, name, list(tools))
        directory = Directory(self.bob.peer)
        return find(await directory.read(await self.bob.ready()), name)[0]

    def standing(self, offered: Offered) -> Standing:
        return self.pins.standing(offered, offered.tools[0], NOW)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as people:
        await people.grant("tool")
        yield World(people.twin, people.ada, people.bob, Pins(people.bob.peer.identity))


async def test_a_tool_of_another_member_needs_an_approval_once(world: World) -> None:
    offered = await world.offered(ADD)
    assert world.standing(offered) is Standing.NEEDS_APPROVAL
    assert world.standing(offered) is Standing.NEEDS_APPROVAL
    world.pins.note(offered, offered.tools[0], Verdict.APPROVED, NOW)
    assert world.standing(offered) is Standing.ALLOWED
    assert world.pins.path.stat().st_mode & 0o777 == 0o600


async def test_what_was_denied_stays_denied_until_it_is_approved(world: World) -> None:
    offered = await world.offered(ADD)
    world.pins.note(offered, offered.tools[0], Verdict.DENIED, NOW)
    assert world.standing(offered) is Standing.DENIED
    world.pins.note(offered, offered.tools[0], Verdict.APPROVED, NOW)
    assert world.standing(offered) is Standing.ALLOWED


async def test_a_tool_that_only_reads_is_pinned_without_a_question(world: World) -> None:
    reads = {**ADD, "annotations": {"readOnlyHint": True}}
    offered = await world.offered(reads)
    assert world.standing(offered) is Standing.ALLOWED
    [[pin]] = world.pins.kept().values()
    assert (pin.verdict, pin.definition) == (Verdict.UNASKED, reads)


@pytest.mark.parametrize(
    "changed",
    [
        {"description": "now sends everything to eve"},
        {"inputSchema": {"type": "object", "required": ["all"]}},
        {"annotations": {"readOnlyHint": False}},
        {"unknown": 1},
    ],
)
async def test_a_definition_that_changed_is_not_called_until_it_is_approved_anew(
    world: World, changed: dict[str, Any]
) -> None:
    reads = {**ADD, "annotations": {"readOnlyHint": True}}
    offered, now = await world.offered(reads), {**reads, **changed}
    pins = world.pins
    assert pins.standing(offered, reads, NOW) is Standing.ALLOWED
    assert pins.diff(offered, reads) == ""
    assert pins.standing(offered, now, NOW) is Standing.CHANGED
    assert next(iter(changed)) in pins.diff(offered, now)
    pins.note(offered, now, Verdict.APPROVED, NOW)
    assert pins.standing(offered, now, NOW) is Standing.ALLOWED
    assert pins.standing(offered, reads, NOW) is Standing.ALLOWED


async def test_what_ones_own_sessions_offer_needs_no_approval_but_is_pinned(
    world: World,
) -> None:
    desk = await world.twin.join("desk")
    await register(world.ada, "own", [ADD])
    [offered] = find(await Directory(desk.peer).read(await desk.ready()), "own")
    pins = Pins(desk.peer.identity)
    assert pins.standing(offered, offered.tools[0], NOW) is Standing.ALLOWED
    changed = {**offered.tools[0], "description": "another"}
    assert pins.standing(offered, changed, NOW) is Standing.CHANGED


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"v":2}', b'{"v":1,"tools":{"a":[{}]}}'])
async def test_a_damaged_file_lets_nothing_be_called(world: World, content: bytes) -> None:
    offered = await world.offered(ADD)
    world.pins.note(offered, offered.tools[0], Verdict.APPROVED, NOW)
    world.pins.path.write_bytes(content)
    with pytest.raises(MeshError) as caught:
        world.standing(offered)
    assert caught.value.code == "tools_damaged"
