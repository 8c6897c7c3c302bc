"""A host and its guests: a broker for other machines over TLS, and shells on homes of their own.

Everything is a process, as on two machines; a test that can make network namespaces puts host and
guests on different ones: their programs are started ``through`` a command.
"""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tests.support import warmstart
from tests.support.shell import Done, Shell


def free_port() -> int:
    """Give a port that is free at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Host:
    """A broker that runs for other machines.

    Args:
        folder: Where its data is.
        port: Where it listens.
        said: What it printed when it began to listen.
        process: It.
    """

    folder: Path
    port: int
    said: str
    process: "subprocess.Popen[str]"

    @property
    def url(self) -> str:
        """Its address on this machine."""
        return f"https://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """Kill it, and wait until it has let go of its streams: who started it may end before."""
        self.process.kill()
        self.process.communicate()

    @property
    def printed_url(self) -> str:
        """The address for others, as it printed it."""
        found = re.search(r"others reach it at (\S+)", self.said)
        assert found, self.said
        return found[1]

    @property
    def fingerprint(self) -> str:
        """The certificate's, as it printed it."""
        found = re.search(r"SHA-256 ([0-9a-f]{64})", self.said)
        assert found, self.said
        return found[1]

    @property
    def admin_secret_file(self) -> Path:
        """Where the secret for making meshes is."""
        return self.folder / "admin.secret"

    @property
    def for_its_admin(self) -> tuple[str, ...]:
        """What `mesh create` is told to make a mesh here from any home."""
        return ("--broker", self.url, "--admin-secret-file", str(self.admin_secret_file))


@contextmanager
def a_host(
    folder: Path, *words: str, port: int = 0, through: Sequence[str] = (), **environment: str
) -> Iterator[Host]:
    """Run a broker over TLS, reached as 127.0.0.1 unless the words say otherwise."""
    port = port or free_port()
    shell = Shell(folder.parent)
    said = ["--bind", "0.0.0.0", "--tls", "auto", "--public-url", f"https://127.0.0.1:{port}"]  # noqa: S104 - the point
    # As `claudemesh broker run` becomes; how it does is seen by `a_host_at_home`.
    program = [*through, sys.executable] if through else [warmstart.python()]
    command = [*program, "-m", "claudemesh_broker", "run", "--port", str(port)]
    command += ["--data", str(folder), "--run", str(folder / "run"), *(words or said)]
    with _run(command, shell.environment(**environment), folder.parent) as (process, greeting):
        yield Host(folder, port, greeting, process)


@contextmanager
def a_host_at_home(shell: Shell, *words: str) -> Iterator[Host]:
    """Run a broker by a command of a user's own, on the data of that user's home."""
    port = free_port()
    environment = shell.environment(CLAUDEMESH_BROKER_PORT=str(port))
    with _run(shell.command(*words), environment, shell.folder) as (process, greeting):
        yield Host(shell.home / "broker", port, greeting, process)


@contextmanager
def _run(
    command: list[str], environment: dict[str, str], folder: Path
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a broker; gives it, and what it printed when it began to listen."""
    with subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, _greeting(process)
        finally:
            process.kill()
            process.communicate()


def _greeting(process: "subprocess.Popen[str]") -> str:
    """Read what it prints until it has said where its secret is: then it listens."""
    lines: list[str] = []
    for line in cast("IO[str]", process.stdout):
        lines.append(line)
        if "admin.secret" in line:
            return "".join(lines)
    raise AssertionError("".join(lines) + cast("IO[str]", process.stderr).read())


@dataclass(frozen=True)
class Guest(Shell):
    """A shell on another machine: its programs are started through a command."""

    through: tuple[str, ...] = ()

    def command(self, *words: str) -> list[str]:
        """What starts `claudemesh` there."""
        return [*self.through, *super().command(*words)]

    def run(self, *words: str, stdin: bytes = b"", **environment: str) -> Done:
        """Run a command there to its end."""
        return self.run_cold(*words, stdin=stdin, **environment)


@contextmanager
def a_guest(folder: Path) -> Iterator[Shell]:
    """Give a shell on a home of its own."""
    folder.mkdir()
    guest = Shell(folder)
    guest.home.mkdir(mode=0o700)
    yield guest
    guest.run("--mesh", "local", "down", "--force")


def ok(done: Done) -> Done:
    """Give a command that did what it was to do."""
    assert done.code == 0, done.out + done.err
    return done
