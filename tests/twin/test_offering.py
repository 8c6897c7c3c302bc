"""A session that offers servers to the mesh: started, shown, called, changed, taken back."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.hosting.keeping import State
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.offering import Offering
from claudemesh_mcp.hosting.wishes import ServerWish
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError, Unavailable
from claudemesh_wire.frame import decode
from claudemesh_wire.handshake import Mode
from claudemesh_wire.keys import b64
from claudemesh_wire.mcp_servers import Registration, RegistrationFields
from tests.support.backends.found import handmade
from tests.support.broker import LIMIT_S
from tests.support.lies import changed
from tests.support.twin import Twin, a_mesh
from tests.support.twopeople import code


@dataclass
class World:
    """Ada, who offers, and her other session, which calls."""

    twin: Twin
    ada: Mesh
    desk: Mesh

    @property
    def offering(self) -> Offering:
        return self.ada.servers.offering

    async def offers(self) -> dict[str, list[str]]:
        """Give what the other session can call now, by full name."""
        offers = await self.desk.servers.desk.offers()
        return {one.full_name: [tool["name"] for tool in one.tools] for one in offers if one.online}

    async def until(self, *names: str) -> None:
        """Wait until exactly these are offered."""
        with anyio.fail_after(LIMIT_S):
            while True:
                with suppress(Unavailable):
                    if sorted(await self.offers()) == sorted(names):
                        return
                await anyio.lowlevel.checkpoint()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_mesh(tmp_path) as twin:
        yield World(twin, await twin.join("ada"), await twin.join("desk"))


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something is so."""
    with anyio.fail_after(LIMIT_S):
        while not holds():
            await anyio.lowlevel.checkpoint()


def offered(world: World) -> dict[str, bool]:
    """Give which of ada's servers the mesh knows as they are now."""
    return {one.name: one.is_offered for one in world.offering.hosted()}


def wish(name: str = "hand", launch: Launch | None = None, **more: Any) -> ServerWish:
    return ServerWish(name, launch or handmade("handshake"), **more)


async def test_what_is_registered_is_called_by_another_session_at_once(world: World) -> None:
    told = await world.offering.register(wish(tools_allowed=("seen", "rich")))
    assert (told.name, told.tools) == ("ada/hand", ["rich", "seen"])
    assert (told.resources, told.prompts, told.visible_to) == (1, 1, ["own"])
    assert "handmade.py handshake" in told.started
    result = await world.desk.servers.call("hand", "seen", {"a": 1})
    assert result["structuredContent"]["arguments"] == {"a": 1}
    assert result["structuredContent"]["_meta"]["claudemesh/caller"]["handle"] == "desk"
    refused = await code(world.desk.servers.call("hand", "failing"))
    assert refused == "unknown_tool"


async def test_a_server_that_does_not_start_leaves_nothing(world: World) -> None:
    broken = Launch(command="no-such-server")
    assert await code(world.offering.register(wish(launch=broken))) == "command_not_found"
    assert world.offering.hosted() == []
    assert await world.offers() == {}
    assert (await world.offering.register(wish())).name == "ada/hand"


async def test_a_name_that_is_taken_is_refused_and_what_has_it_stays(world: World) -> None:
    await world.offering.register(wish(tools_allowed=("seen",)))
    assert await code(world.offering.register(wish())) == "name_taken"
    assert await world.offers() == {"ada/hand": ["seen"]}
    [hosted] = world.offering.hosted()
    assert (hosted.condition.state, hosted.tools, hosted.is_offered) == (
        State.RUNNING,
        ("seen",),
        True,
    )


async def test_an_unknown_allowed_tool_is_told_with_a_near_one(world: World) -> None:
    with pytest.raises(MeshError) as refused:
        await world.offering.register(wish(tools_allowed=("seen", "ritch")))
    assert refused.value.code == "unknown_tool"
    assert "rich" in refused.value.hint
    assert world.offering.hosted() == []
    assert await world.offers() == {}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"name": "No Name"}, "bad_server"),
        ({"description": "x" * 2001}, "bad_server"),
        ({"visible_to": ()}, "bad_server"),
        ({"visible_to": ("bob",)}, "bad_viewer"),
    ],
)
async def test_what_could_not_be_shown_is_refused_before_it_is_started(
    more: dict[str, Any], expected: str, world: World, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    touching = Launch(command="touch", args=(str(said),))
    assert await code(world.offering.register(wish(launch=touching, **more))) == expected
    assert not said.exists()


async def test_what_is_taken_back_is_offered_no_more_and_ends(world: World) -> None:
    await world.offering.register(wish())
    await world.offering.unregister("hand")
    assert await world.offers() == {}
    assert world.offering.hosted() == []
    assert await code(world.offering.unregister("hand")) == "unknown_server"
    assert await code(world.desk.servers.call("ada/hand", "seen")) == "unknown_server"


async def test_it_is_offered_again_on_each_connection(world: World) -> None:
    await world.offering.register(wish())
    for _ in range(2):
        await world.twin.cut()
        await world.desk.ready()
        await world.until("ada/hand")
    assert (await world.desk.servers.call("hand", "seen"))["content"][0]["text"] == "seen"


async def test_a_process_that_only_calls_can_offer_nothing(world: World) -> None:
    human = await world.twin.join("human", Mode.CALL)
    assert await code(human.servers.offering.register(wish())) == "not_attached"


async def test_a_server_that_is_restored_is_offered_once_it_runs(
    world: World, tmp_path: Path
) -> None:
    late = tmp_path / "late"
    await world.offering.restore(wish(launch=handmade("handshake")))
    await world.offering.restore(wish("gone", Launch(command=str(late))))
    await until(lambda: offered(world) == {"hand": True, "gone": False})
    assert list(await world.offers()) == ["ada/hand"]


async def test_a_session_that_was_continued_elsewhere_ends_its_servers(world: World) -> None:
    await world.offering.register(wish())
    again = await world.twin.join("ada")
    await until(lambda: world.offering.hosted() == [])
    await world.until()
    assert await code(world.offering.register(wish())) == "replaced"
    await again.servers.offering.register(wish())
    assert (await world.desk.servers.call("hand", "seen"))["content"][0]["text"] == "seen"


async def test_several_servers_are_registered_and_taken_back_at_once(world: World) -> None:
    names = [f"hand{number}" for number in range(4)]
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(world.offering.register, wish(name))
    await world.until(*(f"ada/{name}" for name in names))
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(world.offering.unregister, name)
    assert await world.offers() == {}


async def test_what_is_restored_before_there_is_a_broker_is_offered_once_there_is(
    world: World,
) -> None:
    world.twin.online = False
    async with world.twin.open("eve") as eve:
        await eve.servers.offering.restore(wish())
        await until(lambda: eve.servers.hosted()[0].condition.state is State.RUNNING)
        await until(lambda: bool(eve.servers.hosted()[0].tools))
        world.twin.online = True
        await world.until("eve/hand")


async def test_an_attempt_that_fails_takes_nothing_away_that_was_to_last(world: World) -> None:
    async with world.twin.open("eve") as eve:
        await eve.ready()
        await eve.servers.offering.register(wish(persistent=True))
    again = await world.twin.join("eve")
    broken = wish(launch=Launch(command="no-such-server"))
    assert await code(again.servers.offering.register(broken)) == "command_not_found"
    await again.servers.offering.register(wish("other"))
    offers = await world.desk.servers.desk.offers()
    assert {one.full_name: one.online for one in offers} == {"eve/hand": False, "eve/other": True}


LEFT_OUT = {
    "'o\\ud83d' of its tools is left out: a text is no Unicode.",
    "'x\\u202ey' of its tools is left out: the name has characters that can't be seen.",
    f"'{'n' * 80}' of its tools is left out: the name has more than 200 characters.",
    "'line\\nend' of its tools is left out: the name has characters that can't be seen.",
}


async def test_a_tool_that_can_be_shown_to_nobody_is_left_out_and_its_owner_told(
    world: World,
) -> None:
    told = await world.offering.register(wish(launch=handmade("handshake", "unfit")))
    assert set(told.warnings) == LEFT_OUT
    assert "seen" in told.tools
    assert len(told.tools) == 16
    assert (await world.offers())["ada/hand"] == told.tools
    assert (await world.desk.servers.call("hand", "seen"))["content"][0]["text"] == "seen"


async def test_the_owner_hears_that_a_server_has_now_what_can_be_shown_to_nobody(
    world: World,
) -> None:
    await world.offering.register(wish())
    names = ["seen", "x\u202ey", "line\nend"]
    await world.desk.servers.call("hand", "turning", {"names": names})
    with anyio.fail_after(LIMIT_S):
        while await world.offers() != {"ada/hand": ["seen"]}:
            await anyio.lowlevel.checkpoint()
    told = [one.text for one in (await world.ada.mesh_info()).news]
    [one] = [one for one in told if "left out" in one]
    assert one == (
        "your MCP server hand is offered without some: 'x\\u202ey' of its tools is left out: the"
        " name has characters that can't be seen. (and 1 more)"
    )


async def test_what_a_broker_shows_of_a_server_without_sense_leaves_the_others(
    world: World,
) -> None:
    await world.offering.register(wish(tools_allowed=("seen",)))
    await world.offering.register(wish("other"))
    peer = world.ada.peer
    fields = RegistrationFields(
        mesh=peer.trust.mesh,
        peer=peer.id,
        cert=b64(peer.certified().hash),
        name="other",
        at=peer.now_ms(),
        visible_to=["own"],
        definitions='{"tools":[{"name":"o\\ud83d"}]}',
    )
    made = Registration.make(fields, peer.device.sign.sign)

    def poison(body: dict[str, Any]) -> None:
        for card in body["servers"]:
            if card["name"] == "other":
                card["registration"], card["digest"] = b64(made.blob), b64(made.digest)

    world.twin.lie = changed("mcp_servers.found", poison)
    assert await world.offers() == {"ada/hand": ["seen"]}


async def test_nothing_stays_of_what_the_broker_kept_and_could_not_answer(world: World) -> None:
    failure = {"category": "protocol_error", "code": "internal", "reason": "It failed."}

    def failing(text: str) -> str | None:
        frame = decode(text)
        if frame.kind != "mcp_servers.registered":
            return text
        return f"0 {frame.answers} refused {json.dumps(failure)}"

    world.twin.lie = failing
    assert await code(world.offering.register(wish())) == "internal"
    assert world.offering.hosted() == []
    await world.until()
