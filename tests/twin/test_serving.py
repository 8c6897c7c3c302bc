"""What a session that offers a server lets others do with it, whatever the broker says of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.calling.links import Hooks
from claudemesh_wire.errors import Unavailable
from claudemesh_wire.mcp_servers import definition_digest
from tests.support.broker import LIMIT_S
from tests.support.offering import ADD, Words
from tests.support.serving import TYPED, Backend, World
from tests.support.twopeople import two_people


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as people:
        yield World(people, Backend(), [])


async def test_the_server_hears_who_calls_and_nothing_that_the_caller_says_of_it(
    world: World,
) -> None:
    await world.offer([ADD])
    await world.people.grant("tool")
    lie = {
        "claudemesh/caller": {"member": "ada"},
        "io.modelcontextprotocol/clientInfo": {"name": "x"},
        "progressToken": 7,
        "theirs": 1,
    }
    done = await world.call(world.bob, params={"name": "add", "arguments": {"a": 2}, "_meta": lie})
    assert done["result"]["text"] == '{"a": 2}'
    [(method, params)] = world.backend.asked
    caller = params["_meta"].pop("claudemesh/caller")
    assert (method, params["_meta"]) == ("tools/call", {"theirs": 1, "claudemesh/hops": 1})
    assert (caller["handle"], caller["member_name"], caller["own"]) == ("bob", "bob", False)


async def test_ones_own_sessions_need_no_grant(world: World) -> None:
    await world.offer([ADD], "own")
    desk = await world.people.twin.join("desk")
    assert "result" in await world.call(desk)
    assert world.backend.asked[0][1]["_meta"]["claudemesh/caller"]["own"] is True


async def test_without_a_grant_nothing_is_run_and_the_command_is_named(world: World) -> None:
    await world.offer([ADD])
    refused = (await world.call(world.bob))["refused"]
    assert (refused["code"], refused["category"]) == ("not_granted", "forbidden")
    assert "claudemesh grant bob tool" in refused["hint"]
    assert world.backend.asked == []


async def test_a_grant_that_was_taken_back_counts_at_once_on_an_open_line(world: World) -> None:
    await world.offer([ADD])
    await world.people.grant("tool")
    said = {"server": "sums", "method": "tools/call", "params": {"name": "add", "arguments": {}}}
    async with world.link(world.bob) as link:
        assert "result" in await link.call(said, Hooks(), LIMIT_S)
        await world.people.revoke("tool")
        refused = await link.call(said, Hooks(), LIMIT_S)
    assert refused["refused"]["code"] == "not_granted"


@pytest.mark.parametrize(
    ("viewers", "outcome"),
    [
        (("own",), "unknown_server"),
        (("@ops",), ""),
        (("@ops:lead",), ""),
        (("@ops:pilot",), "unknown_server"),
        (("role:member",), ""),
        (("role:admin",), "unknown_server"),
        (("@dev", "role:member"), ""),
    ],
)
async def test_who_is_not_meant_can_call_nothing(
    world: World, viewers: tuple[str, ...], outcome: str
) -> None:
    await world.bob.join("@ops", "lead")
    await world.people.grant("tool")
    await world.offer([ADD], *viewers)
    done = await world.call(world.bob)
    assert done.get("refused", {}).get("code", "") == outcome


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"server": "other"}, "unknown_server"),
    ({"method": "tools/list"}, "unsupported"),
    ({"method": None}, "unsupported"),
    ({"params": {"name": "sub", "arguments": {"a": 1}}}, "unknown_tool"),
    ({"params": {"name": "add", "arguments": {}}}, "bad_arguments"),
    ({"params": {"name": "add", "arguments": []}}, "bad_arguments"),
    ({"params": []}, "unknown_tool"),
    ({"pin": "another"}, "definition_changed"),
    ({"hops": 5}, "too_many_hops"),
    ({"hops": "1"}, "too_many_hops"),
]


@pytest.mark.parametrize(("said", "code"), REFUSED)
async def test_what_can_not_be_called_is_refused_before_the_server_hears_of_it(
    world: World, said: dict[str, Any], code: str
) -> None:
    await world.offer([TYPED])
    await world.people.grant("tool")
    assert await world.refused(world.bob, **said) == code
    assert world.backend.asked == []


async def test_a_call_by_the_pin_of_now_is_run(world: World) -> None:
    await world.offer([TYPED])
    await world.people.grant("tool")
    assert "result" in await world.call(world.bob, pin=definition_digest(TYPED))


async def test_what_the_server_says_and_asks_meanwhile_goes_to_the_caller(world: World) -> None:
    async def talk(_method: str, _params: Words, hooks: Hooks) -> Words:
        hooks.progress({"progress": 1})
        hooks.log({"data": "so far"})
        answer = await hooks.ask("elicitation/create", {"message": "Sure?"})
        return {"result": {"answer": answer}}

    world.backend.act = talk
    await world.offer([ADD])
    await world.people.grant("tool")
    heard: list[Any] = []

    async def answer(method: str, params: Words) -> Words:
        heard.append((method, params))
        return {"result": {"action": "accept"}}

    done = await world.call(world.bob, Hooks(heard.append, heard.append, answer))
    assert done["result"] == {"answer": {"result": {"action": "accept"}}}
    assert heard == [
        {"progress": 1},
        {"data": "so far"},
        ("elicitation/create", {"message": "Sure?"}),
    ]


async def test_a_caller_that_goes_away_stops_what_it_called(world: World) -> None:
    began, ended = anyio.Event(), anyio.Event()

    async def forever(_method: str, _params: Words, _hooks: Hooks) -> Words:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        return {}

    world.backend.act = forever
    await world.offer([ADD])
    await world.people.grant("tool")
    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.call, world.bob)
            await began.wait()
            tasks.cancel_scope.cancel()
        await ended.wait()
    assert world.backend.cancelled == 1


async def test_a_server_that_ended_is_told_as_it_is(world: World) -> None:
    async def gone(_method: str, _params: Words, _hooks: Hooks) -> Words:
        raise Unavailable("The server ended.", code="server_ended")

    world.backend.act = gone
    await world.offer([ADD])
    await world.people.grant("tool")
    assert await world.refused(world.bob) == "server_ended"


async def test_a_mistake_of_ours_is_no_silence(world: World) -> None:
    async def wrong(_method: str, _params: Words, _hooks: Hooks) -> Words:
        raise RuntimeError("a bug")

    world.backend.act = wrong
    await world.offer([ADD])
    await world.people.grant("tool")
    assert await world.refused(world.bob) == "internal"


async def test_another_member_runs_eight_calls_at_once_and_sixty_a_minute(world: World) -> None:
    release, running = anyio.Event(), 0

    async def wait(_method: str, _params: Words, _hooks: Hooks) -> Words:
        nonlocal running
        running += 1
        await release.wait()
        return {"result": {}}

    world.backend.act = wait
    await world.offer([ADD])
    await world.people.grant("tool")
    said = {"server": "sums", "method": "tools/call", "params": {"name": "add", "arguments": {}}}
    refused: Words = {}
    async with world.link(world.bob) as link, anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(link.call, said, Hooks(), LIMIT_S)
        with anyio.fail_after(LIMIT_S):
            while running < 8:
                await anyio.lowlevel.checkpoint()
        ninth = await link.call(said, Hooks(), LIMIT_S)
        assert ninth["refused"]["code"] == "too_many_calls"
        release.set()
        for _ in range(52):
            await link.call(said, Hooks(), LIMIT_S)
        refused = (await link.call(said, Hooks(), LIMIT_S))["refused"]
    assert (refused["code"], refused["category"]) == ("rate_limited", "too_much")
    assert refused["retry_after_s"] > 0


async def test_a_call_that_is_said_twice_breaks_the_line_and_is_run_once(world: World) -> None:
    async def forever(_method: str, _params: Words, _hooks: Hooks) -> Words:
        await anyio.sleep_forever()
        return {}

    world.backend.act = forever
    await world.offer([ADD])
    await world.people.grant("tool")
    line = await world.bob.tunnels.open(world.ada.peer.id)
    call = {"call": 1, "server": "sums", "method": "tools/call", "params": {"name": "add"}}
    await line.send({**call, "params": {"name": "add", "arguments": {}}})
    with anyio.fail_after(LIMIT_S):
        while not world.backend.asked:
            await anyio.lowlevel.checkpoint()
        await line.send({**call, "params": {"name": "add", "arguments": {}}})
        assert [words async for words in line.messages()] == []
    assert len(world.backend.asked) == 1


async def test_a_caller_can_tell_that_a_definition_is_not_what_was_approved(world: World) -> None:
    await world.offer([ADD])
    await world.people.grant("tool")
    async with world.link(world.bob) as link:
        await link.tell({"changed": "sums", "tool": "add"})
        with anyio.fail_after(LIMIT_S):
            while not world.changed:
                await anyio.lowlevel.checkpoint()
    assert world.changed == [("sums", "add")]


async def test_a_removed_member_calls_nothing_on_an_open_line(world: World) -> None:
    await world.offer([ADD])
    await world.people.grant("tool")
    line = await world.bob.tunnels.open(world.ada.peer.id)
    world.ada.peer.trust.chain.members[world.bob.peer.identity.member].__dict__["removed"] = True
    await line.send(
        {"call": 1, "server": "sums", "method": "tools/call", "params": {"name": "add"}}
    )
    with anyio.fail_after(LIMIT_S):
        said = await anext(line.messages())
    assert said["refused"]["category"] == "forbidden"


async def test_a_result_too_large_for_the_mesh_is_said_to_be_and_the_line_goes_on(
    world: World,
) -> None:
    async def large(_method: str, params: Words, _hooks: Hooks) -> Words:
        return {"result": {"text": "x" * params["arguments"]["bytes"]}}

    world.backend.act = large
    await world.offer([ADD])
    await world.people.grant("tool")
    said = {"server": "sums", "method": "tools/call", "hops": 1}
    async with world.link(world.bob) as link:
        done = [
            await link.call(
                {**said, "params": {"name": "add", "arguments": {"bytes": size}}}, Hooks(), LIMIT_S
            )
            for size in (32 * 1024 * 1024, 5)
        ]
    refused = done[0]["refused"]
    assert (refused["code"], refused["category"]) == ("result_too_large", "too_much")
    assert "less at once" in refused["hint"]
    assert done[1]["result"] == {"text": "xxxxx"}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
async def test_a_result_that_is_no_json_is_said_to_be_none(world: World, number: float) -> None:
    async def strange(_method: str, _params: Words, _hooks: Hooks) -> Words:
        return {"result": {"number": number}}

    world.backend.act = strange
    await world.offer([ADD])
    await world.people.grant("tool")
    refused = (await world.call(world.bob))["refused"]
    assert (refused["code"], refused["category"]) == ("bad_result", "protocol_error")
    assert "Whoever offers the tool has to mend that" in refused["hint"]


async def test_many_calls_of_ones_own_at_once_are_each_answered_or_refused(world: World) -> None:
    release = anyio.Event()

    async def wait(_method: str, params: Words, _hooks: Hooks) -> Words:
        await release.wait()
        return {"result": {"number": params["arguments"]["number"]}}

    world.backend.act = wait
    await world.offer([ADD], "own")
    desk = await world.people.twin.join("desk")
    said = {"server": "sums", "method": "tools/call", "hops": 1}
    answered, refused = set[int](), list[str]()

    async with world.link(desk) as link, anyio.create_task_group() as tasks:

        async def call(number: int) -> None:
            params = {"name": "add", "arguments": {"number": number}}
            done = await link.call({**said, "params": params}, Hooks(), LIMIT_S)
            if "result" in done:
                answered.add(done["result"]["number"])
            else:
                refused.append(done["refused"]["code"])

        for number in range(256 + 20):
            tasks.start_soon(call, number)
        with anyio.fail_after(LIMIT_S):
            while len(refused) < 20 or len(world.backend.asked) < 256:
                await anyio.lowlevel.checkpoint()
        assert answered == set()
        release.set()
    assert refused == ["too_many_calls"] * 20
    assert answered == set(range(256))
