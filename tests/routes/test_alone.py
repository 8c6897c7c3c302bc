"""The programs beside a session need the standard library and few modules of ours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import claudemesh_mcp
from claudemesh_mcp import peerfile, routes
from claudemesh_mcp.routes import facts

ROOT = Path(claudemesh_mcp.__file__).parent.parent
MODULES = sorted(path.stem for path in Path(routes.__file__).parent.glob("*.py"))
OURS = {"claudemesh_mcp", "claudemesh_mcp.cleaning", "claudemesh_mcp.openrows"} | {
    "claudemesh_mcp.reports",
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


def test_hooks_know_the_version_of_the_peer_file_that_sessions_write() -> None:
    assert peerfile.SCHEMA_VERSION == facts.FILE_VERSION
