"""The reference server, hosted: what it says while a call runs, and what it is not offered."""

import anyio

from claudemesh_mcp.hosting.backend import Terms, running
from claudemesh_mcp.hosting.flights import Hooks, Raw
from tests.support.backends import found
from tests.support.backends.real import tool


async def test_progress_questions_and_refusals_of_the_reference_server() -> None:
    told, asked = list[Raw](), list[Raw]()

    async def progress(params: Raw) -> None:
        told.append(params)

    async def ask(_: str, params: Raw) -> Raw:
        asked.append(params)
        return {"result": {"action": "accept", "content": {"name": "Ada", "integer": 42}}}

    with anyio.fail_after(90):
        async with running(found.everything(), Terms()) as backend:
            method, params, _ = tool("trigger-long-running-operation", duration=0.2, steps=4)
            params["_meta"] = {"progressToken": "mine"}
            await backend.call(method, params, Hooks(progress))
            method, params, _ = tool("trigger-elicitation-request")
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
