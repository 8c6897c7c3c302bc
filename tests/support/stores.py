"""Opens stores for tests, holds their writer until a batch has gathered, runs them in processes."""

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from claudemesh_broker.lane import LaneLimits
from claudemesh_broker.sql import Sql
from claudemesh_broker.store import Store

LIMIT_S = 60


class Deaths:
    """Collects why stores died."""

    def __init__(self) -> None:
        self.causes: list[BaseException] = []

    def __call__(self, cause: BaseException) -> None:
        self.causes.append(cause)


class Gate:
    """A change that holds its store's writer until the gate is opened."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._opened = threading.Event()

    def hold(self, sql: Sql) -> None:
        del sql
        self._entered.set()
        assert self._opened.wait(LIMIT_S)

    def wait_until_held(self) -> None:
        """From here on everything that is handed in gathers behind the gate."""
        assert self._entered.wait(LIMIT_S)

    def open(self) -> None:
        self._opened.set()


@asynccontextmanager
async def opened(folder: Path, limits: LaneLimits | None = None) -> AsyncGenerator[Store]:
    """A store that must not die."""
    deaths = Deaths()
    async with await Store.open(folder / "data" / "broker.sqlite3", deaths, limits) as store:
        yield store
    assert deaths.causes == []


def note(sql: Sql, number: int) -> int:
    """The simplest change: a row of its own."""
    sql.execute("INSERT INTO meta (key, value) VALUES (?, '')", str(number))
    return number


def noted(sql: Sql) -> set[int]:
    """All numbers that were noted."""
    return {int(row["key"]) for row in sql.all("SELECT key FROM meta")}


def noted_on_disk(folder: Path) -> set[int]:
    """All numbers that an independent connection finds."""
    with closing(sqlite3.connect(folder / "data" / "broker.sqlite3")) as database:
        return {int(key) for (key,) in database.execute("SELECT key FROM meta")}


def start_program(text: str, *arguments: str) -> subprocess.Popen[str]:
    """Run Python with this process's import paths, its output on a pipe."""
    setup = f"import sys; sys.path[:] = {json.dumps(sys.path)}\n"
    command = [sys.executable, "-c", setup + text, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run_program(text: str, *arguments: str) -> Any:
    """Run Python to its end and give what its last line says in JSON."""
    with start_program(text, *arguments) as process:
        output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, output
    return json.loads(output.splitlines()[-1])
