"""What a human alone decides, refused to whatever Claude Code runs, as processes of the command."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claudemesh_mcp.routes import records
from claudemesh_mcp.routes.processes import Living
from claudemesh_mcp.routes.records import Record
from tests.support.shell import LIMIT_S, Done, Shell, shell_in

APPROVE = ("mcp-server", "approve", "ada/sums", "add")
DECIDING = [
    *(APPROVE, ("grant", "bob", "tool"), ("unblock", "bob"), ("allow", "bob")),
    ("mesh", "trust", "team", "--yes"),
]
# What lets others do less, and what shows how it is, a model may run.
HARMLESS = [("mcp-server", "deny", "ada/sums", "add"), ("revoke", "bob", "tool"), ("block", "bob")]
MARKS = ["CLAUDECODE", "CLAUDE_CODE_SESSION_ID", "CLAUDE_CODE_CHILD_SESSION", "CLAUDE_PID"]
MESH, PEER, MEMBER = "m_" + "a" * 26, "p_" + "a" * 26, "mem_" + "a" * 26


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        yield shell


def code_of(done: Done) -> str:
    """Give what a command was refused with."""
    assert done.code != 0
    return done.error["code"]


@pytest.mark.parametrize("words", DECIDING, ids=" ".join)
def test_what_a_human_decides_is_refused_in_the_shell_of_a_model(
    shell: Shell, words: tuple[str, ...]
) -> None:
    for mark in MARKS:
        done = shell.run("--json", *words, stdin=b"", **{mark: "1"})
        assert (done.code, done.error["code"]) == (4, "human_only")
        assert "terminal of their own" in done.error["hint"]
        assert "`!`" in done.error["hint"]
    assert code_of(shell.run("--json", *words, CLAUDECODE="")) != "human_only"


@pytest.mark.parametrize("words", HARMLESS, ids=" ".join)
def test_what_lets_others_do_less_is_not_refused(shell: Shell, words: tuple[str, ...]) -> None:
    assert code_of(shell.run("--json", *words, CLAUDECODE="1")) != "human_only"


def note(shell: Shell, client: Living, session: str = "of the client") -> None:
    """Say in the home, as a server does, that a process is a client."""
    told = (os.getpid(), PEER, "file", session, "desk", "local", MEMBER, MESH)
    records.write(shell.home, Record(client.pid, client.start, *told))


@pytest.mark.parametrize("words", DECIDING, ids=" ".join)
def test_nor_does_it_help_to_take_the_variables_away(shell: Shell, words: tuple[str, ...]) -> None:
    note(shell, Living.now(os.getpid()))
    assert code_of(shell.run_cold("--json", *words)) == "human_only"


def test_the_client_is_found_above_any_number_of_shells(shell: Shell) -> None:
    note(shell, Living.now(os.getpid()))
    deeper = 'n=$1; shift; test "$n" = 0 && exec "$@"; sh -c "$0" "$0" $((n - 1)) "$@"; exit $?'
    words = ["sh", "-c", deeper, deeper, "40", *shell.command("--json", *APPROVE)]
    done = subprocess.run(
        words,
        env=shell.environment(),
        cwd=shell.folder,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert code_of(Done(done.returncode, done.stdout.decode(), "")) == "human_only"


def test_a_process_above_that_is_no_client_any_more_or_none_of_claude_code_refuses_nothing(
    shell: Shell,
) -> None:
    # Another process has its number by now; then, a program that has no session.
    note(shell, Living(os.getpid(), 1))
    assert code_of(shell.run_cold("--json", *APPROVE)) != "human_only"
    note(shell, Living.now(os.getpid()), session="")
    assert code_of(shell.run_cold("--json", *APPROVE)) != "human_only"


@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="there is no ps here")
def test_ps_tells_the_same_processes_above(shell: Shell) -> None:
    says = "import sys; {}; from claudemesh_mcp.ancestors import above; print(*above())"

    def asked(platform: str) -> list[str]:
        program = says.format(platform)
        words = [sys.executable, "-c", program]
        done = subprocess.run(
            words, env=shell.environment(), capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert asked("sys.platform = 'darwin'") == asked("pass")
    assert asked("pass")[0] == str(os.getpid())
