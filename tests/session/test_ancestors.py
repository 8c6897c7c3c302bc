"""Who the client of a server is, when something stands between the two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from claudemesh_mcp.ancestors import Ancestor, ask_proc, ask_ps, client_pid, find_client
from claudemesh_mcp.config import broker_environment

SESSION = "3b241101-e2bb-4255-8caf-4136c566a962"
SAYS = "from claudemesh_mcp.ancestors import client_pid as find; print(find({!r}))"
DIRECT = [sys.executable, "-c"]
BELOW_A_SHELL = ["sh", "-c", '"$0" -c "$1"; true', sys.executable]
BELOW_TWO = ["sh", "-c", 'sh -c "\\"\\$0\\" -c \\"\\$1\\"; true" "$0" "$1"; true', sys.executable]


@pytest.mark.skipif(sys.platform == "darwin", reason="only ps tells of processes there")
@pytest.mark.parametrize("command", [DIRECT, BELOW_A_SHELL, BELOW_TWO], ids=["0", "1", "2"])
def test_the_client_is_the_nearest_process_above_without_the_id(command: list[str]) -> None:
    environ = {**broker_environment(), "CLAUDE_CODE_SESSION_ID": SESSION}
    ran = subprocess.run(
        [*command, SAYS.format(SESSION)], env=environ, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == str(os.getpid())


@pytest.mark.skipif(sys.platform == "darwin", reason="only ps tells of processes there")
def test_a_client_within_another_clients_session_is_not_taken_for_that_one() -> None:
    # The inner client is a shell that has the outer session's id, and gives its server another.
    inner = f'echo $$; CLAUDE_CODE_SESSION_ID={SESSION} sh -c "\\"$0\\" -c \\"$1\\"; true"; true'
    command = ["sh", "-c", inner, sys.executable, SAYS.format(SESSION)]
    environ = {**broker_environment(), "CLAUDE_CODE_SESSION_ID": "of the outer"}
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    client, found = ran.stdout.split()
    assert found == client


def test_without_a_session_the_client_is_the_parent() -> None:
    assert client_pid("") == os.getppid()


def test_a_process_that_is_not_there_tells_nothing() -> None:
    assert ask_proc(2**22 + 1, SESSION) is None


def table(**told: tuple[int, str]) -> dict[int, tuple[int, str]]:
    return {int(pid[1:]): one for pid, one in told.items()}


@pytest.mark.parametrize(
    ("processes", "client"),
    [
        (table(_9=(8, "claude"), _8=(1, "zsh")), 9),
        (table(_9=(8, "sh"), _8=(7, "claude"), _7=(1, "zsh")), 8),
        (table(_9=(8, "uv"), _8=(7, "sh"), _7=(6, "claude"), _6=(5, "claude")), 7),
        (table(_9=(8, "sh"), _8=(1, "inspector"), _1=(0, "launchd")), 9),
        (table(_9=(8, "sh"), _8=(9, "sh")), 9),
        (table(_9=(8, "sh")), 9),
    ],
)
def test_the_nearest_of_the_clients_name_is_it_and_else_the_parent(
    processes: dict[int, tuple[int, str]], client: int
) -> None:
    def ask(pid: int, _session: str) -> Ancestor | None:
        if pid not in processes:
            return None
        parent, name = processes[pid]
        return Ancestor(parent, name != "claude")

    assert find_client(9, SESSION, ask) == client


@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="there is no ps here")
def test_ps_tells_the_parent_and_whether_it_is_called_as_the_client_is() -> None:
    assert ask_ps(os.getpid(), SESSION) == Ancestor(os.getppid(), is_between=True)
    assert ask_ps(2**22 + 1, SESSION) is None
