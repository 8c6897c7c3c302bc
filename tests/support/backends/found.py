"""Where the servers are that tests host: those of PyPI, those of npm, and the one by hand.

``install.sh test`` puts those of npm beside the test environment; ``package-lock.json`` here pins
them.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from claudemesh_mcp.config import broker_environment
from claudemesh_mcp.hosting.launch import Launch
from tests.support.claude.client import is_required

_HANDMADE: Final = Path(__file__).with_name("handmade.py")
_PACKAGES: Final = Path(sys.prefix) / "cache" / "backends" / "node_modules"
_EVERYTHING: Final = _PACKAGES / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
_KEPT: Final = {"HOME", "PATH"}


def environment() -> dict[str, str]:
    """Give the little that a server's environment needs."""
    return {name: value for name, value in broker_environment().items() if name in _KEPT}


def _lacking() -> str:
    if not shutil.which("node"):
        return "node is not installed"
    if not _EVERYTHING.exists():
        return "server-everything is not installed: ./install.sh test gets it when npm can"
    return ""


def everything(way: str = "stdio") -> Launch:
    """The reference server of the handshake era, in TypeScript; without it the test ends here."""
    if missing := _lacking():
        (pytest.fail if is_required() else pytest.skip)(missing)
    return Launch(command="node", args=(str(_EVERYTHING), way))


def python(module: str, *args: str) -> Launch:
    """A server that is an installed Python module."""
    return Launch(command=sys.executable, args=("-m", module, *args))


def handmade(era: str, *options: object) -> Launch:
    """The server by hand: ``handshake`` or ``stateless``."""
    return Launch(
        command=sys.executable, args=(str(_HANDMADE), era, *(str(one) for one in options))
    )
