"""Where a campaign's sessions live: one home with its own broker, or two with a host between them.

``kill.py`` and ``providers.py`` ask a place for the environment of each session, and have it kill
the broker.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RETRY_S = 0.2
PROGRAM = (sys.executable, "-m", "claudemesh_mcp")
# The limits stay on; they are set to what campaigns send.
_SETTINGS = {
    "CLAUDEMESH_BROKER_CHAT_PER_S": "5000",
    "CLAUDEMESH_BROKER_CHAT_BURST": "20000",
    "CLAUDEMESH_BROKER_RPC_PER_S": "5000",
    "CLAUDEMESH_BROKER_RPC_BURST": "20000",
    "CLAUDEMESH_BROKER_AUTH_PER_S": "1000",
    "CLAUDEMESH_BROKER_AUTH_BURST": "1000",
    "CLAUDEMESH_KEYRING": "off",
}


def environment() -> dict[str, str]:
    """Give what all processes of a campaign find in their environment."""
    given = os.environ.items()  # noqa: TID251 - it makes the children's
    own = {name: it for name, it in given if not name.startswith(("CLAUDE", "ANTHROPIC"))}
    return own | _SETTINGS


@contextmanager
def throw_away(name: str, *, keep: bool) -> Iterator[Path]:
    """Give a folder that is gone behind the campaign, unless somebody wants to look at it."""
    folder = Path(tempfile.mkdtemp(prefix=f"claudemesh-{name}-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


class OneHome:
    """All sessions in one home; the next of them starts its broker again when it was killed."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._home = folder / "home"
        self._environment = environment

    async def open(self) -> None:
        """Let the sessions do all that is needed."""

    def environment(self, number: int) -> dict[str, str]:
        """Give the environment of one session."""
        del number
        return self._environment | {"CLAUDEMESH_HOME": str(self._home)}

    async def kill_broker(self) -> None:
        """Kill the broker, as soon as there is one."""
        while True:
            try:
                info = json.loads((self._home / "run" / "broker.json").read_text())
                os.kill(info["pid"], signal.SIGKILL)
            except (OSError, ValueError):
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def close(self) -> None:
        """End the broker."""
        try:
            info = json.loads((self._home / "run" / "broker.json").read_text())
            os.kill(info["pid"], signal.SIGTERM)
        except (OSError, ValueError):
            pass


class TwoHomes:
    """The sessions of two members, in homes of their own, and a broker over TLS between them."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._broker: asyncio.subprocess.Process | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])

    async def open(self) -> None:
        """Start the broker, make the mesh in one home and join it from the other."""
        await self._start()
        url = f"https://127.0.0.1:{self._port}"
        secret = str(self._folder / "broker" / "admin.secret")
        admin = ("--broker", url, "--admin-secret-file", secret)
        await self._run(0, "mesh", "create", "team", *admin)
        link = (await self._run(0, "invite", "--json"))["link"]
        await self._run(1, "join", link, "--as", "guest", "--json")

    def environment(self, number: int) -> dict[str, str]:
        """Give the environment of one session: every other one is the guest's."""
        home = self._folder / ("host", "guest")[number % 2]
        return self._environment | {"CLAUDEMESH_HOME": str(home)}

    async def kill_broker(self) -> None:
        """Kill the broker and start it again, as a supervisor would."""
        if self._broker is not None:
            self._broker.kill()
            await self._broker.wait()
        await self._start()

    async def close(self) -> None:
        """End the broker."""
        if self._broker is not None:
            self._broker.terminate()
            await self._broker.wait()

    async def _start(self) -> None:
        url = f"https://127.0.0.1:{self._port}"
        words = ("--bind", "0.0.0.0", "--tls", "auto", "--public-url", url)  # noqa: S104
        data = ("--data", str(self._folder / "broker"))
        with (self._folder / "broker.log").open("ab") as log:
            self._broker = await asyncio.create_subprocess_exec(
                *PROGRAM,
                *("broker", "run", "--port", str(self._port)),
                *words,
                *data,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                if self._broker.returncode is not None:
                    said = (self._folder / "broker.log").read_text()
                    raise RuntimeError(f"the broker did not start:\n{said}") from None
                await asyncio.sleep(RETRY_S)
            else:
                writer.close()
                return

    async def _run(self, number: int, *words: str) -> Any:
        """Run a command in one of the homes; gives what it printed as JSON, if it did."""
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            *words,
            env=self.environment(number),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        if process.returncode:
            raise RuntimeError((out + err).decode())
        return json.loads(out) if "--json" in words else None
