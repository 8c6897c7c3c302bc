"""Who sees and calls the server of another member: a table written by hand, both ways of each cell.

What is listed is the broker's doing, what is called the host's, by its own copy of log and grants.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp import granting
from claudemesh_mcp.calling.directory import Directory
from claudemesh_mcp.calling.links import Hooks
from claudemesh_mcp.granting import Change
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Mode
from claudemesh_wire.membership import EntryKind
from claudemesh_wire.message import Role
from tests.support.broker import LIMIT_S
from tests.support.lies import changed
from tests.support.offering import ADD, Words
from tests.support.serving import Backend, World
from tests.support.twopeople import two_people

ADD_UP: Words = {
    "server": "sums",
    "method": "tools/call",
    "params": {"name": "add", "arguments": {}},
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as people:
        yield World(people, Backend(), [])


async def do(world: World, *steps: str) -> None:
    """Make bob what the steps say he is to ada."""
    people = world.people
    for step in steps:
        what, _, which = step.partition(" ")
        match what:
            case "grant":
                await people.grant(which)
            case "revoke":
                await people.revoke(which)
            case "block":
                await people.block(blocked=True)
            case "unblock":
                await people.block(blocked=False)
            case "role":
                await become(world, Role(which))
            case "join":
                await world.bob.join(*which.split())
            case _:
                raise AssertionError(step)


async def become(world: World, role: Role) -> None:
    """Give bob a role, and wait until everybody has heard of it."""
    member = world.people.guest.member
    await world.people.twin.say(EntryKind.ROLE, member=member, role=role)
    for mesh in (world.ada, world.bob):
        await until(lambda mesh=mesh: mesh.peer.trust.chain.members[member].role is role)


async def until(holds: object) -> None:
    assert callable(holds)
    with anyio.fail_after(LIMIT_S):
        while not holds():
            await anyio.lowlevel.checkpoint()


async def listed(mesh: Mesh) -> list[str]:
    return [one.name for one in await Directory(mesh.peer).read(await mesh.ready())]


async def called(world: World, mesh: Mesh) -> str:
    """Call by hand what one may know the name of; gives the code of a refusal."""
    try:
        done = await world.call(mesh)
    except MeshError as error:
        return error.code
    return done.get("refused", {}).get("code", "")


# What bob is to ada, to whom she offers, whether he is shown it, and what his call comes to. Of the
# names one is bob's session, another ada's command line.
TABLE: list[tuple[tuple[str, ...], str, bool, str]] = [
    ((), "mesh", False, "not_granted"),
    (("grant tool",), "mesh", True, ""),
    (("grant task", "grant file", "grant wake"), "mesh", False, "not_granted"),
    (("grant provide:sums",), "mesh", False, "not_granted"),
    (("grant tool", "revoke tool"), "mesh", False, "not_granted"),
    (("grant tool", "block"), "mesh", False, "blocked"),
    (("block",), "mesh", False, "blocked"),
    (("grant tool", "block", "unblock"), "mesh", True, ""),
    (("grant tool", "role observer"), "mesh", False, "role"),
    (("grant tool", "role observer", "role member"), "mesh", True, ""),
    (("role admin",), "mesh", False, "not_granted"),
    (("grant tool",), "own", False, "unknown_server"),
    (("grant tool",), "role:member", True, ""),
    (("grant tool",), "role:admin", False, "unknown_server"),
    (("grant tool", "role admin"), "role:admin", True, ""),
    (("grant tool", "role admin"), "role:member", False, "unknown_server"),
    (("grant tool", "role admin", "role member"), "role:admin", False, "unknown_server"),
    (("grant tool",), "@ops", False, "unknown_server"),
    (("grant tool", "join @ops"), "@ops", True, ""),
    (("grant tool", "join @ops pilot"), "@ops:lead", False, "unknown_server"),
    (("grant tool", "join @ops lead"), "@ops:lead", True, ""),
    (("join @ops lead",), "@ops:lead", False, "not_granted"),
    (("grant tool",), "bob", True, ""),
    (("grant tool",), "human", False, "unknown_server"),
    ((), "bob", False, "not_granted"),
    (("grant tool", "block"), "bob", False, "blocked"),
]

# The same for the command line of bob's human, while his session is what the steps say.
TABLE_OF_HUMANS: list[tuple[tuple[str, ...], str, bool, str]] = [
    (("grant tool",), "mesh", True, ""),
    (("grant tool",), "own", False, "unknown_server"),
    (("grant tool",), "bob", True, "unknown_server"),
    (("grant tool",), "human", False, "unknown_server"),
    (("grant tool",), "@ops", False, "unknown_server"),
    (("grant tool", "join @ops"), "@ops", True, "unknown_server"),
    (("grant tool", "join @ops pilot"), "@ops:lead", False, "unknown_server"),
    (("grant tool", "join @ops lead"), "@ops:lead", True, "unknown_server"),
    (("join @ops",), "@ops", False, "not_granted"),
    (("grant tool", "join @ops", "block"), "@ops", False, "blocked"),
    (("grant tool", "join @ops", "role observer"), "@ops", False, "role"),
    ((), "bob", False, "not_granted"),
]


@pytest.mark.parametrize(("steps", "viewer", "is_listed", "outcome"), TABLE)
async def test_who_sees_a_server_and_who_calls_it(
    world: World,
    steps: tuple[str, ...],
    viewer: str,
    is_listed: bool,  # noqa: FBT001 - a column of the table
    outcome: str,
) -> None:
    await do(world, *steps)
    await world.offer([ADD], named(world, viewer))
    assert await listed(world.bob) == (["sums"] if is_listed else [])
    assert await called(world, world.bob) == outcome
    assert len(world.backend.asked) == (outcome == "")
    desk = await world.people.twin.join("desk")
    assert (await listed(desk), await called(world, desk)) == (["sums"], "")


def named(world: World, viewer: str) -> str:
    """Give a viewer as a registration has it."""
    peers = {"bob": world.bob, "human": world.people.human}
    return peers[viewer].peer.id if viewer in peers else viewer


@pytest.mark.parametrize(("steps", "viewer", "is_listed", "outcome"), TABLE_OF_HUMANS)
async def test_a_human_is_shown_what_any_session_of_the_member_is_and_calls_no_more(
    world: World,
    steps: tuple[str, ...],
    viewer: str,
    is_listed: bool,  # noqa: FBT001 - a column of the table
    outcome: str,
) -> None:
    await do(world, *steps)
    await world.offer([ADD], named(world, viewer))
    line = await world.people.guest.join("line", Mode.CALL, type="human")
    assert await listed(line) == (["sums"] if is_listed else [])
    assert await called(world, line) == outcome


@pytest.mark.parametrize("viewer", ["bob", "@ops"])
async def test_a_session_is_shown_nothing_that_is_for_another_of_its_member(
    world: World, viewer: str
) -> None:
    await do(world, "grant tool", "join @ops")
    await world.offer([ADD], named(world, viewer))
    beside = await world.people.guest.join("beside")
    assert await listed(world.bob) == ["sums"]
    assert (await listed(beside), await called(world, beside)) == ([], "unknown_server")


# What becomes of bob while his line is open, and what his next call on it comes to.
ON_AN_OPEN_LINE: list[tuple[str, str]] = [
    ("revoke tool", "not_granted"),
    ("block", "blocked"),
    ("role observer", "not_granted"),
    ("role admin", "unknown_server"),
]


@pytest.mark.parametrize(("step", "outcome"), ON_AN_OPEN_LINE)
async def test_what_was_taken_away_counts_on_an_open_line_too(
    world: World, step: str, outcome: str
) -> None:
    await do(world, "grant tool")
    await world.offer([ADD], "role:member")
    async with world.link(world.bob) as link:
        assert "result" in await link.call(ADD_UP, Hooks(), LIMIT_S)
        await do(world, step)
        assert (await link.call(ADD_UP, Hooks(), LIMIT_S))["refused"]["code"] == outcome
    assert len(world.backend.asked) == 1


async def test_the_call_of_a_member_that_is_removed_meanwhile_is_stopped(world: World) -> None:
    async def forever(_method: str, _params: Words, _hooks: Hooks) -> Words:
        await anyio.sleep_forever()
        return {}

    world.backend.act = forever
    await do(world, "grant tool")
    await world.offer([ADD])
    line = await world.bob.tunnels.open(world.ada.peer.id)
    await line.send({"call": 1, "hops": 1, **ADD_UP})
    await until(lambda: world.backend.asked)
    await world.people.twin.say(EntryKind.REMOVE, member=world.people.guest.member)
    await until(lambda: world.backend.cancelled)
    assert await anext(line.messages(), None) is None


async def bob_offers(world: World) -> None:
    """Have bob offer a server to ada."""
    let, ada = Change(allow=frozenset({"tool"})), world.ada.peer.identity.member
    await granting.change(world.bob.peer, world.bob.ready, ada, let)
    await world.offer_as(world.bob)


@pytest.mark.parametrize("role", [Role.OBSERVER, None])
async def test_who_may_offer_nothing_any_more_is_shown_no_more(
    world: World, role: Role | None
) -> None:
    ada, member = world.ada, world.people.guest.member
    await bob_offers(world)
    assert await listed(ada) == ["sums"]
    if role is None:
        await world.people.twin.say(EntryKind.REMOVE, member=member)
    else:
        await become(world, role)
    assert await listed(ada) == []
    assert not ada.peer.problems


async def test_the_server_of_an_observer_is_not_believed(world: World) -> None:
    ada = world.ada
    await bob_offers(world)
    shown: list[Words] = []
    world.people.twin.lie = changed("mcp_servers.found", lambda body: shown.extend(body["servers"]))
    assert await listed(ada) == ["sums"]
    await become(world, Role.OBSERVER)
    world.people.twin.lie = changed(
        "mcp_servers.found", lambda body: body.update({"servers": shown})
    )
    assert await listed(ada) == []
    assert [one.code for one in ada.peer.problems] == ["observer_offers"]


NONSENSE: list[Words] = [
    {},
    {"call": "1", **ADD_UP},
    {"call": True, **ADD_UP},
    {"call": None, **ADD_UP},
    {"call": 1},
    {"call": 1, "server": ["sums"], "method": "tools/call", "params": {"name": "add"}},
    {"call": 1, **ADD_UP, "server": "../sums"},
    {"call": 1, **ADD_UP, "server": "Sums\u202e"},
    {"call": 1, **ADD_UP, "params": "add"},
    {"call": 1, **ADD_UP, "params": {"name": ["add"]}},
    {"call": 1, **ADD_UP, "params": {"name": "add", "arguments": 1}},
    {"call": 1, **ADD_UP, "pin": "another"},
    {"call": 1, **ADD_UP, "pin": 7},
    {"call": 1, **ADD_UP, "hops": 5},
    {"call": 1, **ADD_UP, "hops": -1},
    {"call": 1, **ADD_UP, "hops": 1e300},
    {"call": 1, **ADD_UP, "method": "initialize"},
    {"call": 1, **ADD_UP, "method": "tools/list"},
    {"cancel": 7, "reason": {}},
    {"cancel": "7"},
    {"answered": 7, "result": {}},
    {"answered": [], "result": {}},
    {"done": 1, "result": {}},
    {"changed": "other", "tool": "add"},
    {"changed": {"a": 1}, "tool": []},
]


@pytest.mark.parametrize("said", NONSENSE)
async def test_what_makes_no_sense_runs_nothing_and_hurts_nobody(world: World, said: Words) -> None:
    await do(world, "grant tool")
    await world.offer([ADD])
    line = await world.bob.tunnels.open(world.ada.peer.id)
    await line.send(said)
    # Behind it, on the same line if that still stands; then on a new one.
    await line.send({"call": 99, **ADD_UP, "server": "none"})
    with anyio.fail_after(LIMIT_S):
        async for answer in line.messages():
            if answer["done"] == 99:
                break
            assert answer["refused"]["code"] != "internal"
    assert (world.backend.asked, world.changed) == ([], [])
    assert await called(world, world.bob) == ""


async def test_of_many_calls_at_once_eight_run(world: World) -> None:
    release = anyio.Event()

    async def wait(_method: str, _params: Words, _hooks: Hooks) -> Words:
        await release.wait()
        return {"result": {}}

    world.backend.act = wait
    await do(world, "grant tool")
    await world.offer([ADD])
    line = await world.bob.tunnels.open(world.ada.peer.id)
    codes: list[str] = []
    with anyio.fail_after(LIMIT_S):
        for number in range(200):
            await line.send({"call": number, **ADD_UP})
        async for answer in line.messages():
            codes.append(answer.get("refused", {}).get("code", ""))
            if len(codes) == 192:
                release.set()
            if len(codes) == 200:
                break
    assert (codes.count("too_many_calls"), codes.count("")) == (192, 8)
    assert len(world.backend.asked) == 8


async def test_of_a_change_the_owner_hears_once_and_from_who_may_call(world: World) -> None:
    await world.offer([ADD])
    said: Words = {"changed": "sums", "tool": "add"}
    async with world.link(world.bob) as link:
        await link.tell(said)
        assert (await link.call(ADD_UP, Hooks(), LIMIT_S))["refused"]["code"] == "not_granted"
        assert world.changed == []
        await do(world, "grant tool")
        for _ in range(3):
            await link.tell(said)
        assert "result" in await link.call(ADD_UP, Hooks(), LIMIT_S)
    assert world.changed == [("sums", "add")]
