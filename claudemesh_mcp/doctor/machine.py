"""Checks of the machine: Python and its SQLite, the program on PATH, Claude Code.

``doctor/__init__.py`` lists them.
"""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import Final

import anyio

from claudemesh_mcp.doctor.finding import Case, Finding, fail, ok, skip, warn
from claudemesh_wire import VERSION

_OLDEST: Final = (3, 11)
_PROGRAM: Final = "claudemesh"
_CLAUDE: Final = "claude"
_ANSWER_S: Final = 5.0


async def check_python(_case: Case) -> Finding:
    """Look whether this Python and its SQLite have what is needed."""
    found = f"Python {sys.version.split()[0]} with SQLite {sqlite3.sqlite_version}"
    if sys.version_info < _OLDEST:
        return fail(f"{found} is too old.", "Install claudemesh under Python 3.11 or newer.")
    with closing(sqlite3.connect(":memory:")) as sql:
        try:
            sql.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
        except sqlite3.OperationalError:
            return warn(
                f"{found} has no full-text search: history finds no words.",
                "Install claudemesh under another Python.",
            )
    return ok(f"{found}.")


async def check_program(_case: Case) -> Finding:
    """Look whether the program that a client starts is the one that runs here."""
    path = shutil.which(_PROGRAM)
    if path is None:
        return warn(
            "There is no claudemesh on PATH, so that a client does not find it.",
            f"Add the folder that ./install.sh named to PATH; this one runs under {sys.prefix}.",
        )
    told = await _run(path, "--version")
    if told is None:
        return warn(
            f"{path} did not say its version within {_ANSWER_S:g} s.",
            "Look yourself: claudemesh --version",
        )
    version = told.stdout.decode("utf-8", "replace").strip()[:40]
    if version != VERSION:
        return fail(
            f"{path} is version {version or 'unknown'}, and this is {VERSION}.",
            "Install again by ./install.sh, and remove the other one.",
        )
    return ok(f"{path}, version {version}.")


async def check_claude(_case: Case) -> Finding:
    """Look whether Claude Code is there."""
    path = shutil.which(_CLAUDE)
    if path is None:
        return skip(
            "There is no claude on PATH.",
            "Install Claude Code (https://code.claude.com/docs), or put its folder on PATH.",
        )
    told = await _run(path, "--version")
    if told is None or told.returncode:
        return warn(f"{path} did not say its version.", "Look yourself: claude --version")
    return ok(f"{path}, {told.stdout.decode('utf-8', 'replace').strip()[:60]}.")


async def _run(*command: str) -> "subprocess.CompletedProcess[bytes] | None":
    """Run a program to its end; ``None`` when it can't be run, or not in time."""
    with anyio.move_on_after(_ANSWER_S):
        try:
            return await anyio.run_process(command, stdin=subprocess.DEVNULL, check=False)
        except OSError:
            return None
    return None
