"""The commands about tools of other sessions, as real processes beside a session that offers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.sdk import Mesh
from tests.support.offering import Host, register
from tests.support.shell import Shell, shell_in

ADD = {"name": "add", "description": "Adds\x1b[2J numbers.", "inputSchema": {"type": "object"}}


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    """A home in which the session ada offers the server sums."""
    with shell_in(tmp_path) as shell:
        settings = Settings.load({"home": shell.home, "keyring": False}, environ={})
        async with Mesh.connect(settings=settings, name="ada") as ada:
            Host().at(ada)
            await register(ada, "sums", [ADD])
            yield shell


async def test_a_tool_is_denied_and_approved_again_as_it_is_now(shell: Shell) -> None:
    before = await shell.runs("mcp-server", "diff", "sums", "add")
    assert (before.code, "allowed" in before.err) == (0, True)
    assert r'"description": "Adds\u001b[2J numbers."' in before.out
    denied = await shell.runs("mcp-server", "deny", "ada/sums", "add")
    assert (denied.code, "is denied" in denied.err) == (0, True)
    assert "Adds numbers." in denied.err
    assert "denied" in (await shell.runs("mcp-server", "diff", "sums", "add")).err
    assert (await shell.runs("mcp-server", "approve", "sums", "add")).code == 0
    assert "allowed" in (await shell.runs("mcp-server", "diff", "sums", "add")).err


async def test_a_tool_that_there_is_not_is_told_with_a_near_one(shell: Shell) -> None:
    refused = await shell.runs("--json", "mcp-server", "approve", "ada/sums", "ad")
    assert (refused.code, refused.error["code"]) == (3, "unknown_tool")
    assert "add" in refused.error["hint"]


async def test_what_is_refused_names_the_command_and_no_tool_of_a_model(shell: Shell) -> None:
    for words in [("approve", "sums", "quite other"), ("call", "nobody", "add")]:
        refused = await shell.runs("--json", "mcp-server", *words)
        assert refused.code == 3
        assert "claudemesh mcp-server tools" in refused.error["hint"]
        assert "mesh_tools" not in refused.error["hint"]
