"""Servers as people have them, offered by one session and called by another: as if directly."""

import json
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.calling.desk import Desk, Going
from claudemesh_mcp.calling.directory import find
from claudemesh_mcp.calling.links import Hooks
from claudemesh_mcp.calling.toolcalls import PROVIDER, BackendError
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.wishes import ServerWish
from claudemesh_wire.errors import MeshError
from tests.support.backends.bare import ANSWER, bare, without_stamp
from tests.support.backends.real import EACH, REAL, Call, Words, timeless
from tests.support.live import a_moment
from tests.support.twin import a_mesh

_LIMIT_S = 90


async def answer(_method: str, _params: Words) -> Words:
    return {"result": ANSWER}


ANSWERING = Going(Hooks(ask=answer))
DEFINED = {
    "tools": ("tools/list", "tools"),
    "resources": ("resources/list", "resources"),
    "resource_templates": ("resources/templates/list", "resourceTemplates"),
    "prompts": ("prompts/list", "prompts"),
}


async def called(desk: Desk, server: str, one: Call) -> Words:
    """Give what a call comes to: ``result``, ``error``, or the code of our own refusal."""
    params = one.params
    try:
        match one.method:
            case "tools/call":
                result = await desk.call_tool(
                    server, params["name"], params["arguments"], ANSWERING
                )
            case "resources/read":
                result = await desk.read_resource(server, params["uri"], Going())
            case _:
                result = await desk.get_prompt(server, params["name"], params["arguments"], Going())
    except BackendError as answered:
        return {"error": answered.error}
    except MeshError as refused:
        return {"refused": refused.code}
    assert result["_meta"].pop(PROVIDER)["server"] == server
    return {"result": {key: one for key, one in result.items() if key != "_meta" or one}}


@EACH
async def test_each_tool_gives_through_the_mesh_what_it_gives_directly(
    name: str, tmp_path: Path
) -> None:
    real, folder = REAL[name], tmp_path / "work"
    launch, calls = real.launch(real.fresh(folder)), real.calls(folder)
    with bare(launch, is_stateless=real.is_stateless) as direct:
        lists = {kind: direct.ask(method, {}) for kind, (method, _) in DEFINED.items()}
        expected: list[Words] = [
            {"refused": one.refused}
            if one.refused
            else timeless(without_stamp(direct.ask(one.method, one.params)))
            for one in calls
        ]
    real.fresh(folder)
    with anyio.fail_after(_LIMIT_S):
        async with a_mesh(tmp_path / "mesh") as twin:
            ada, bob = await twin.join("ada"), await twin.join("bob")
            await ada.servers.offering.register(ServerWish(name, launch))
            offered = find(await bob.servers.desk.offers(), name)[0]
            answers = [timeless(await called(bob.servers.desk, name, one)) for one in calls]
    definitions = offered.registration.definitions
    assert definitions == {
        kind: lists[kind].get("result", {}).get(key, []) for kind, (_, key) in DEFINED.items()
    }
    asked = {one.params["name"] for one in calls if one.method == "tools/call"}
    assert {one["name"] for one in definitions["tools"]} <= asked
    for said, answer, direct_answer in zip(calls, answers, expected, strict=True):
        assert (said, answer) == (said, direct_answer)


@pytest.mark.parametrize("size", [5_000_000])
async def test_five_megabytes_come_through_whole(size: int, tmp_path: Path) -> None:
    real, folder = REAL["filesystem"], tmp_path / "work"
    text = "0123456789☃" * (size // 13)
    (real.fresh(folder) / "large.txt").write_text(text, "utf-8")
    with anyio.fail_after(_LIMIT_S):
        async with a_mesh(tmp_path / "mesh") as twin:
            ada, bob = await twin.join("ada"), await twin.join("bob")
            await ada.servers.offering.register(ServerWish("files", real.launch(folder)))
            path = str(folder / "large.txt")
            result = await bob.servers.call("files", "read_text_file", {"path": path})
    assert result["content"][0]["text"] == text
    assert result["structuredContent"]["content"] == text


def heard_by(launch: Launch, file: Path) -> Launch:
    """Start a server so that what it is told stands in a file."""
    both = ("-c", 'tee "$0" | "$@"', str(file), launch.command, *launch.args)
    return replace(launch, command="sh", args=both)


async def test_progress_and_cancellation_go_through_the_mesh(tmp_path: Path) -> None:
    real, said, told, begun = REAL["everything"], tmp_path / "said", list[Words](), anyio.Event()
    tool = "trigger-long-running-operation"

    def begin(_: Words) -> None:
        begun.set()

    def lines() -> list[Words]:
        return [json.loads(line) for line in said.read_text("utf-8").splitlines()]

    with anyio.fail_after(_LIMIT_S):
        async with a_mesh(tmp_path / "mesh") as twin:
            ada, bob = await twin.join("ada"), await twin.join("bob")
            desk = bob.servers.desk
            launch = heard_by(real.launch(real.fresh(tmp_path / "work")), said)
            await ada.servers.offering.register(ServerWish("every", launch))
            short, long = {"duration": 0.4, "steps": 4}, {"duration": 600, "steps": 6000}
            done = await desk.call_tool("every", tool, short, Going(Hooks(progress=told.append)))
            async with anyio.create_task_group() as tasks:
                going = Going(Hooks(progress=begin))
                tasks.start_soon(desk.call_tool, "every", tool, long, going)
                await begun.wait()
                tasks.cancel_scope.cancel()
            while lines()[-1]["method"] != "notifications/cancelled":
                await a_moment()
            *_, called, cancelled = lines()
    assert "completed" in done["content"][0]["text"]
    assert [(one["progress"], one["total"]) for one in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert called["params"]["arguments"] == long
    assert cancelled["params"]["requestId"] == called["id"]
