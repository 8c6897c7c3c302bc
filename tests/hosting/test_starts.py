"""Servers that do not start: each says why, and what to do, and gives nothing secret away."""

import sys
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.hosting.backend import Terms, running
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_wire.errors import MeshError
from tests.support.backends.found import handmade
from tests.support.hosting import free_port


async def refusal(launch: Launch, timeout_s: float = 30) -> MeshError:
    """Give the error with which a server does not start."""
    with anyio.fail_after(60), pytest.raises(MeshError) as refused:
        async with running(launch, Terms(timeout_s=timeout_s)):
            pass
    return refused.value


def program(code: str) -> Launch:
    return Launch(command=sys.executable, args=("-c", code), env={"TOKEN": "very-secret"})


async def test_a_command_that_is_not_there_is_named() -> None:
    error = await refusal(Launch(command="no-such-server", args=("very-secret",)))
    assert error.code == "command_not_found"
    assert "no-such-server" in error.reason
    assert "very-secret" not in str(error)


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = await refusal(Launch(command=sys.executable, cwd=str(tmp_path / "nowhere")))
    assert error.code == "no_such_folder"
    assert "nowhere" in error.reason


async def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("hello", "utf-8")
    assert (await refusal(Launch(command=str(file)))).code == "not_startable"


async def test_a_server_that_exits_is_quoted() -> None:
    said = "import sys; sys.stderr.write('one\\ntwo\\nno licence found\\n'); sys.exit(2)"
    error = await refusal(program(said))
    assert error.code == "server_exited"
    assert error.reason.endswith("one\ntwo\nno licence found")


async def test_a_server_that_says_nothing_is_given_up() -> None:
    error = await refusal(program("import sys; sys.stdin.read()"), timeout_s=0.5)
    assert error.code == "server_not_answering"


@pytest.mark.parametrize(
    "answer",
    [
        '{**words, "error": {"code": -32601, "message": "no"}}',
        '{**words, "result": {}}',
        '{**words, "result": []}',
        '{**words, "error": "no"}',
        '{**words, "result": {"supportedVersions": 7, "protocolVersion": 7}}',
    ],
)
async def test_what_is_no_mcp_server_is_told_apart(answer: str) -> None:
    code = f"""
import json, sys
for line in sys.stdin:
    words = json.loads(line)
    words = {{"jsonrpc": "2.0", "id": words["id"]}}
    print("Welcome! This line is no JSON.")
    print(json.dumps({answer}), flush=True)
"""
    assert (await refusal(program(code))).code == "not_an_mcp_server"


async def test_a_command_that_repeats_what_it_hears_is_no_server() -> None:
    assert (await refusal(Launch(command="cat"))).code == "not_an_mcp_server"


async def test_a_server_that_ends_at_the_first_question_is_asked_otherwise() -> None:
    with anyio.fail_after(60):
        async with running(handmade("handshake", "hasty"), Terms()) as backend:
            assert backend.era.version == "2025-11-25"


@pytest.mark.parametrize(
    ("era", "option", "version"),
    [("handshake", "deaf", "2025-11-25"), ("stateless", "late", "2026-07-28")],
)
async def test_a_server_that_does_not_answer_the_first_question_is_asked_otherwise(
    era: str, option: str, version: str
) -> None:
    with anyio.fail_after(60):
        async with running(handmade(era, option), Terms(timeout_s=6)) as backend:
            assert backend.era.version == version


async def test_an_error_of_the_one_who_uses_it_comes_out_as_it_is() -> None:
    with anyio.fail_after(60), pytest.raises(LookupError):
        async with running(handmade("handshake"), Terms()):
            raise LookupError


async def test_a_url_where_nobody_is_says_so() -> None:
    error = await refusal(Launch(url=f"http://127.0.0.1:{free_port()}/mcp?key=very-secret"))
    assert error.code == "server_unreachable"
    assert "very-secret" not in str(error)
