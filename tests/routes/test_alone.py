"""The programs beside a session need little of the standard library and few modules of ours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import claudemesh_mcp
from claudemesh_mcp import peerfile, routes
from claudemesh_mcp.routes import facts
from tests.support.routing import ALONE, PROGRAMS, SESSION, Beside

ROOT = Path(claudemesh_mcp.__file__).parent.parent
MODULES = sorted(path.stem for path in Path(routes.__file__).parent.glob("*.py"))
OURS = {"claudemesh_mcp", "claudemesh_mcp.cleaning", "claudemesh_mcp.openrows"} | {
    "claudemesh_mcp.plain",
    "claudemesh_mcp.reports",
    "claudemesh_mcp.staleness",
    "claudemesh_mcp.routes",
    *(f"claudemesh_mcp.routes.{name}" for name in MODULES),
}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__init__"])
def test_a_module_of_the_routes_needs_the_standard_library_and_few_of_ours(name: str) -> None:
    # -I and -S: no folder of installed packages, as for a program that has to start at once.
    program = (
        "import json, sys; sys.path.append(sys.argv[1])\n"
        f"import claudemesh_mcp.routes.{name}\n"
        "print(json.dumps([one for one in sys.modules if one.startswith('claudemesh')]))"
    )
    command = [sys.executable, "-I", "-S", "-c", program, str(ROOT)]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert set(json.loads(done.stdout)) <= OURS


def imported(*command: str, said: bytes = b"", environ: dict[str, str] | None = None) -> set[str]:
    """Run Python alone; gives the modules that were imported, and those that were only tried."""
    started = [*ALONE, "-X", "importtime", *command]
    ran = subprocess.run(started, input=said, env=environ, capture_output=True, check=True)
    return {line.rpartition("|")[2].strip() for line in ran.stderr.decode().splitlines()}


@pytest.mark.parametrize(
    "event", ["SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd"]
)
def test_a_hook_imports_no_more_of_the_standard_library_than_sqlite_and_what_is_as_small(
    bob: Beside, event: str
) -> None:
    needed = imported("-c", "import os, sqlite3")
    small = {"__future__", "_json", "_sha2", "_sha256", "gc"}
    # What is shown is not all ASCII, is cut, and came back once before.
    text = "Grüße: a < b, List<int>; " * 100
    bob.put(text, priority="now", offers=1, handle="bücher")
    told = {"session_id": SESSION, "prompt": "Go on.", "source": "clear", "tool_use_id": "toolu_1"}
    hook = str(PROGRAMS / "hook.py")
    found = imported(hook, event, said=json.dumps(told).encode(), environ=bob.environ)
    assert (bob.log, len(bob.receipts())) == ("", 0)
    assert bob.states() == ["waiting" if event == "SessionEnd" else "handed"]
    assert {one for one in found - needed - small if not one.startswith("claudemesh_mcp")} == set()


def test_hooks_know_the_version_of_the_peer_file_that_sessions_write() -> None:
    assert peerfile.SCHEMA_VERSION == facts.FILE_VERSION
