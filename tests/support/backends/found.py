"""Where the servers are that tests host: those of PyPI, those of npm, and the one by hand.

``install.sh test`` puts those of npm, and the one that wants an older ``mcp``, beside the test
environment; ``package-lock.json`` and ``old-mcp.lock`` here pin them.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from claudemesh_mcp.hosting.launch import Launch
from tests.support.claude.client import is_required

_HANDMADE: Final = Path(__file__).with_name("handmade.py")
_CACHE: Final = Path(sys.prefix) / "cache"
_KEPT: Final = ("HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER")


def environment() -> dict[str, str]:
    """Give the little that a server's environment needs."""
    given = os.environ  # noqa: TID251 - handed on to programs that are not ours
    return {name: given[name] for name in _KEPT if name in given}


def _installed(path: Path, program: str) -> str:
    """Give a path, if the program that runs it is there too; else the test ends here."""
    missing = ""
    if not shutil.which(program):
        missing = f"{program} is not installed"
    elif not path.exists():
        missing = f"{path.name} is not installed: ./install.sh test gets it when it can"
    if missing:
        (pytest.fail if is_required() else pytest.skip)(missing)
    return str(path)


def npm(package: str, *args: str, **env: str) -> Launch:
    """A server of npm's `@modelcontextprotocol`; without it the test ends here."""
    folder = _CACHE / "backends" / "node_modules" / "@modelcontextprotocol" / package
    script = _installed(folder / "dist" / "index.js", "node")
    return Launch(command="node", args=(script, *args), env=env)


def everything(way: str = "stdio") -> Launch:
    """The reference server of the handshake era, in TypeScript."""
    return npm("server-everything", way)


def sqlite(database: Path) -> Launch:
    """The server of mcp 1, from its own environment; without it the test ends here."""
    program = _installed(_CACHE / "old-mcp" / "bin" / "mcp-server-sqlite", sys.executable)
    return Launch(command=program, args=("--db-path", str(database)))


def python(module: str, *args: str, **env: str) -> Launch:
    """A server that is an installed Python module."""
    return Launch(command=sys.executable, args=("-m", module, *args), env=env)


def handmade(era: str, *options: object) -> Launch:
    """The server by hand: ``handshake`` or ``stateless``."""
    return Launch(
        command=sys.executable, args=(str(_HANDMADE), era, *(str(one) for one in options))
    )
