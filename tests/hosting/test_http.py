"""Servers that are reached by a URL, of both eras: as those that are started."""

import sys
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from claudemesh_mcp.hosting.backend import Terms, running
from claudemesh_mcp.hosting.flights import Hooks, Raw
from claudemesh_mcp.hosting.keeping import Condition, Kept, Pace, State
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_wire.errors import MeshError
from tests.support.backends import found
from tests.support.backends.byurl import KEY, PROGRAM, answers, listening
from tests.support.hosting import free_port


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    chosen = free_port()
    with listening([sys.executable, str(PROGRAM), str(chosen)], chosen):
        yield chosen


@pytest.fixture
async def launch(port: int) -> Launch:
    with anyio.fail_after(30):
        await answers(port)
    return Launch(url=f"http://127.0.0.1:{port}/mcp", headers=KEY)


@pytest.mark.parametrize(
    ("tool", "arguments"), [("large", {}), ("failing", {"why": "so"}), ("nothing", {})]
)
async def test_its_answers_are_those_that_others_get(
    launch: Launch, tool: str, arguments: Raw
) -> None:
    client = create_mcp_http_client(headers=KEY)
    transport = streamable_http_client(launch.url, http_client=client, max_sse_event_size=None)
    with anyio.fail_after(60):
        async with running(launch, Terms()) as backend:
            assert backend.era.is_stateless
            assert backend.instructions == "Ask by URL."
            await backend.definitions()
            answer = await backend.call("tools/call", {"name": tool, "arguments": arguments})
        async with client, Client(transport) as direct:
            expected = await direct.call_tool(tool, arguments)
    result = answer["result"]
    said = expected.model_dump(by_alias=True, mode="json", exclude_unset=True)
    said.pop("_meta", None)
    assert result == said


async def test_progress_and_changed_lists_come_by_url_too(launch: Launch) -> None:
    told, changed, heard = list[Raw](), list[str](), anyio.Event()

    async def progress(params: Raw) -> None:
        told.append(params)

    def hear(kind: str) -> None:
        changed.append(kind)
        heard.set()

    with anyio.fail_after(60):
        async with running(launch, Terms(list_changed=hear)) as backend:
            params = {"name": "steps", "arguments": {}, "_meta": {"progressToken": "mine"}}
            await backend.call("tools/call", params, Hooks(progress))
            while not changed:
                await backend.call("tools/call", {"name": "changed", "arguments": {}})
                with anyio.move_on_after(0.1):
                    await heard.wait()
    assert [(one["progressToken"], one["progress"]) for one in told] == [("mine", 1), ("mine", 2)]
    assert set(changed) == {"tools"}


async def test_a_key_that_is_missing_is_no_start(launch: Launch) -> None:
    with anyio.fail_after(60), pytest.raises(MeshError) as refused:
        async with running(Launch(url=launch.url), Terms()):
            pass
    assert refused.value.code == "not_an_mcp_server"
    assert "HTTP status 401 Unauthorized" in refused.value.reason


async def test_a_server_that_dies_in_a_call_may_have_run_it() -> None:
    port = free_port()
    with listening([sys.executable, str(PROGRAM), str(port)], port) as url:
        with anyio.fail_after(60):
            await answers(port)
            async with running(Launch(url=url, headers=KEY), Terms()) as backend:
                with pytest.raises(MeshError) as refused:
                    await backend.call("tools/call", {"name": "dying", "arguments": {}})
                assert refused.value.code == "outcome_unknown"


async def test_a_server_of_the_handshake_era_is_reached_by_url() -> None:
    port, told = free_port(), list[Raw]()
    everything = found.everything("streamableHttp")

    async def progress(params: Raw) -> None:
        told.append(params)

    async def ask(_: str, __: Raw) -> Raw:
        return {"result": {"action": "decline"}}

    with (
        listening([everything.command, *everything.args], port, PORT=str(port)) as url,
        anyio.fail_after(60),
    ):
        await answers(port)
        async with running(Launch(url=url), Terms()) as backend:
            assert backend.era.version == "2025-11-25"
            params = {
                "name": "trigger-long-running-operation",
                "arguments": {"duration": 0.2, "steps": 2},
                "_meta": {"progressToken": 7},
            }
            done = await backend.call("tools/call", params, Hooks(progress))
            asking = {"name": "trigger-elicitation-request", "arguments": {}}
            asked = await backend.call("tools/call", asking, Hooks(ask=ask))
    assert "completed" in done["result"]["content"][0]["text"]
    assert [one["progressToken"] for one in told] == [7, 7]
    assert "declined" in asked["result"]["content"][0]["text"]


async def test_a_server_that_forgot_the_session_is_connected_anew() -> None:
    port, everything = free_port(), found.everything("streamableHttp")
    command = [everything.command, *everything.args]
    call = {"name": "echo", "arguments": {"message": "hello"}}
    pauses, codes = list[float](), list[int]()

    again = anyio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await anyio.lowlevel.checkpoint()

    def report(condition: Condition) -> None:
        if condition.restarts == 1 and condition.state is State.RUNNING:
            again.set()

    far = Launch(url=f"http://127.0.0.1:{port}/mcp")
    kept = Kept("far", far, report=report, pace=Pace(pause=pause))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            with listening(command, port, PORT=str(port)):
                await answers(port)
                await tasks.start(kept.run)
                first = kept.backend
                await first.call("tools/call", call)
            with listening(command, port, PORT=str(port)):
                await answers(port)
                answer = await first.call("tools/call", call)
                codes.append(answer["error"]["code"])
                await first.ended.wait()
                await again.wait()
            tasks.cancel_scope.cancel()
    assert codes == [-32603]
    assert pauses == [1]
