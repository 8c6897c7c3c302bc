"""What the broker tells of servers: to those who may see them, and of where as they may."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh_wire.certificate import Certificate
from claudemesh_wire.mcp_servers import UnregisterServer
from claudemesh_wire.presence import UpdatePresence
from claudemesh_wire.server_news import ServerChanged
from tests.support.rawpeer import RawPeer
from tests.support.registering import World, a_world, let, offer, told


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


async def heard(peer: RawPeer) -> ServerChanged:
    """Wait until a peer heard of a server, and give the last of it."""
    await told(peer, 1)
    return peer.of(ServerChanged)[-1]


async def test_news_of_a_server_name_its_peer_by_its_certificate_and_host_and_tools(
    world: World,
) -> None:
    await world.ada.call(offer(world.ada))
    news = await heard(world.desk)
    assert (news.peer, news.handle, news.host) == (world.ada.peer, "ada", "desk")
    assert (news.name, news.tools) == ("sums", ["add"])
    shown = Certificate.parse(news.certificate).fields
    assert (shown.peer, shown.handle) == (world.ada.peer, "ada")


async def test_news_of_one_that_hides_say_to_its_own_alone_where_it_is(world: World) -> None:
    await let(world.ada, world.bob)
    await world.ada.call(UpdatePresence(visible=False))
    await world.ada.call(offer(world.ada, visible_to=["mesh"]))
    assert (await heard(world.desk)).host == "desk"
    assert (await heard(world.bob)).host == ""


async def test_news_name_no_more_tools_than_fit_and_cut_what_is_long(world: World) -> None:
    tools = [{"name": f"{number:03}" + "x" * 100} for number in range(60)]
    await world.ada.call(offer(world.ada, definitions=json.dumps({"tools": tools})))
    news = await heard(world.desk)
    assert len(news.tools) == 50
    assert news.tools[7] == "007" + "x" * 77


async def test_who_lost_sight_of_a_server_hears_nothing_more_of_it(world: World) -> None:
    await let(world.ada, world.bob)
    await world.ada.call(offer(world.ada, visible_to=["mesh"]))
    assert await told(world.bob, 1) == [("registered", "sums")]
    await let(world.ada, world.bob, 2, allow=False)
    await world.ada.call(UnregisterServer(name="sums"))
    assert await told(world.desk, 2) == [("registered", "sums"), ("unregistered", "sums")]
    assert await told(world.bob, 1) == [("registered", "sums")]
