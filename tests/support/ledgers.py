"""The server of ``backends/ledger.py``, held up at the moments that a test wants, and its lines."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio

from claudemesh_mcp.hosting.launch import Launch
from tests.support.live import LIMIT_S, a_moment

_PROGRAM: Final = Path(__file__).with_name("backends") / "ledger.py"


class Ledger:
    """A server that writes a line for each call.

    Args:
        folder: A new one, for what it writes.
        name: How it names itself there.
    """

    def __init__(self, folder: Path, name: str = "ledger") -> None:
        folder.mkdir()
        self._folder = folder
        self._pipe = folder / "hold"
        os.mkfifo(self._pipe)
        # Open for both: then neither end waits for the other.
        self._handle = os.open(self._pipe, os.O_RDWR | os.O_NONBLOCK)
        self.launch = Launch(command=sys.executable, args=(str(_PROGRAM), str(folder), name))

    def held(self, call: str, when: str = "before") -> dict[str, Any]:
        """Give the arguments of a call that waits ``before`` or ``after`` its line is written."""
        return {"id": call, when: str(self._pipe)}

    def release(self, count: int = 1) -> None:
        """Let so many calls go on."""
        os.write(self._handle, b"." * count)

    def close(self) -> None:
        """Hold nothing up any more."""
        os.close(self._handle)

    @property
    def lines(self) -> list[str]:
        """The ids of the calls that were run."""
        return [line.split()[0] for line in self._read("lines")]

    async def until(self, holds: Callable[[list[str]], bool]) -> None:
        """Wait until its steps are so, as ``begun a``, ``written a`` and ``answered a``."""
        with anyio.fail_after(LIMIT_S):
            while not holds([line.rpartition(" ")[0] for line in self._read("steps")]):
                await a_moment()

    async def until_it_has(self, step: str) -> None:
        """Wait until it has come to a step."""
        await self.until(lambda steps: step in steps)

    def _read(self, file: str) -> list[str]:
        path = self._folder / file
        return path.read_text("utf-8").splitlines() if path.exists() else []


def id_of(result: dict[str, Any]) -> str:
    """Give the id of the call that a result is of."""
    said: dict[str, Any] = result["structuredContent"]
    assert [one["text"] for one in result["content"]] == [said["id"]], json.dumps(result)
    return said["id"]
