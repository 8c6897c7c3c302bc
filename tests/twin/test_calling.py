"""Calls from one session to a server that another offers, as the caller sees them."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.calling.links import Hooks
from claudemesh_mcp.calling.toolcalls import BackendError, is_repeatable
from claudemesh_mcp.line import Line
from claudemesh_wire.errors import MeshError
from tests.support.broker import LIMIT_S
from tests.support.calling import Caller, calling, hosting
from tests.support.offering import ADD, Host, Words, register
from tests.support.twin import Twin, a_mesh


@pytest.fixture
async def twin(tmp_path: Path) -> AsyncIterator[Twin]:
    async with a_mesh(tmp_path) as made:
        yield made


@pytest.fixture
async def ada(twin: Twin) -> Caller:
    return await twin.stack.enter_async_context(calling(await twin.join("ada")))


async def test_a_call_gives_the_servers_result_and_who_gave_it(twin: Twin, ada: Caller) -> None:
    _, host = await hosting(twin)
    result = await ada.call(params={"name": "add", "arguments": {"a": 1}})
    assert result["said"] == {"name": "add", "arguments": {"a": 1}}
    provider = result["_meta"]["claudemesh/provider"]
    assert (provider["handle"], provider["server"]) == ("bob", "sums")
    [said] = host.heard
    assert (said["server"], said["method"], said["hops"]) == ("sums", "tools/call", 1)


async def test_calls_share_a_line_and_do_not_wait_for_each_other(twin: Twin, ada: Caller) -> None:
    held = anyio.Event()

    async def slow_first(line: Line, said: Words) -> None:
        if said["params"]["name"] == "slow":
            await held.wait()
        await line.send({"done": said["call"], "result": {"name": said["params"]["name"]}})

    _, host = await hosting(twin, host=Host(slow_first))
    names: list[str] = []

    async def note(name: str) -> None:
        names.append((await ada.call(params={"name": name}))["name"])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(note, "slow")
        await host.until(lambda heard: len(heard) == 1)
        await note("quick")
        held.set()
    assert (names, len(host.lines)) == (["quick", "slow"], 1)


async def test_what_the_server_says_meanwhile_comes_to_who_called(twin: Twin, ada: Caller) -> None:
    async def talk(line: Line, said: Words) -> None:
        number = said["call"]
        await line.send({"progress": number, "params": {"progress": 1, "total": 2}})
        await line.send({"log": number, "params": {"level": "info", "data": "so far"}})
        await line.send({"ask": 7, "call": number, "method": "elicitation/create", "params": {}})

    _, host = await hosting(twin, host=Host(talk))
    heard: list[Any] = []

    async def answer(method: str, params: Words) -> Words:
        heard.append((method, params))
        return {"result": {"action": "accept"}}

    hooks = Hooks(heard.append, heard.append, answer)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ada.call, hooks)
        await host.until(lambda said: any("answered" in one for one in said))
        tasks.cancel_scope.cancel()
    assert heard == [
        {"progress": 1, "total": 2},
        {"level": "info", "data": "so far"},
        ("elicitation/create", {}),
    ]
    assert {"answered": 7, "result": {"action": "accept"}} in host.heard


async def test_a_server_can_not_ask_without_end(twin: Twin, ada: Caller) -> None:
    async def nag(line: Line, said: Words) -> None:
        for number in range(70):
            asked = {"ask": number, "call": said["call"], "method": "elicitation/create"}
            await line.send({**asked, "params": {}})

    _, host = await hosting(twin, host=Host(nag))
    times = 0

    async def answer(_method: str, _params: Words) -> Words:
        nonlocal times
        times += 1
        return {"result": {}}

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ada.call, Hooks(ask=answer))
        await host.until(lambda said: sum("answered" in one for one in said) == 70)
        tasks.cancel_scope.cancel()
    refused = [one["error"] for one in host.heard if "error" in one]
    assert (times, len(refused)) == (64, 6)
    assert refused[0] == {"code": -32603, "message": "A call may ask 64 times."}


async def test_a_cancelled_call_is_cancelled_over_there(twin: Twin, ada: Caller) -> None:
    async def never(_line: Line, _said: Words) -> None:
        await anyio.sleep_forever()

    _, host = await hosting(twin, host=Host(never))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ada.call)
        await host.until(lambda heard: len(heard) == 1)
        tasks.cancel_scope.cancel()
    with anyio.fail_after(LIMIT_S):
        await host.until(lambda heard: len(heard) == 2)
    assert host.heard[1] == {"cancel": host.heard[0]["call"], "reason": "cancelled"}


async def test_a_caller_that_gives_up_while_it_still_speaks_takes_no_other_along(
    twin: Twin, ada: Caller
) -> None:
    release = anyio.Event()

    async def wait(line: Line, said: Words) -> None:
        await release.wait()
        await line.send({"done": said["call"], "result": {}})

    _, host = await hosting(twin, host=Host(wait))
    results: list[Words] = []

    async def keep() -> None:
        results.append(await ada.call())

    async with anyio.create_task_group() as others:
        others.start_soon(keep)
        await host.until(lambda heard: len(heard) == 1)
        speaks = anyio.Event()

        def hear(text: str) -> str:
            if " tunnels.came " in text[:60] and len(text) > 100_000:
                speaks.set()
            return text

        twin.lie = hear
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(ada.call, params={"name": "add", "text": "x" * 2_000_000}))
            await speaks.wait()
            tasks.cancel_scope.cancel()
        release.set()
    assert [sorted(one) for one in results] == [["_meta"]]
    assert len(host.lines) == 1


async def test_an_error_of_the_server_comes_as_it_was(twin: Twin, ada: Caller) -> None:
    error = {"code": -32602, "message": "no such thing", "data": {"at": [1]}, "more": True}

    async def fail(line: Line, said: Words) -> None:
        await line.send({"done": said["call"], "error": error})

    await hosting(twin, host=Host(fail))
    with pytest.raises(BackendError) as caught:
        await ada.call()
    assert caught.value.error == error


async def test_a_refusal_of_the_host_is_the_callers(twin: Twin, ada: Caller) -> None:
    refused = {"code": "rate_limited", "message": "Too many.", "hint": "", "category": "too_much"}

    async def refuse(line: Line, said: Words) -> None:
        await line.send({"done": said["call"], "refused": {**refused, "retry_after_s": 2}})

    await hosting(twin, host=Host(refuse))
    error = await ada.refused()
    assert (error.code, error.category, error.retry_after_s) == ("rate_limited", "too_much", 2)


async def test_a_call_that_takes_too_long_is_stopped_and_its_outcome_unknown(
    twin: Twin, ada: Caller
) -> None:
    async def never(_line: Line, _said: Words) -> None:
        await anyio.sleep_forever()

    _, host = await hosting(twin, host=Host(never))
    error = await ada.refused(timeout_s=0.01)
    assert error.code == "outcome_unknown"
    with anyio.fail_after(LIMIT_S):
        await host.until(lambda heard: len(heard) == 2)
    assert host.heard[1]["reason"] == "timeout"


async def test_a_call_does_not_go_round_in_circles(ada: Caller, twin: Twin) -> None:
    _, host = await hosting(twin)
    assert (await ada.refused(hops=4)).code == "too_many_hops"
    assert host.heard == []


async def test_of_two_servers_of_one_name_one_says_which(twin: Twin, ada: Caller) -> None:
    await hosting(twin)
    cleo = await twin.join("cleo")
    await register(cleo, "sums", [{**ADD, "description": "another"}])
    with pytest.raises(MeshError) as caught:
        await ada.offered()
    assert caught.value.code == "ambiguous_server"
    assert caught.value.details["candidates"] == ["bob/sums", "cleo/sums"]
    [meant] = await ada.offered("cleo/sums")
    assert meant.tool("add")["description"] == "another"


@pytest.mark.parametrize(("name", "hint"), [("sum", "sums"), ("nothing", "mesh_tools")])
async def test_an_unknown_server_is_told_with_a_near_one(
    twin: Twin, ada: Caller, name: str, hint: str
) -> None:
    await hosting(twin)
    with pytest.raises(MeshError) as caught:
        await ada.offered(name)
    assert caught.value.code == "unknown_server"
    assert hint in caught.value.hint


async def test_a_registration_that_was_altered_is_left_out(twin: Twin, ada: Caller) -> None:
    await hosting(twin)
    [(blob,)] = await twin.broker.sql("SELECT registration FROM mcp_servers")
    forged = blob.replace(b"add", b"bad")
    store = twin.broker.parts.store
    await store.write(lambda sql: sql.execute("UPDATE mcp_servers SET registration = ?", forged))
    assert await ada.directory.read(await ada.mesh.ready()) == []
    assert any(one.code == "forged_registration" for one in ada.mesh.peer.problems)


# What a host says in the place of an answer, and what the caller makes of it.
NONSENSE: list[tuple[Words, str]] = [
    ({"result": 7}, "malformed"),
    ({"result": ["content"]}, "malformed"),
    ({"result": None}, "malformed"),
    ({}, "refused"),
    ({"refused": "no"}, "refused"),
    ({"refused": {"code": 7, "category": [], "details": "x", "retry_after_s": "soon"}}, "7"),
    ({"done": "1"}, "outcome_unknown"),
    ({"done": None}, "outcome_unknown"),
]


@pytest.mark.parametrize(("nonsense", "code"), NONSENSE)
async def test_what_a_host_answers_that_makes_no_sense_is_no_result(
    twin: Twin, ada: Caller, nonsense: Words, code: str
) -> None:
    async def answer(line: Line, said: Words) -> None:
        number = said["call"]
        await line.send({"done": number + 1000, "result": {}})
        await line.send({"progress": number, "params": [1]})
        await line.send({"ask": 1, "call": number + 1000, "method": None})
        await line.send({"done": number, **nonsense})

    _, host = await hosting(twin, host=Host(answer))
    assert (await ada.refused()).code == code
    host.act = Host().act
    assert (await ada.call())["said"] == {"name": "add"}


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (None, False),
        ({}, False),
        ({"readOnlyHint": True}, True),
        ({"idempotentHint": True}, True),
        ({"readOnlyHint": "yes"}, False),
        ([], False),
    ],
)
def test_only_what_says_so_may_be_run_twice(annotations: Any, *, expected: bool) -> None:
    assert is_repeatable({"name": "x", "annotations": annotations}) is expected
