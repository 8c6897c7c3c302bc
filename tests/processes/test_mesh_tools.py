"""Real sessions that call what another member's session runs, and the commands beside them."""

import os
import pty
import shlex
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.sdk import Mesh
from tests.support.backends.bare import bare, without_stamp
from tests.support.backends.found import handmade
from tests.support.hosting import ok
from tests.support.lending import FORMS, Lender, answering, lending, without_provider
from tests.support.mcp_client import Client
from tests.support.mcp_process import session_of
from tests.support.offering import ADD, Words, register
from tests.support.shell import LIMIT_S, Shell
from tests.support.twohomes import joined

READS = {"annotations": {"readOnlyHint": True}}


@dataclass
class World:
    """A session of ada's that lends the server made by hand; bob's shell."""

    lender: Lender
    bob: Shell


@pytest.fixture
async def world(ada: Shell, bob: Shell, tmp_path: Path) -> AsyncIterator[World]:
    await anyio.to_thread.run_sync(joined, ada, bob)
    ok(await ada.runs("grant", "bob", "tool"))
    settings = Settings.load({"home": ada.home, "keyring": False}, environ={})
    async with Mesh.connect(settings=settings, name="ada") as mesh, lending(mesh) as lender:
        await lender.lend("hand", handmade("handshake", tmp_path / "said"), rich=READS, steps=READS)
        yield World(lender, bob)


@asynccontextmanager
async def calling(bob: Shell, **changed: Any) -> AsyncIterator[Client]:
    with anyio.fail_after(LIMIT_S):
        async with session_of(bob, "desk", **changed) as client:
            yield client


async def use(client: Client, tool: str, **arguments: Any) -> Words:
    asked = {"server": "hand", "tool": tool, "arguments": arguments}
    return await client.call("call_tool", **asked)


async def test_a_call_gives_what_the_server_gives_and_its_progress(world: World) -> None:
    with bare(handmade("handshake"), is_stateless=False) as direct:
        asked = {"name": "rich", "arguments": {"a": ["☃"]}}
        expected = without_stamp(direct.ask("tools/call", asked))["result"]
    async with calling(world.bob) as client:
        assert without_provider(await use(client, "rich", a=["☃"])) == expected
        number = client.post_call("call_tool", {"progressToken": 7}, server="hand", tool="steps")
        await client.answer(number)
        told = [one["params"] for one in client.heard("notifications/progress")]
    assert [(one["progressToken"], one["progress"]) for one in told] == [(7, 1), (7, 2)]


async def test_the_command_that_a_refused_call_names_lets_the_next_one_pass(world: World) -> None:
    async with calling(world.bob) as client:
        refused = (await use(client, "seen"))["structuredContent"]["error"]
        assert refused["code"] == "needs_approval"
        command = refused["hint"].rpartition("claudemesh ")[2]
        ok(await world.bob.runs(*shlex.split(command)))
        assert "isError" not in await use(client, "seen")
        ok(await world.bob.runs("mcp-server", "deny", "ada/hand", "seen"))
        assert (await use(client, "seen"))["structuredContent"]["error"]["code"] == "denied"


async def test_a_tool_for_one_session_or_group_is_approved_by_the_command_too(
    world: World,
) -> None:
    async with calling(world.bob) as client:
        await client.call("join", address="@ops")
        [me] = (await client.call("search_peers", query="desk"))["structuredContent"]["peers"]
        for name, viewer in {"grouped": "@ops", "single": me["peer"]}.items():
            await register(world.lender.mesh, name, [{**ADD, "name": "t"}], (viewer,))
            asked = {"server": name, "tool": "t"}
            refused = (await client.call("call_tool", **asked))["structuredContent"]["error"]
            assert refused["code"] == "needs_approval"
            ok(await world.bob.runs(*shlex.split(refused["hint"].rpartition("claudemesh ")[2])))
            listed = (await client.call("mesh_tools", server=name))["structuredContent"]
            assert [one["approval"] for one in listed["servers"][0]["tools"]] == ["allowed"]
    rows = ok(await world.bob.runs("mcp-server", "list", "--json")).json["offered"]
    assert {one["name"] for one in rows} == {"ada/grouped", "ada/hand", "ada/single"}
    called = await world.bob.runs("--json", "mcp-server", "call", "grouped", "t")
    assert (called.code, called.error["code"]) == (3, "unknown_server")
    assert "for a session of yours" in called.error["message"]


@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
async def test_the_user_is_asked_once_by_a_client_that_can(world: World, action: str) -> None:
    asked = {"server": "hand", "tool": "seen"}
    async with calling(world.bob, capabilities=FORMS) as client:
        number = client.post_call("call_tool", **asked)
        said = {"action": action, "content": {"allow": True}}
        [question] = await answering(client, {"result": said})
        first = (await client.answer(number))["result"]
        if action == "cancel":
            number = client.post_call("call_tool", **asked)
            await client.told("elicitation/create", 2)
        else:
            second = await client.call("call_tool", **asked)
            assert second.get("isError") == first.get("isError")
            assert len(client.heard("elicitation/create")) == 1
    assert "seen" in question["message"]
    assert "ada/hand" in question["message"]
    assert first.get("isError", False) is (action != "accept")


async def test_a_call_ends_after_the_time_that_was_said(world: World) -> None:
    bob = world.bob
    ok(await bob.runs("mcp-server", "approve", "hand", "waiting"))
    async with calling(bob) as client:
        asked = {"server": "hand", "tool": "waiting", "timeout_s": 1}
        error = (await client.call("call_tool", **asked))["structuredContent"]["error"]
        assert error["code"] == "outcome_unknown"
        wrong = await client.call("call_tool", **{**asked, "timeout_s": 0})
        assert wrong["structuredContent"]["error"]["code"] == "invalid"
    words = ("--json", "mcp-server", "call", "hand", "waiting", "--timeout")
    late = await bob.runs(*words, "1s")
    assert (late.code, late.error["code"]) == (1, "outcome_unknown")
    unclear = await bob.runs(*words, "soon")
    assert (unclear.code, unclear.error["code"]) == (2, "bad_duration")


async def test_the_command_line_calls_as_a_session_does(world: World) -> None:
    bob = world.bob
    tools = ok(await bob.runs("mcp-server", "tools", "rich", "--json")).json["servers"][0]["tools"]
    assert [(one["name"], one["approval"]) for one in tools] == [("rich", "allowed")]
    assert "needs approval" in ok(await bob.runs("mcp-server", "tools")).out
    called = ok(await bob.runs("mcp-server", "call", "hand", "rich", "--arg", "a=[1]", "--json"))
    assert called.json["structuredContent"]["given"] == {"a": [1]}
    piped = await bob.runs("mcp-server", "call", "hand", "rich", "-", stdin=b'{"b": "x"}')
    assert "[image image/png]" in ok(piped).out
    refused = await bob.runs("mcp-server", "call", "hand", "failing", "--json")
    assert (refused.code, refused.error["code"]) == (4, "needs_approval")
    ok(await bob.runs("mcp-server", "approve", "hand", "failing"))
    ok(await bob.runs("mcp-server", "approve", "hand", "refusing"))
    failed = await bob.runs("mcp-server", "call", "hand", "failing", "{}")
    assert (failed.code, failed.out) == (1, "it went wrong\n")
    error = (await bob.runs("mcp-server", "call", "hand", "refusing", "--json")).error
    assert (error["code"], error["details"]["error"]["code"]) == ("server_error", -32042)
    wrong = await bob.runs("mcp-server", "call", "hand", "rich", "[1]")
    assert wrong.code == 2


def at_a_terminal(
    bob: Shell, answer: bytes, *words: str, **environment: str
) -> tuple[int, str, str]:
    """Run a command whose user answers; gives its exit code, its data and what it said."""
    screen, terminal = pty.openpty()
    with os.fdopen(screen, "r+b", buffering=0) as user:
        with subprocess.Popen(
            bob.command(*words),
            env=bob.environment(**environment),
            cwd=bob.folder,
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=terminal,
        ) as process:
            user.write(answer)
            data, _ = process.communicate(timeout=LIMIT_S)
        said = os.read(screen, 65_536).decode()
        os.close(terminal)
    return process.returncode, data.decode(), said


async def test_a_user_at_a_terminal_is_asked_and_sees_how_far_a_call_is(world: World) -> None:
    async def run(answer: bytes, tool: str) -> tuple[int, str, str]:
        words = ("mcp-server", "call", "hand", tool)
        return await anyio.to_thread.run_sync(at_a_terminal, world.bob, answer, *words)

    code, _, said = await run(b"\n", "seen")
    assert (code, "wants to call the tool seen of max" in said) == (4, True)
    assert "Let it be called?" in said
    assert "mcp-server approve ada/hand seen" in said
    assert (await run(b"y\n", "seen"))[:2] == (0, "seen\n")
    ok(await world.bob.runs("mcp-server", "call", "hand", "seen"))
    code, data, said = await run(b"", "steps")
    assert (code, data) == (0, "done\n")
    assert said.splitlines()[:2] == ["1/2", "2/2"]


async def test_a_model_that_makes_a_terminal_is_not_asked_there(world: World) -> None:
    def run() -> tuple[int, str, str]:
        words = ("mcp-server", "call", "hand", "seen")
        return at_a_terminal(world.bob, b"y\n", *words, CLAUDECODE="1")

    code, _, said = await anyio.to_thread.run_sync(run)
    assert (code, "wants to call" in said) == (4, False)
    assert "mcp-server approve ada/hand seen" in said
