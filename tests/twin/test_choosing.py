"""Which provider a call goes to, and what is said when none has answered it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh_mcp.calling.directory import Offered
from claudemesh_mcp.calling.links import Hooks
from claudemesh_mcp.calling.toolcalls import Wanted
from claudemesh_mcp.line import Line
from claudemesh_wire.errors import MeshError
from tests.support.calling import Caller, calling, hang_up, hosting
from tests.support.offering import ADD, Act, Host, Words, register
from tests.support.twin import Twin, a_mesh


@pytest.fixture
async def twin(tmp_path: Path) -> AsyncIterator[Twin]:
    async with a_mesh(tmp_path) as made:
        yield made


@pytest.fixture
async def ada(twin: Twin) -> Caller:
    return await twin.stack.enter_async_context(calling(await twin.join("ada")))


def refusing(code: str) -> Act:
    """Refuse every call by this code, as a host does."""

    async def refuse(line: Line, said: Words) -> None:
        why = {"code": code, "message": "Its server is not well.", "category": "unavailable"}
        await line.send({"done": said["call"], "refused": why})

    return refuse


async def test_of_a_call_that_arrived_nobody_can_say_whether_it_was_run(
    twin: Twin, ada: Caller
) -> None:
    bob, host = await hosting(twin, host=Host(hang_up))
    await hosting(twin, "cleo", Host(hang_up))
    error = await ada.refused()
    assert error.code == "outcome_unknown"
    assert len(host.heard) <= 1
    assert error.details["provider"] in {"bob/sums", "cleo/sums"}
    assert bob.is_connected


async def test_a_call_that_may_be_repeated_goes_to_the_next_provider(
    twin: Twin, ada: Caller
) -> None:
    dead, live = Host(hang_up), Host()
    await hosting(twin, "bob", dead)
    await hosting(twin, "cleo", live)
    for _ in range(2):
        result = await ada.call(is_repeatable=True)
        assert result["_meta"]["claudemesh/provider"]["handle"] == "cleo"
    assert len(live.heard) == 2


async def test_a_call_that_never_left_goes_to_the_next_provider(twin: Twin, ada: Caller) -> None:
    bob, _ = await hosting(twin, "bob")
    bob.tunnels.taker = None
    _, live = await hosting(twin, "cleo")
    for _ in range(2):
        result = await ada.call()
        assert result["_meta"]["claudemesh/provider"]["handle"] == "cleo"
    assert len(live.heard) == 2


def deaf_to_ends(text: str) -> str | None:
    """Keep from a caller that lines have ended, as when it is about to hear of it."""
    return None if " tunnels.ended " in text[:60] else text


async def test_on_a_line_that_has_ended_nothing_is_said_and_another_is_opened(
    twin: Twin, ada: Caller
) -> None:
    bob, host = await hosting(twin)
    await ada.call()
    twin.lie = deaf_to_ends
    await bob.tunnels.leave(host.lines[0], "It was idle.")
    result = await ada.call()
    assert result["_meta"]["claudemesh/provider"]["handle"] == "bob"
    assert (len(host.heard), len(host.lines)) == (2, 2)


async def test_who_went_while_its_line_seems_to_stand_is_said_to_be_away(
    twin: Twin, ada: Caller
) -> None:
    async with twin.open("bob") as bob:
        await bob.ready()
        Host().at(bob)
        await register(bob, "sums", [ADD])
        await ada.call()
        offered = await ada.offered()
        twin.lie = deaf_to_ends
    with pytest.raises(MeshError) as caught:
        await ada.calls.call(offered, Wanted("tools/call", {}), Hooks())
    assert (caught.value.code, caught.value.details["host"]) == ("peer_offline", "desk")


async def test_without_a_provider_that_is_here_nothing_is_run(twin: Twin, ada: Caller) -> None:
    bob, _ = await hosting(twin)
    offered = await ada.offered()
    await bob.depart()
    with pytest.raises(MeshError) as caught:
        await ada.calls.call(
            [Offered(one.registration, "bob", one.member, "desk", False, 5) for one in offered],  # noqa: FBT003 - its field
            Wanted("tools/call", {}),
            Hooks(),
        )
    assert caught.value.code == "peer_offline"
    assert caught.value.details == {"host": "desk", "since": "1970-01-01T00:00:00.005Z"}


@pytest.mark.parametrize("act", [hang_up, refusing("outcome_unknown")])
async def test_a_call_that_nobody_else_answers_is_said_to_have_perhaps_been_run(
    act: Act, twin: Twin, ada: Caller
) -> None:
    """By whom it is named, whether or not it might have been repeated."""
    await hosting(twin, "bob", Host(act))
    for is_repeatable in (True, False):
        error = await ada.refused(is_repeatable=is_repeatable)
        assert (error.code, error.details["provider"]) == ("outcome_unknown", "bob/sums")


async def test_what_a_second_provider_refuses_the_first_may_have_run(
    twin: Twin, ada: Caller
) -> None:
    """Neither answer says by itself that nothing was run."""
    lines = list[Line]()

    async def hang_up_or_refuse(line: Line, said: Words) -> None:
        lines.append(line)
        await (hang_up if len(lines) == 1 else refusing("unknown_tool"))(line, said)

    hosts = [await hosting(twin, name, Host(hang_up_or_refuse)) for name in ("bob", "cleo")]
    error = await ada.refused(is_repeatable=True)
    assert [len(host.heard) for _, host in hosts] == [1, 1]
    [first] = [mesh.peer.handle for mesh, host in hosts if host.lines[0] is lines[0]]
    assert (error.code, error.details["provider"]) == ("outcome_unknown", f"{first}/sums")


@pytest.mark.parametrize("code", ["outcome_unknown", "server_not_running"])
async def test_past_a_server_that_ended_goes_only_what_may_be_repeated(
    code: str, twin: Twin, ada: Caller
) -> None:
    lines = list[Line]()

    async def fail_once(line: Line, said: Words) -> None:
        lines.append(line)
        result = {"done": said["call"], "result": {}}
        await (refusing(code)(line, said) if len(lines) == 1 else line.send(result))

    hosts = [await hosting(twin, name, Host(fail_once)) for name in ("bob", "cleo")]
    result = await ada.call(is_repeatable=True)
    [second] = [mesh.peer.handle for mesh, host in hosts if host.lines[0] is lines[1]]
    assert result["_meta"]["claudemesh/provider"]["handle"] == second
    lines.clear()
    assert (await ada.refused()).code == code
    assert len(lines) == 1


async def test_a_server_that_asked_and_went_is_not_called_at_another_place(
    twin: Twin, ada: Caller
) -> None:
    """What it did before it asked, only it knows."""

    async def ask_more(line: Line, said: Words) -> None:
        wanted = {"a": {"method": "elicitation/create", "params": {"message": "who?"}}}
        result = {"resultType": "input_required", "inputRequests": wanted}
        await line.send({"done": said["call"], "result": result})

    hosts = [await hosting(twin, name, Host(ask_more)) for name in ("bob", "ida")]

    async def leave(_method: str, _params: Words) -> Words:
        [mesh] = [mesh for mesh, host in hosts if host.lines]
        mesh.tunnels.taker = None
        [line] = [line for _, host in hosts for line in host.lines]
        await mesh.tunnels.leave(line, "gone")
        return {"result": {"action": "accept"}}

    with pytest.raises(MeshError) as caught:
        await ada.call(Hooks(ask=leave))
    assert caught.value.code == "outcome_unknown"
    assert sum(len(host.heard) for _, host in hosts) == 1
