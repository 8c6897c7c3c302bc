"""What the tests start warm is in nothing else than its speed unlike what starts from nothing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from claudemesh_mcp.home import file_lock
from tests.support import warmstart
from tests.support.foreground import hosted
from tests.support.hosting import ok
from tests.support.live import LIMIT_S, alive
from tests.support.shell import Shell, shell_in


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        yield shell


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (("--version",), b""),
        (("send", "--help"), b""),
        (("sned",), b""),
        (("config", "get", "name", "--json"), b""),
        (("config", "get", "nmae", "--json"), b""),
        (("send", "nobody", "-"), b"\xff"),
        (("broker", "check", "--data", "elsewhere"), b""),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else None,
)
def test_it_prints_and_ends_alike(shell: Shell, words: tuple[str, ...], stdin: bytes) -> None:
    cold = shell.run_cold(*words, stdin=stdin)
    assert shell.run(*words, stdin=stdin) == cold
    assert cold.out + cold.err


def test_it_has_an_environment_of_its_own(shell: Shell) -> None:
    asked = ("config", "get", "name")
    assert ok(shell.run(*asked, CLAUDEMESH_NAME="ada")).out == "ada\n"
    assert ok(shell.run(*asked, CLAUDEMESH_NAME="bob")).out == "bob\n"


def test_a_broker_that_it_starts_outlives_it_and_keeps_none_of_its_streams(shell: Shell) -> None:
    ok(shell.run("up"))
    assert ok(shell.run_cold("status", "--json")).json["broker"]


def test_what_it_reads_ends_where_it_was_given_an_end(shell: Shell) -> None:
    done = shell.run("send", "nobody", "-", "--json", stdin=b"")
    assert done.error["code"] == "empty_text"


async def test_sessions_and_their_broker_are_processes_that_end_one_by_one(tmp_path: Path) -> None:
    async with alive(tmp_path) as live:
        ada, bob = await live.join_all("ada", "bob")
        pids = [ada.pid, bob.pid, live.broker.pid]
        assert [os.getsid(pid) for pid in pids] == pids
        assert len({os.getpid(), *pids}) == 4
        await ada.kill()
        assert await bob.connected()
        live.kill_broker()
        assert await bob.end() == 0


def test_a_broker_ends_with_the_process_that_its_starter_knows(tmp_path: Path) -> None:
    with hosted(tmp_path) as broker:
        assert broker.info.pid != broker.popen.pid
        broker.popen.kill()
        with file_lock(broker.data / "lock", LIMIT_S):
            assert broker.popen.wait() < 0


def test_whatever_else_python_is_started_for_is_done_by_python() -> None:
    program = "import sys; print(sys.executable, sys.argv, sys.stdin.read()); sys.exit(3)"
    asked = ["-c", program, "word"]
    cold, warm = (
        subprocess.run([python, *asked], input=b"text", capture_output=True, check=False)
        for python in (sys.executable, warmstart.python())
    )
    assert (warm.stdout, warm.returncode) == (cold.stdout, 3)
