"""What runs beside a real client's session: one process of each kind, which ends with it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio

from claudemesh_mcp import routes
from tests.support.claude.beside import IDLE, a_plugin, file_of, meshed, told_in, until_told
from tests.support.claude.client import LIMIT_S
from tests.support.claude.room import Room
from tests.support.claude.terminal import at_terminal
from tests.support.live import a_moment

PROGRAMS = str(Path(routes.__file__).parent)


def beside(client_pid: int) -> list[str]:
    """Give the programs that run beside a client, sorted."""
    found: list[str] = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            told = (folder / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        program = [word for word in words if word.startswith(PROGRAMS)]
        if program and words[0] != "bash" and f"CLAUDE_PID={client_pid}" in told:
            rest = words[words.index(program[0]) + 1 :]
            found.append(" ".join([Path(program[0]).name, *rest]).strip())
    return sorted(found)


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(LIMIT_S):
        # Another process's end gives no sign here.
        while not holds():
            await a_moment()


async def test_one_of_each_runs_beside_a_session_whatever_it_becomes(
    room: Room, tmp_path: Path
) -> None:
    ada = meshed(room, "ada")
    both = ["hook.py rewake", "monitor.py"]
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        await room.present("ada")
        await until(lambda: beside(terminal.pid) == both)
        file = file_of(room, terminal.pid)
        for number in range(3):
            await terminal.type(f"Hello {number}.")
            await ada.model.arrived(f"Hello {number}.")
            await until_told(file, IDLE)
        ((session,),) = _sessions(file)
        await terminal.type("/clear")
        await until(lambda: _sessions(file) != [(session,)])
        await until(lambda: beside(terminal.pid) == both)
        await terminal.leave()
    await until(lambda: beside(terminal.pid) == [])


async def test_nothing_is_left_beside_a_client_that_was_killed(room: Room, tmp_path: Path) -> None:
    ada = meshed(room, "ada")
    async with at_terminal(ada, *a_plugin(tmp_path / "plugin")) as terminal:
        await room.present("ada")
        await until(lambda: beside(terminal.pid) == ["hook.py rewake", "monitor.py"])
        os.kill(terminal.pid, signal.SIGKILL)
        await until(lambda: beside(terminal.pid) == [])


def _sessions(file: Path) -> list[tuple[str]]:
    return [(one[0],) for one in told_in(file, "SELECT value FROM facts WHERE key='route.session'")]
