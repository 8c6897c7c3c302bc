"""A user at a shell: runs `claudemesh` as a process, on a home of the test's own.

The process tests of the command line, the demo and the README drive the program through here.
"""

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from claudemesh_mcp.cli.stage import Actor, Stage
from claudemesh_mcp.config import broker_environment
from tests.support import warmstart
from tests.support.warmstart import MOST_STDIN_BYTES, Start

LIMIT_S = 60


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """What it refused with, as it says with `--json`."""
        return self.json["error"]


@dataclass(frozen=True)
class Shell:
    """A shell whose programs see one home and nothing of the machine's own settings."""

    folder: Path

    @property
    def home(self) -> Path:
        """Where all of this user's state is."""
        return self.folder / "home"

    def environment(self, **more: str) -> dict[str, str]:
        """What a program started here finds."""
        machine = broker_environment().items()
        kept = {name: value for name, value in machine if "CLAUDEMESH" not in name}
        own = {"HOME": str(self.folder), "USER": "max", "LOGNAME": "max"}
        home = {"CLAUDEMESH_HOME": str(self.home), "CLAUDEMESH_KEYRING": "off"}
        return kept | own | home | more

    def command(self, *words: str) -> list[str]:
        """What starts `claudemesh`."""
        return [sys.executable, "-m", "claudemesh_mcp", *words]

    def run(self, *words: str, stdin: bytes = b"", **environment: str) -> Done:
        """Run a command to its end, without a terminal.

        It starts warm where that shows nothing else than a start from nothing would.
        """
        changed_python = any(name.startswith("PYTHON") for name in environment)
        if changed_python or len(stdin) > MOST_STDIN_BYTES:
            return self.run_cold(*words, stdin=stdin, **environment)
        start = Start(words, self.environment(**environment), self.folder, stdin)
        done = warmstart.run(start, LIMIT_S)
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def run_cold(self, *words: str, stdin: bytes = b"", **environment: str) -> Done:
        """Run a command to its end as a user's shell does, from nothing."""
        done = subprocess.run(
            self.command(*words),
            env=self.environment(**environment),
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    async def runs(self, *words: str, stdin: bytes = b"", **environment: str) -> Done:
        """Run a command while the test's own sessions go on."""
        return await anyio.to_thread.run_sync(lambda: self.run(*words, stdin=stdin, **environment))

    @contextmanager
    def running(
        self,
        *words: str,
        stderr: int = subprocess.PIPE,
        warm: bool = False,
        **environment: str,
    ) -> "Iterator[subprocess.Popen[bytes]]":
        """Run a command beside the test, and end it."""
        program = [warmstart.python(), "-m", "claudemesh_mcp", *words]
        with subprocess.Popen(
            program if warm else self.command(*words),
            env=self.environment(**environment),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @asynccontextmanager
    async def session(self, name: str, session: str = "") -> AsyncGenerator[Actor]:
        """Open a session of `claudemesh mcp`, as its client sees it; close it well."""
        environment = self.environment(CLAUDE_CODE_SESSION_ID=session or f"session of {name}")
        stage = Stage(self.home, environment)
        with (self.home / "stderr").open("ab") as errors:
            process = await anyio.open_process(
                [warmstart.python(), "-m", "claudemesh_mcp", "mcp", "--name", name],
                env=environment,
                cwd=self.home,
                stderr=errors,
            )
        actor = Actor(name, process)
        stage.actors.append(actor)
        try:
            await actor.shake_hands()
            yield actor
            await actor.leave()
        finally:
            await stage.dismiss()


@contextmanager
def shell_in(folder: Path) -> Iterator[Shell]:
    """Give a shell on an empty home, and leave no broker behind."""
    shell = Shell(folder)
    shell.home.mkdir(mode=0o700)
    try:
        yield shell
    finally:
        ended = shell.run("down", "--force")
        assert ended.code == 0, ended.err
