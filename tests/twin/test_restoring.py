"""Servers that come back: each in one session of its folder at a time, as long as it is kept."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.home import atomic_write
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.registry import Entry, Registry
from claudemesh_mcp.hosting.wishes import Scope, ServerWish
from claudemesh_mcp.opening import RESIDENT
from claudemesh_mcp.routes import facts
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError, Unavailable
from claudemesh_wire.handshake import Mode
from tests.support.backends.found import handmade
from tests.support.live import a_moment
from tests.support.twin import Twin, a_mesh
from tests.support.twopeople import code

LIMIT_S = 60


@dataclass
class World:
    """A home, a folder of a project in it, and a command line that looks."""

    twin: Twin
    shop: Path
    human: Mesh

    @property
    def registry(self) -> Registry:
        return Registry(self.twin.identity)

    async def join(self, name: str, folder: Path | None = None, **more: Any) -> Mesh:
        """Open a session that hosts what comes back and fits."""
        mesh = await self.twin.join(name, folder=folder or self.shop, **more)
        _ = mesh.servers.restoring
        return mesh

    def keep(self, name: str = "hand", launch: Launch | None = None, **more: Any) -> Entry:
        """Keep a server, as the command line does."""
        wish = ServerWish(name, launch or handmade("handshake"), persistent=True, **more)
        entry = Entry(wish, str(self.shop), "p_cli", "max", 1)
        self.registry.add(entry)
        return entry

    async def offers(self) -> dict[str, bool]:
        """Give what the mesh knows, and whether it is here."""
        offers = await self.human.servers.desk.offers()
        return {one.full_name: one.online for one in offers}

    async def until(self, **wanted: bool) -> None:
        """Wait until the mesh knows exactly this: ``ada_hand=True``."""
        names = {name.replace("_", "/"): online for name, online in wanted.items()}
        with anyio.fail_after(LIMIT_S):
            while True:
                with suppress(Unavailable):
                    if await self.offers() == names:
                        return
                await a_moment()


async def so(holds: Callable[[], bool]) -> None:
    """Wait until something is so."""
    with anyio.fail_after(LIMIT_S):
        while not holds():
            await a_moment()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    shop = tmp_path / "shop"
    shop.mkdir()
    async with a_mesh(tmp_path) as twin:
        yield World(twin, shop, await twin.join("human", Mode.CALL))


def persistent(name: str = "hand", launch: Launch | None = None, **more: Any) -> ServerWish:
    return ServerWish(name, launch or handmade("handshake"), persistent=True, **more)


async def test_what_is_added_is_hosted_at_once_and_ended_when_it_is_removed(world: World) -> None:
    await world.join("ada")
    entry = world.keep(tools_allowed=("seen",))
    await world.until(ada_hand=True)
    result = await world.human.servers.call("hand", "seen", {"a": 1})
    assert result["structuredContent"]["arguments"] == {"a": 1}
    assert await code(world.human.servers.call("hand", "rich")) == "unknown_tool"
    holder = world.registry.holder(entry.key)
    assert holder is not None
    assert (holder.handle, holder.why) == ("ada", "")
    world.registry.remove(entry)
    await world.until()
    await so(lambda: world.registry.left_over() == [])
    assert not world.registry.is_held(entry.key)


async def test_one_session_hosts_and_another_takes_over_when_it_has_left(world: World) -> None:
    bob = await world.twin.join("bob", folder=world.shop)
    async with world.twin.open("ada", folder=world.shop) as ada:
        _ = ada.servers.restoring
        entry = world.keep()
        await world.until(ada_hand=True)
        _ = bob.servers.restoring
        await world.human.servers.call("hand", "seen")
        assert bob.servers.hosted() == []
        await ada.depart()
    await world.until(bob_hand=True)
    assert [one.name for one in bob.servers.hosted()] == ["hand"]
    await world.human.servers.call("hand", "seen")
    await so(lambda: getattr(world.registry.holder(entry.key), "late", None) == ())


async def test_only_sessions_of_its_folder_host_it_or_any_for_the_whole_user(
    world: World, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name, scope in (("here", Scope.PROJECT), ("all", Scope.USER), ("there", Scope.BROKER)):
        world.keep(name, scope=scope)
    await world.join("ada", other)
    await world.until(ada_all=True)
    await world.join("program", about={"type": "sdk"})
    await world.join("bob")
    await world.until(ada_all=True, bob_here=True)
    resident = await world.join("desk", other, about={"type": RESIDENT})
    await world.until(ada_all=True, bob_here=True, desk_there=True)
    assert [one.name for one in resident.servers.hosted()] == ["there"]


async def test_its_command_runs_in_the_folder_it_was_registered_in(
    world: World, tmp_path: Path
) -> None:
    says = world.shop / "says.py"
    says.write_text("import os, pathlib; pathlib.Path('was').write_text(os.getcwd())", "utf-8")
    started = Launch(command=handmade("handshake").command, args=("says.py",))
    world.keep(launch=started, scope=Scope.USER)
    await world.join("ada", tmp_path)
    await so((world.shop / "was").exists)


async def test_a_broken_server_is_said_to_be_and_disturbs_no_other(world: World) -> None:
    await world.join("ada")
    entry = world.keep("gone", Launch(command="no-such-server"))
    world.keep()
    await world.until(ada_hand=True)
    holder = world.registry.holder(entry.key)
    assert holder is not None
    assert holder.state in {"failed", "starting"}
    assert "no-such-server" in holder.why


async def test_a_file_that_cannot_be_read_is_told_and_disturbs_no_other(world: World) -> None:
    entry = world.keep("gone")
    atomic_write(world.registry.folder / f"{entry.key}.entry", b"nothing")
    world.keep()
    ada = await world.join("ada")
    await world.until(ada_hand=True)
    assert [one.code for one in ada.peer.problems] == ["key_file_damaged"]


async def test_what_a_session_registers_to_last_is_kept_from_then_on(world: World) -> None:
    async with world.twin.open("ada", folder=world.shop) as ada:
        told = await ada.servers.register(persistent(tools_allowed=("seen",)))
        assert told.name == "ada/hand"
        [entry] = world.registry.read().entries
        assert (entry.wish, entry.folder) == (persistent(tools_allowed=("seen",)), str(world.shop))
        assert (entry.peer, entry.handle) == (ada.peer.id, "ada")
        await ada.depart()
    assert await world.offers() == {"ada/hand": False}
    await world.join("bob")
    await world.until(bob_hand=True)


async def test_a_session_that_comes_back_offers_it_under_the_same_name(world: World) -> None:
    async with world.twin.open("ada", folder=world.shop) as ada:
        await ada.servers.register(persistent())
        await ada.depart()
    assert await world.offers() == {"ada/hand": False}
    await world.join("ada")
    await world.until(ada_hand=True)


async def test_what_is_unregistered_comes_back_nowhere(world: World) -> None:
    ada = await world.join("ada")
    await world.join("bob")
    await ada.servers.register(persistent())
    await ada.servers.unregister("hand")
    assert (world.registry.read().entries, await world.offers()) == ([], {})
    await so(lambda: world.registry.left_over() == [])
    # Bob, who would have hosted it by then, hosts what comes now.
    world.keep("later", scope=Scope.USER)
    with anyio.fail_after(LIMIT_S):
        while not await world.offers():
            await a_moment()
    assert {name.partition("/")[2] for name in await world.offers()} == {"later"}


async def test_what_fails_to_start_or_has_a_name_that_is_taken_is_not_kept(world: World) -> None:
    ada = await world.join("ada")
    broken = persistent(launch=Launch(command="no-such-server"))
    assert await code(ada.servers.register(broken)) == "command_not_found"
    resident = persistent(scope=Scope.BROKER)
    assert await code(ada.servers.register(resident)) == "bad_scope"
    assert await code(ada.servers.register(persistent("../hand"))) == "bad_server"
    assert world.registry.read().entries == []
    files = [path for path in world.twin.home.rglob("*") if path.name.startswith("hand-")]
    assert {path.parent for path in files} <= {world.registry.folder}
    await ada.servers.register(persistent())
    bob = await world.join("bob")
    assert await code(bob.servers.register(persistent())) == "name_taken"
    assert await code(ada.servers.register(persistent())) == "name_taken"
    assert await world.offers() == {"ada/hand": True}
    assert len(world.registry.read().entries) == 1
    await ada.servers.unregister("hand")
    await bob.servers.register(persistent())
    assert await world.offers() == {"bob/hand": True}


async def test_what_cannot_be_kept_is_not_offered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await world.join("ada")

    def full(*_: object) -> None:
        raise Unavailable("There is no space left.", code="storage_full")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "add", full)
        assert await code(ada.servers.register(persistent())) == "storage_full"
    assert (await world.offers(), ada.servers.hosted()) == ({}, [])
    await ada.servers.register(persistent())


async def test_what_was_removed_while_nobody_was_there_is_taken_back_by_the_next(
    world: World,
) -> None:
    async with world.twin.open("ada", folder=world.shop) as ada:
        await ada.servers.register(persistent())
        await ada.depart()
    [entry] = world.registry.read().entries
    world.registry.remove(entry)
    assert await world.offers() == {"ada/hand": False}
    await world.join("bob")
    await world.until()
    await so(lambda: world.registry.left_over() == [])


async def test_what_was_started_is_noted_for_the_hooks_of_the_session(world: World) -> None:
    world.keep()
    ada = await world.join("ada")
    await world.until(ada_hand=True)
    told = await ada.peer.file.read(lambda sql: facts.get(sql, facts.STARTED))
    assert told.startswith("hand: ")
    assert told.endswith("handmade.py handshake")


async def test_a_name_that_the_session_has_already_is_left_to_others(world: World) -> None:
    ada = await world.join("ada")
    await ada.servers.register(ServerWish("hand", handmade("handshake")))
    entry = world.keep()
    await so(lambda: [one.code for one in ada.peer.problems] == ["name_taken"])
    await world.join("bob")
    await world.until(ada_hand=True, bob_hand=True)
    assert getattr(world.registry.holder(entry.key), "handle", "") == "bob"


async def test_a_peer_that_was_continued_elsewhere_lets_go(world: World) -> None:
    first = await world.join("ada")
    entry = world.keep()
    await world.until(ada_hand=True)
    async with world.twin.open("ada", folder=world.shop) as second:
        await second.ready()
        _ = second.servers.restoring
        await so(lambda: first.servers.hosted() == [])
        await so(lambda: [one.name for one in second.servers.hosted()] == ["hand"])
        await world.until(ada_hand=True)
        assert world.registry.is_held(entry.key)


async def test_what_cannot_be_taken_back_now_is_taken_back_later(world: World) -> None:
    ada = await world.join("ada")
    entry = world.keep()
    await world.until(ada_hand=True)
    world.twin.online = False
    await world.twin.cut()
    world.registry.remove(entry)
    await so(lambda: ada.servers.hosted() == [])
    assert world.registry.left_over() == [entry.key]
    world.twin.online = True
    with suppress(MeshError):
        await ada.ready()
    await world.until()
    await so(lambda: world.registry.left_over() == [])
