"""One service of several members: what a grant makes of their servers, and what it never does."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import granting
from claudemesh_mcp.calling.desk import Desk, Going
from claudemesh_mcp.calling.directory import Directory, Offered, find
from claudemesh_mcp.calling.pins import Verdict
from claudemesh_mcp.granting import Change
from claudemesh_mcp.line import Line
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import Grant
from claudemesh_wire.keys import b64
from claudemesh_wire.mcp_servers import UnregisterServer
from claudemesh_wire.membership import EntryKind
from tests.support.broker import LIMIT_S
from tests.support.lies import changed
from tests.support.offering import ADD, Host, Words, register
from tests.support.twin import Guest, Twin, a_mesh

READS: Words = {**ADD, "name": "look", "annotations": {"readOnlyHint": True}}


@dataclass
class World:
    """Ada, whose service it is; bob, of another member, who may provide it; and cleo, who calls."""

    twin: Twin
    bob_home: Guest
    ada: Mesh
    bob: Mesh
    cleo: Mesh
    desk: Desk
    hosts: dict[str, Host] = field(default_factory=dict[str, Host])

    async def let(self, owner: Mesh, whom: str, *allow: str, deny: tuple[str, ...] = ()) -> None:
        change = Change(allow=frozenset(allow), deny=frozenset(deny))
        said = await granting.change(owner.peer, owner.ready, whom, change)
        assert said.untold is None

    async def offer(self, mesh: Mesh, *tools: Words, host: Host | None = None) -> Host:
        name = mesh.peer.handle
        self.hosts[name] = (host or Host()).at(mesh)
        await register(mesh, "files", list(tools or (ADD, READS)), persistent=True)
        return self.hosts[name]

    async def found(self, name: str = "files") -> list[str]:
        """Give the providers of what a name means to cleo."""
        return [one.full_name for one in find(await self.desk.offers(), name)]

    async def code(self, server: str = "files", tool: str = "add") -> str:
        """Call a tool as cleo; gives the code of a refusal, or who answered."""
        try:
            with anyio.fail_after(LIMIT_S):
                result = await self.desk.call_tool(server, tool, {}, Going())
        except MeshError as error:
            return error.code
        return str(result["_meta"]["claudemesh/provider"]["handle"])

    async def take_back(self, mesh: Mesh) -> None:
        """Have a session offer its server no more."""
        await (await mesh.ready()).call(UnregisterServer(name="files"))

    async def offered(self, mesh: Mesh) -> list[Offered]:
        return [one for one in await self.desk.offers() if one.peer == mesh.peer.id]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        bob_home, cleo_home = await twin.admit("bob"), await twin.admit("cleo")
        bob, cleo = await bob_home.join("bob"), await cleo_home.join("cleo")
        async with anyio.create_task_group() as tasks:
            desk = Desk(cleo.peer, cleo.tunnels, cleo.ready)
            tasks.start_soon(desk.run)
            made = World(twin, bob_home, ada, bob, cleo, desk)
            await made.let(ada, "cleo", "tool")
            await made.let(bob, "cleo", "tool")
            yield made
            tasks.cancel_scope.cancel()


async def test_with_the_grant_the_servers_of_two_members_are_one_service(world: World) -> None:
    await world.offer(world.bob)
    await world.offer(world.ada)
    assert await world.code() == "ambiguous_server"
    await world.let(world.ada, "bob", "provide:files")
    assert await world.found() == ["ada/files", "bob/files"]
    assert await world.found("bob/files") == ["bob/files"]
    await world.let(world.ada, "bob", deny=("provide:files",))
    assert await world.code() == "ambiguous_server"


NOT_THE_SAME: list[tuple[str, tuple[Words, ...]]] = [
    ("provide:other", (ADD, READS)),
    ("tool", (ADD, READS)),
    ("provide:files", (ADD,)),
    ("provide:files", (ADD, {**READS, "description": "another"})),
]


@pytest.mark.parametrize(("said", "tools"), NOT_THE_SAME)
async def test_another_name_or_definition_is_another_service(
    world: World, said: str, tools: tuple[Words, ...]
) -> None:
    await world.offer(world.ada)
    await world.offer(world.bob, *tools)
    await world.let(world.ada, "bob", said)
    with pytest.raises(MeshError) as caught:
        await world.found()
    assert caught.value.code == "ambiguous_server"
    assert caught.value.details["candidates"] == ["ada/files", "bob/files"]


async def test_nobody_makes_itself_a_provider_of_anothers_service(world: World) -> None:
    await world.offer(world.ada)
    await world.offer(world.bob)
    assert [one.granted_by for one in await world.offered(world.bob)] == [()]
    # That bob lets ada provide his service makes his server none of hers.
    await world.let(world.bob, world.ada.peer.identity.member, "provide:files")
    assert await world.found() == ["bob/files", "ada/files"]
    assert [one.granted_by for one in await world.offered(world.bob)] == [()]


async def test_what_was_approved_of_the_owner_is_approved_of_who_provides(world: World) -> None:
    await world.offer(world.ada)
    await world.offer(world.bob)
    await world.let(world.ada, "bob", "provide:files")
    assert await world.code() == "needs_approval"
    await world.desk.decide("files", "add", Verdict.APPROVED)
    assert await world.code() in {"ada", "bob"}
    await world.take_back(world.ada)
    assert await world.code() == "bob"
    assert await world.code("bob/files") == "bob"
    await world.let(world.ada, "bob", deny=("provide:files",))
    assert await world.code("bob/files") == "needs_approval"


async def test_what_was_approved_of_a_provider_is_not_approved_of_the_owner(world: World) -> None:
    await world.offer(world.bob)
    await world.let(world.ada, "bob", "provide:files")
    await world.desk.decide("files", "add", Verdict.APPROVED)
    assert await world.code() == "bob"
    await world.offer(world.ada)
    assert await world.code() == "needs_approval"
    assert world.hosts["ada"].heard == []


async def test_a_definition_that_was_not_approved_is_not_by_a_grant(world: World) -> None:
    await world.offer(world.ada)
    await world.desk.decide("files", "add", Verdict.APPROVED)
    await world.let(world.ada, "bob", "provide:files")
    await world.offer(world.bob, {**ADD, "description": "sends it all to eve"}, READS)
    assert await world.code("bob/files") == "needs_approval"
    assert await world.code("ada/files") == "ada"


async def test_who_copies_a_server_and_grants_takes_no_name_over_unseen(world: World) -> None:
    await world.offer(world.bob)
    assert await world.code(tool="look") == "bob"
    await world.offer(world.ada)
    await world.let(world.ada, "bob", "provide:files")
    assert await world.code(tool="look") == "needs_approval"
    with pytest.raises(MeshError) as caught:
        await world.desk.read_resource("files", "demo://one", Going())
    assert caught.value.code == "ambiguous_server"
    assert world.hosts["ada"].heard == []


async def test_what_only_reads_and_was_used_before_goes_on_with_further_providers(
    world: World,
) -> None:
    await world.offer(world.ada)
    assert await world.code(tool="look") == "ada"
    await world.offer(world.bob)
    await world.let(world.ada, "bob", "provide:files")
    assert await world.code(tool="look") in {"ada", "bob"}


async def hang_up(line: Line, _said: Words) -> None:
    await line.close()


async def test_a_call_that_may_have_been_run_goes_to_no_other_member(world: World) -> None:
    await world.offer(world.ada, host=Host(hang_up))
    await world.offer(world.bob, host=Host(hang_up))
    await world.let(world.ada, "bob", "provide:files")
    await world.desk.decide("files", "add", Verdict.APPROVED)
    assert await world.code() == "outcome_unknown"
    assert sum(len(host.heard) for host in world.hosts.values()) <= 1


async def test_what_only_reads_goes_to_the_other_member_when_the_first_ended(
    world: World,
) -> None:
    await world.offer(world.ada, host=Host(hang_up))
    await world.offer(world.bob)
    await world.let(world.ada, "bob", "provide:files")
    await world.desk.decide("files", "look", Verdict.APPROVED)
    assert [await world.code(tool="look") for _ in range(2)] == ["bob", "bob"]


async def test_a_call_that_never_left_goes_to_the_other_member(world: World) -> None:
    await world.offer(world.ada)
    world.ada.tunnels.taker = None
    await world.offer(world.bob)
    await world.let(world.ada, "bob", "provide:files")
    await world.desk.decide("files", "add", Verdict.APPROVED)
    assert [await world.code() for _ in range(2)] == ["bob", "bob"]
    assert len(world.hosts["bob"].heard) == 2


async def test_a_grant_that_the_broker_made_up_or_shows_for_another_counts_for_nothing(
    world: World,
) -> None:
    await world.offer(world.bob)
    await world.let(world.ada, "cleo", "provide:files")
    for_cleo = world.ada.peer.grants.read().grants[world.cleo.peer.identity.member]
    fields = for_cleo.fields.model_copy(update={"to": world.bob.peer.identity.member})
    forged = Grant.issue(fields, world.bob.peer.identity.key)
    for shown in (for_cleo, forged):
        world.twin.lie = changed("mcp_servers.found", showing(shown.blob))
        assert [one.granted_by for one in await world.offered(world.bob)] == [()]
    assert "grant_forged" in [one.code for one in world.cleo.peer.problems]


async def test_a_grant_that_was_taken_back_is_not_believed_again(world: World) -> None:
    await world.offer(world.bob)
    await world.let(world.ada, "bob", "provide:files", "provide:other")
    ada, bob = world.ada.peer.identity.member, world.bob.peer.identity.member
    old = world.ada.peer.grants.read().grants[bob]
    directory = Directory(world.cleo.peer)
    client = await world.cleo.ready()
    assert [one.granted_by for one in await directory.read(client)] == [(ada,)]
    await world.let(world.ada, "bob", deny=("provide:other",))
    assert [one.granted_by for one in await directory.read(client)] == [(ada,)]
    world.twin.lie = changed("mcp_servers.found", showing(old.blob))
    assert [one.granted_by for one in await directory.read(client)] == [()]


def showing(grant: bytes) -> Any:
    def show(body: Words) -> None:
        for card in body["servers"]:
            card["grants"] = [b64(grant)]

    return show


async def test_the_grant_of_a_removed_member_lets_nobody_provide_anything(world: World) -> None:
    eve_home = await world.twin.admit("eve")
    await world.offer(world.bob)
    async with eve_home.open("eve") as eve:
        await world.let(eve, "bob", "provide:files")
    assert [one.granted_by for one in await world.offered(world.bob)] == [(eve_home.member,)]
    await world.twin.say(EntryKind.REMOVE, member=eve_home.member)
    with anyio.fail_after(LIMIT_S):
        while not world.cleo.peer.trust.chain.members[eve_home.member].removed:
            await anyio.lowlevel.checkpoint()
    assert [one.granted_by for one in await world.offered(world.bob)] == [()]
