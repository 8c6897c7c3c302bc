"""Runs servers that are reached by a URL: ``http_server.py``, and others over Streamable HTTP."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from tests.support.backends import found
from tests.support.live import a_moment

PROGRAM = Path(found.__file__).with_name("http_server.py")
KEY = {"X-Key": "open"}
"""What it lets in."""


@contextmanager
def listening(command: list[str], port: int, **env: str) -> Iterator[str]:
    """Run a server, and give its URL."""
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**found.environment(), **env},
    ) as process:
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.kill()


async def answers(port: int) -> None:
    """Wait until somebody listens."""
    while True:
        try:
            async with await anyio.connect_tcp("127.0.0.1", port):
                return
        except OSError:
            await a_moment()
