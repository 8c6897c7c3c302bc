"""The door for Python programs: ``from claudemesh_mcp import Mesh``."""

import subprocess
import sys

import pytest

import claudemesh_mcp
from claudemesh_mcp.config import broker_environment
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire import VERSION


def test_the_package_gives_the_mesh_and_the_version() -> None:
    assert claudemesh_mcp.Mesh is Mesh
    assert claudemesh_mcp.__version__ == VERSION
    assert dir(claudemesh_mcp) == ["Mesh", "__version__"]


def test_the_package_has_nothing_else_at_its_door() -> None:
    with pytest.raises(AttributeError):
        _ = claudemesh_mcp.Client  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_more() -> None:
    code = "import sys, claudemesh_mcp; print(*(n for n in sys.modules if 'claudemesh' in n))"
    assert _printed(code).split() == ["claudemesh_mcp"]


@pytest.mark.parametrize("words", [["--help"], ["send", "--help"], ["--version"], ["sned"]])
def test_a_command_that_does_nothing_imports_nothing_for_doing_it(words: list[str]) -> None:
    code = (
        "import sys\n"
        "from claudemesh_mcp.cli import run\n"
        f"run({words})\n"
        "print('imported:', *{name.partition('.')[0] for name in sys.modules})"
    )
    _, _, imported = _printed(code).rpartition("imported: ")
    assert "typer" in imported.split()
    assert {"asyncio", "cryptography", "sqlite3", "websockets"}.isdisjoint(imported.split())


def test_the_status_line_of_the_console_script_imports_nothing_but_itself() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from claudemesh_mcp.__main__ import main\n"
        "main(['statusline'])\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    wanted = ["claudemesh_mcp", "claudemesh_mcp.__main__", "claudemesh_mcp.statusline"]
    assert _printed(code).split() == wanted


def _printed(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=broker_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
