"""What ``install.sh`` says and leaves alone; the full installation is tried on a fresh clone.

Each test runs the script itself with a HOME of its own and, where that is the point, a PATH that
holds a few tools and no Python.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.owners import somebody_elses

# fmt: off
TOOLS = [
    "bash", "cat", "cksum", "dirname", "env", "find", "ln", "mkdir", "mktemp", "readlink",
    "rm", "rmdir", "sed", "sort", "tail", "tr", "uname",
]
# fmt: on


@dataclass(frozen=True)
class Newcomer:
    """Somebody with an empty HOME and only a few tools."""

    home: Path
    tools: Path

    def runs(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run the script as they would, with no TTY."""
        return subprocess.run(
            [self.tools / "bash", ROOT / "install.sh", *arguments],
            env={"HOME": str(self.home), "PATH": str(self.tools), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def has(self) -> list[str]:
        """What lies in their HOME."""
        return sorted(path.relative_to(self.home).as_posix() for path in self.home.rglob("*"))

    def program(self, name: str, script: str) -> None:
        """Put a program on their PATH."""
        path = self.tools / name
        path.write_text(f"#!{self.tools}/bash\n{script}\n", "utf-8")
        path.chmod(0o755)


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    home, tools = tmp_path / "home", tmp_path / "tools"
    home.mkdir()
    tools.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, f"this machine has no {name}"
        (tools / name).symlink_to(found)
    return Newcomer(home, tools)


def data_folder(newcomer: Newcomer, **environment: str) -> Path:
    """Ask platformdirs, which the program itself asks, where this newcomer's data goes."""
    answer = subprocess.run(
        [
            sys.executable,
            "-c",
            "import platformdirs; print(platformdirs.user_data_dir('claudemesh', appauthor=False))",
        ],
        env={"HOME": str(newcomer.home), "PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(answer.stdout.strip())


def test_help_is_printed_and_nothing_else_happens(newcomer: Newcomer) -> None:
    done = newcomer.runs("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: ./install.sh")
    assert not done.stderr
    assert newcomer.has() == []


@pytest.mark.parametrize("arguments", [["tset"], ["--force"], ["uninstall", "everything"]])
def test_an_unknown_argument_is_answered_with_the_usage(
    newcomer: Newcomer, arguments: list[str]
) -> None:
    done = newcomer.runs(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: ./install.sh")
    assert not done.stdout
    assert newcomer.has() == []


@pytest.mark.parametrize("shim", [None, "exit 127", "exit 1"])
@pytest.mark.parametrize("arguments", [[], ["test"]])
def test_without_a_working_python_one_sentence_says_what_to_install(
    newcomer: Newcomer, arguments: list[str], shim: str | None
) -> None:
    if shim:
        newcomer.program("python3.13", f"echo 'pyenv: python3.13: command not found' >&2; {shim}")
        newcomer.program("python3", shim)
    done = newcomer.runs(*arguments)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Python 3.11" in done.stderr
    assert "uv" in done.stderr
    assert newcomer.has() == []


def test_a_home_that_is_not_set_is_an_error_and_not_the_root_folder(newcomer: Newcomer) -> None:
    done = newcomer.runs(HOME="")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_sudo_in_the_home_of_its_caller_is_refused(newcomer: Newcomer) -> None:
    theirs = replace(newcomer, home=somebody_elses(newcomer.home))
    done = theirs.runs(SUDO_USER="ada")
    assert done.returncode == 1
    assert "run this as ada, without sudo" in done.stderr
    assert newcomer.has() == []


def test_a_command_of_another_program_is_left_alone(newcomer: Newcomer) -> None:
    command = newcomer.home / ".local/bin/claudemesh"
    command.parent.mkdir(parents=True)
    command.write_text("somebody else's", "utf-8")
    before = newcomer.has()
    assert newcomer.runs().returncode == 1
    assert newcomer.runs("uninstall").returncode == 0
    assert command.read_text("utf-8") == "somebody else's"
    assert newcomer.has() == before


def test_uninstalling_from_an_empty_home_leaves_it_empty(newcomer: Newcomer) -> None:
    done = newcomer.runs("uninstall")
    assert done.returncode == 0
    assert newcomer.has() == []


@pytest.mark.parametrize("moved", [False, True])
def test_uninstalling_takes_all_but_the_data_and_says_where_that_is(
    newcomer: Newcomer, *, moved: bool
) -> None:
    environment = {"XDG_DATA_HOME": str(newcomer.home / "elsewhere")} if moved else {}
    data = data_folder(newcomer, **environment)
    stopped = newcomer.home / "stopped"
    kept = data / "sessions/peer.db"
    for made in (data / "env/bin/claudemesh", data / "test-env/bin/python", kept):
        made.parent.mkdir(parents=True)
        made.write_text(f'#!{newcomer.tools}/bash\necho "$@" >>"{stopped}"\n', "utf-8")
        made.chmod(0o755)
    command = newcomer.home / ".local/bin/claudemesh"
    command.parent.mkdir(parents=True)
    command.symlink_to(data / "env/bin/claudemesh")

    done = newcomer.runs("uninstall", **environment)

    assert done.returncode == 0
    assert stopped.read_text("utf-8") == "uninstall\ndown\n"
    assert str(data) in done.stderr
    assert not os.path.lexists(command)
    assert sorted(path.name for path in data.iterdir()) == ["sessions"]
    assert kept.exists()


@pytest.mark.parametrize("claude", [True, False])
def test_uninstalling_takes_it_out_of_claude_code_first_whatever_comes_of_that(
    newcomer: Newcomer, *, claude: bool
) -> None:
    if claude:
        newcomer.program("claude", "exit 1")
    program = data_folder(newcomer) / "env/bin/claudemesh"
    program.parent.mkdir(parents=True)
    asked = newcomer.home / "asked"
    program.write_text(f'#!{newcomer.tools}/bash\necho "$*" >>"{asked}"; exit 3\n', "utf-8")
    program.chmod(0o755)

    assert newcomer.runs("uninstall").returncode == 0
    assert asked.read_text("utf-8").splitlines() == ["uninstall", "down"]
    assert not program.exists()
