"""A client of a real `claudemesh mcp`: that of ``mcp_client.py``, over the pipes of a process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.support import warmstart
from tests.support.mcp_client import Client, Pipe
from tests.support.shell import Shell

_MOST_BYTES = 32 * 1024 * 1024


@asynccontextmanager
async def session_of(shell: Shell, name: str, **changed: Any) -> AsyncIterator[Client]:
    """Start a session in a home and greet it; ``changed`` is what the client says of itself."""
    with (shell.home / "stderr").open("ab") as errors:
        process = await anyio.open_process(
            [warmstart.python(), "-m", "claudemesh_mcp", "mcp", "--name", name],
            env=shell.environment(CLAUDE_CODE_SESSION_ID=f"session of {name}"),
            cwd=shell.home,
            stderr=errors,
        )
    pipe = Pipe()
    client = Client(pipe, asyncio.Event())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_write, process, pipe)
        tasks.start_soon(_read, process, pipe)
        try:
            await client.greet(**changed)
            yield client
        finally:
            with anyio.CancelScope(shield=True):
                pipe.end()
                with anyio.move_on_after(10):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                tasks.cancel_scope.cancel()
                await process.aclose()


async def _write(process: Process, pipe: Pipe) -> None:
    assert process.stdin is not None
    while data := await pipe.read():
        await process.stdin.send(data)
    await process.stdin.aclose()


async def _read(process: Process, pipe: Pipe) -> None:
    assert process.stdout is not None
    lines = BufferedByteReceiveStream(process.stdout)
    try:
        while True:
            pipe.written.append(await lines.receive_until(b"\n", _MOST_BYTES))
            pipe.tell()
    except (anyio.IncompleteRead, anyio.EndOfStream):
        return
