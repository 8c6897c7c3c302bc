"""Servers as people have them: each tool answers through the host as it does directly."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.hosting.backend import Terms, running
from claudemesh_mcp.hosting.flights import Hooks, Raw
from claudemesh_mcp.hosting.launch import Launch
from tests.support.backends import found
from tests.support.backends.bare import bare, without_stamp

DEFINED = {
    "tools": ("tools/list", "tools"),
    "resources": ("resources/list", "resources"),
    "resource_templates": ("resources/templates/list", "resourceTemplates"),
    "prompts": ("prompts/list", "prompts"),
}
Calls = list[tuple[str, Raw]]


def tool(name: str, **arguments: Any) -> tuple[str, Raw]:
    return ("tools/call", {"name": name, "arguments": arguments})


def everything(_: Path) -> tuple[Launch, Calls]:
    return found.everything(), [
        tool("echo", message="hello"),
        tool("get-annotated-message", messageType="error", includeImage=True),
        tool("get-resource-links", count=3),
        tool("get-structured-content", location="New York"),
        tool("get-sum", a=1, b=2),
        tool("get-sum", a="one"),
        tool("get-tiny-image"),
        tool("trigger-long-running-operation", duration=0.1, steps=2),
        tool("no-such-tool"),
        ("prompts/get", {"name": "simple-prompt"}),
        ("prompts/get", {"name": "args-prompt", "arguments": {"city": "Paris", "state": "Texas"}}),
        ("prompts/get", {"name": "no-such-prompt"}),
        ("resources/read", {"uri": "demo://resource/static/document/architecture.md"}),
        ("resources/read", {"uri": "no://such"}),
        (
            "completion/complete",
            {
                "ref": {"type": "ref/prompt", "name": "completable-prompt"},
                "argument": {"name": "department", "value": "E"},
            },
        ),
    ]


def time(_: Path) -> tuple[Launch, Calls]:
    convert = {"source_timezone": "Europe/Berlin", "target_timezone": "Asia/Tokyo"}
    return found.python("mcp_server_time", "--local-timezone", "UTC"), [
        tool("convert_time", **convert, time="16:30"),
        tool("convert_time", **convert, time="soon"),
        tool("get_current_time", timezone="No/Where"),
        tool("get_current_time"),
        tool("no_such_tool"),
    ]


def git(folder: Path) -> tuple[Launch, Calls]:
    here = str(folder)
    for command in (
        ["init", "--quiet", "--initial-branch", "main"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-ma"],
    ):
        subprocess.run(["git", "-C", here, *command], check=True)
    (folder / "ünïcode.txt").write_text("☃\n", "utf-8")
    return found.python("mcp_server_git", "--repository", here), [
        tool("git_status", repo_path=here),
        tool("git_log", repo_path=here, max_count=3),
        tool("git_diff_unstaged", repo_path=here),
        tool("git_show", repo_path=here, revision="HEAD"),
        tool("git_branch", repo_path=here, branch_type="local"),
        tool("git_show", repo_path=here, revision="nowhere"),
        tool("git_status", repo_path="/"),
    ]


SERVERS = pytest.mark.parametrize(
    ("server", "is_stateless"),
    [(everything, False), (time, True), (git, True)],
)


@SERVERS
async def test_all_that_a_server_says_is_what_it_says_directly(
    server: Callable[[Path], tuple[Launch, Calls]], tmp_path: Path, *, is_stateless: bool
) -> None:
    launch, calls = server(tmp_path)
    with bare(launch, is_stateless=is_stateless) as direct:
        lists = {kind: direct.ask(method, {}) for kind, (method, _) in DEFINED.items()}
        expected = [without_stamp(direct.ask(*one)) for one in calls]
    with anyio.fail_after(90):
        async with running(launch, Terms()) as backend:
            assert backend.era.is_stateless is is_stateless
            definitions = await backend.definitions()
            answers = [await backend.call(*one) for one in calls]
    assert definitions == {
        kind: lists[kind].get("result", {}).get(name, []) for kind, (_, name) in DEFINED.items()
    }
    assert definitions["tools"]
    for said, answer, direct_answer in zip(calls, answers, expected, strict=True):
        assert (said, answer) == (said, direct_answer)


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
