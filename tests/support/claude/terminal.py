"""A real Claude Code at a terminal: tmux holds the screen, the test types and reads.

Each terminal has a tmux server of its own, which ends with the test and takes the client along.
What is waited for is looked at whenever the client writes to the screen.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from tests.support.claude.asked import Asked, Place
from tests.support.claude.client import LIMIT_S, Claude
from tests.support.live import a_moment
from tests.support.sockets import for_sockets

WIDTH: Final = 160
HEIGHT: Final = 50
_LOOKS: Final = 20
"""So often the screen is looked at before a key counts as not heard."""
# Waits for its stdin to end, as it does when the test ends in any way, and then ends what is on the
# screen: by the hang-up that a terminal gives, and by force if that is not enough.
_GUARD: Final = """read -r _
tmux -S "$0" kill-server
for _ in $(seq 50); do kill -0 "$1" || exit 0; sleep 0.1; done
kill -9 -- "-$1"
"""
_READY: Final = re.compile(
    r"^\s*\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}", re.MULTILINE
)


@dataclass(eq=False)
class Terminal:
    """A screen with one client on it.

    Args:
        folder: Where its socket and the pipe of its output are.
        client: What runs there.
        pid: The client's process.
    """

    folder: Path
    client: Claude
    pid: int = 0
    _output: int = -1
    _guard: "subprocess.Popen[bytes] | None" = None

    @property
    def socket(self) -> str:
        """Where its tmux server listens."""
        return str(self.folder / "socket")

    def tmux(self, *words: str) -> str:
        """Run a command of tmux; gives what it printed."""
        program = ["tmux", "-S", self.socket, "-f", "/dev/null"]
        done = subprocess.run(
            [*program, *words], capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    @property
    def screen(self) -> str:
        """What can be seen."""
        return self.tmux("capture-pane", "-p")

    async def shows(self, text: str) -> str:
        """Wait until a text is on the screen; gives the screen."""
        return await self.wait(lambda screen: text in screen, repr(text))

    async def ready(self) -> str:
        """Wait until it takes a prompt; gives the screen."""
        return await self.wait(lambda screen: bool(_READY.search(screen)), "a prompt")

    async def wait(self, holds: Callable[[str], bool], what: str) -> str:
        """Wait until something holds of the screen; gives the screen."""
        with anyio.move_on_after(LIMIT_S):
            while not holds(screen := self.screen):
                await anyio.wait_readable(self._output)
                with suppress(BlockingIOError):
                    os.read(self._output, 65_536)
                # It draws many times a second while it works.
                await a_moment()
            return screen
        raise AssertionError(f"No {what} after {LIMIT_S} s; the screen:\n{self.screen}")

    async def type(self, text: str) -> None:
        """Type one line and send it off, once it is on the screen."""
        self.tmux("send-keys", "-l", text)
        await self.shows(text[:40])
        self.press("Enter")

    async def prompt(self, text: str) -> Asked:
        """Type a prompt; gives the request by which the model has it, as what its user said."""
        await self.type(text)
        arrival = await self.client.model.arrived(text)
        assert arrival.place is Place.USER
        return arrival.asked

    def press(self, *keys: str) -> None:
        """Press keys, by their names in tmux."""
        self.tmux("send-keys", *keys)

    async def press_until(self, key: str, holds: Callable[[str], bool]) -> None:
        """Press a key until something holds of the screen: what was just drawn may not hear it."""
        looks = 0

        def is_so(screen: str) -> bool:
            nonlocal looks
            if not (is_so := holds(screen)) and looks % _LOOKS == 0:
                self.press(key)
            looks += 1
            return is_so

        await self.wait(is_so, f"answer to the key {key}")

    async def leave(self) -> None:
        """End the client as its user does, and wait until it is gone."""
        await self.type("/exit")
        await self.ended()

    async def ended(self) -> None:
        """Wait until the client is gone."""
        with anyio.fail_after(LIMIT_S):
            while self.tmux("display-message", "-p", "#{pane_dead}").strip() != "1":
                await a_moment()

    def start(self, *words: str) -> None:
        """Start the client on the screen."""
        pipe = self.folder / "output"
        os.mkfifo(pipe)
        # Open for both: then there is no end of file, and tmux does not wait for a reader.
        self._output = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        variables = {**self.client.environment, "TERM": "tmux-256color"}
        clean = ["env", "-i", *(f"{key}={value}" for key, value in variables.items())]
        size = ("-x", str(WIDTH), "-y", str(HEIGHT), "-c", str(self.client.project))
        wait = ["sh", "-c", 'read -r go; exec "$@"', "sh"]
        command = [*clean, *wait, *self.client.command(*words)]
        self.tmux("new-session", "-d", *size, "--", *command)
        self.tmux("set-option", "remain-on-exit", "on")
        self.tmux("pipe-pane", "-O", f"exec cat >'{pipe}'")
        self.pid = int(self.tmux("display-message", "-p", "#{pane_pid}"))
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, self.socket, str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.press("Enter")

    def end(self) -> None:
        """End the client, whatever it does, and the server."""
        if self._guard is not None:
            self._guard.communicate(timeout=LIMIT_S)
        os.close(self._output)


@asynccontextmanager
async def at_terminal(client: Claude, *words: str) -> AsyncGenerator[Terminal]:
    """Start a client at a terminal and wait until it takes a prompt.

    Args:
        client: Whose.
        words: More of its command line.
    """
    # Not in the folder of the test: the path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="cm-", dir=for_sockets()))
    terminal = Terminal(folder, client)
    try:
        terminal.start(*words)
        await terminal.ready()
        yield terminal
    finally:
        terminal.end()
        shutil.rmtree(folder, ignore_errors=True)
