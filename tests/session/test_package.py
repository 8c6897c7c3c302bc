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
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=broker_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == ["claudemesh_mcp"]
