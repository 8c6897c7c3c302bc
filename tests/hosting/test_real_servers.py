"""Servers as people have them: each tool answers through the host as it does directly."""

from pathlib import Path

import anyio

from claudemesh_mcp.hosting.backend import Terms, running
from claudemesh_mcp.hosting.flights import Hooks, Raw
from tests.support.backends import found
from tests.support.backends.bare import bare, without_stamp
from tests.support.backends.real import EACH, REAL, timeless, tool

DEFINED = {
    "tools": ("tools/list", "tools"),
    "resources": ("resources/list", "resources"),
    "resource_templates": ("resources/templates/list", "resourceTemplates"),
    "prompts": ("prompts/list", "prompts"),
}


@EACH
async def test_all_that_a_server_says_is_what_it_says_directly(name: str, tmp_path: Path) -> None:
    real, folder = REAL[name], tmp_path / "work"
    launch, calls = real.launch(real.fresh(folder)), real.calls(folder)
    with bare(launch, is_stateless=real.is_stateless) as direct:
        lists = {kind: direct.ask(method, {}) for kind, (method, _) in DEFINED.items()}
        expected = [without_stamp(direct.ask(*one)) for one in calls]
    real.fresh(folder)
    with anyio.fail_after(90):
        async with running(launch, Terms()) as backend:
            assert backend.era.is_stateless is real.is_stateless
            definitions = await backend.definitions()
            answers = [await backend.call(*one) for one in calls]
    assert definitions == {
        kind: lists[kind].get("result", {}).get(name, []) for kind, (_, name) in DEFINED.items()
    }
    asked = {params["name"] for method, params in calls if method == "tools/call"}
    assert {one["name"] for one in definitions["tools"]} <= asked | real.left_out
    for said, answer, direct_answer in zip(calls, answers, expected, strict=True):
        assert (said, timeless(answer)) == (said, timeless(direct_answer))


async def test_progress_questions_and_refusals_of_the_reference_server() -> None:
    told, asked = list[Raw](), list[Raw]()

    async def progress(params: Raw) -> None:
        told.append(params)

    async def ask(_: str, params: Raw) -> Raw:
        asked.append(params)
        return {"result": {"action": "accept", "content": {"name": "Ada", "integer": 42}}}

    with anyio.fail_after(90):
        async with running(found.everything(), Terms()) as backend:
            method, params = tool("trigger-long-running-operation", duration=0.2, steps=4)
            params["_meta"] = {"progressToken": "mine"}
            await backend.call(method, params, Hooks(progress))
            method, params = tool("trigger-elicitation-request")
            answer = await backend.call(method, params, Hooks(ask=ask))
            names = {one["name"] for one in (await backend.definitions())["tools"]}
    assert [(one["progressToken"], one["progress"]) for one in told] == [
        ("mine", number) for number in (1, 2, 3, 4)
    ]
    assert "name" in asked[0]["requestedSchema"]["properties"]
    assert "Ada" in answer["result"]["content"][1]["text"]
    # It offers these only to clients that declare what they need.
    assert "trigger-elicitation-request" in names
    assert "trigger-sampling-request" not in names
