"""One `claudemesh mcp` process driven over stdio, and what was printed to it.

``kill.py`` and ``providers.py`` start, kill and resume these. A call whose process dies ends with
``Gone``: whether it was done is not known, which is just what the campaigns are about.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Self

LINE_LIMIT = 64 * 1024 * 1024
START_S = 60


class Gone(Exception):
    """The process ended before it answered."""


class Refused(Exception):
    """A tool answered with an error; ``code`` is its code."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(json.dumps(error))
        self.code = str(error.get("code"))
        self.details: dict[str, Any] = error.get("details", {})


class Actor:
    """A session process and its client.

    Args:
        name: Its handle and the anchor of its Claude session.
        environment: What it runs with.
    """

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self.name = name
        self._environment = environment | {
            "CLAUDEMESH_NAME": name,
            "CLAUDE_CODE_SESSION_ID": f"campaign-{name}",
        }
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The process; it changes with every start."""
        return self._running().pid

    async def start(self, errors: Path) -> Self:
        """Start the process and shake hands."""
        with errors.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "claudemesh_mcp",
                "mcp",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
                limit=LINE_LIMIT,
            )
        self._reader = asyncio.get_running_loop().create_task(self._read(self._process))
        hello = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "campaign", "version": "1"},
        }
        async with asyncio.timeout(START_S):
            await self._ask("initialize", hello)
        await self._write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    async def kill(self) -> None:
        """Kill the process; what it was doing ends with ``Gone``."""
        process = self._running()
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        if self._reader is not None:
            await self._reader

    async def end(self) -> int:
        """End the process as a client does, by closing its input."""
        process = self._running()
        if process.stdin is not None:
            process.stdin.close()
        return await process.wait()

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool and give its structured result.

        Raises:
            Gone: the process died meanwhile.
            Refused: the tool refused.
        """
        content: dict[str, Any] = (await self.result(tool, **arguments))["structuredContent"]
        return content

    async def result(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool and give its whole result; raises as ``call``."""
        result: dict[str, Any] = await self._ask(
            "tools/call", {"name": tool, "arguments": arguments}
        )
        if result.get("isError"):
            raise Refused(result["structuredContent"]["error"])
        return result

    async def _ask(self, method: str, params: dict[str, Any]) -> Any:
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        await self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    async def _write(self, message: dict[str, Any]) -> None:
        stdin = self._running().stdin
        if stdin is None:
            raise Gone
        try:
            stdin.write(json.dumps(message).encode() + b"\n")
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Gone from error

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand answers to who waits; at the end everybody who still waits is told."""
        if process.stdout is None:
            raise Gone
        while line := await process.stdout.readline():
            message = json.loads(line)
            future = self._waiting.get(message.get("id"))
            if future is not None and not future.done():
                if "error" in message:
                    future.set_exception(Refused(message["error"]))
                else:
                    future.set_result(message["result"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Gone())

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise Gone
        return self._process
