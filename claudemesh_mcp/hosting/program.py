"""A server that runs as a program: lines of JSON-RPC in and out, and its end in good order.

``transport.py`` opens it. What it writes is read as ``answers.py`` does, and never more of it is
kept than one line may have.
"""

import logging
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TextIO

import anyio
from anyio.abc import ByteReceiveStream, Process

from claudemesh_mcp.config import given_to_programs
from claudemesh_mcp.hosting import answers
from claudemesh_mcp.hosting.answers import Words
from claudemesh_mcp.hosting.launch import Launch

logger: Final = logging.getLogger(__name__)

MAX_LINE_BYTES: Final = 40 * 1024 * 1024
"""Above the largest result that goes through the mesh, so that one too large costs its call alone;
what is longer has perhaps no end."""
_FLUSHED_WITHIN_S: Final = 0.5
_ENDS_WITHIN_S: Final = 2.0
_LOOK_S: Final = 0.01
_NO_MORE: Final = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    OSError,
)


class Gone(Exception):
    """The connection is no more; what was to be sent was not."""


class TooLong(Exception):
    """The server wrote a line without an end."""


class Program:
    """The lines of a process.

    Args:
        process: It, with pipes for input and output.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._unwritten, self._to_write = anyio.create_memory_object_stream[bytes](0)
        self._is_written = anyio.Event()
        self._reading = anyio.Lock()

    async def send(self, words: Words, headers: Mapping[str, str]) -> None:
        """Send a message; there are no headers here.

        Raises:
            Gone: it was not sent.
        """
        _ = headers
        # A task of its own writes: a line that a cancelled caller leaves half written ends all.
        try:
            await self._unwritten.send(answers.line_of(words))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise Gone from error

    async def messages(self) -> AsyncIterator[Words]:
        """Give what the server says, until it ends.

        Raises:
            TooLong: it can't be listened to any more.
        """
        with suppress(*_NO_MORE):
            async with self._reading:
                async for line in _lines(_output_of(self._process)):
                    words = answers.read(line)
                    if words is not None:
                        yield words

    async def write(self) -> None:
        """Write what is sent, until it is closed or the process reads no more."""
        stdin = self._process.stdin
        try:
            with suppress(*_NO_MORE):
                async with self._to_write:
                    async for line in self._to_write:
                        if stdin is not None:
                            await stdin.send(line)
        finally:
            self._is_written.set()

    async def end(self) -> None:
        """Close its input, and stop it with all that it started if it goes on.

        Source: MCP 2025-11-25, lifecycle, shutdown.
        """
        self._unwritten.close()
        async with anyio.create_task_group() as tasks:
            # It may wait for room in its output, and would not read its input until then.
            tasks.start_soon(self._drain)
            with anyio.move_on_after(_FLUSHED_WITHIN_S):
                await self._is_written.wait()
            if self._process.stdin is not None:
                with suppress(*_NO_MORE):
                    await self._process.stdin.aclose()
            if not await _has_ended(self._process):
                await _stop(self._process)
            tasks.cancel_scope.cancel()
        with suppress(*_NO_MORE):
            await _output_of(self._process).aclose()
        _close(self._process)

    async def _drain(self) -> None:
        with suppress(*_NO_MORE):
            async with self._reading:
                while True:
                    await _output_of(self._process).receive()


@asynccontextmanager
async def started(launch: Launch, stderr: TextIO) -> AsyncGenerator[Program]:
    """Run a program as long as the block.

    Raises:
        OSError, ValueError: it can't be started.
    """
    process = await _spawned(launch, stderr)
    # No wait between the start and this group: a cancellation there would leave it running.
    program = Program(process)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program.write)
        try:
            yield program
        finally:
            with anyio.CancelScope(shield=True):
                await program.end()
            tasks.cancel_scope.cancel()


async def _spawned(launch: Launch, stderr: TextIO) -> Process:
    """Start a process, whole also for who is cancelled: half started it would belong to nobody."""
    started = list[Process]()
    with anyio.CancelScope(shield=True):
        process = await anyio.open_process(
            [launch.command, *launch.args],
            env={**given_to_programs(), **launch.env},
            stderr=stderr,
            cwd=launch.cwd or None,
            # A group of its own, which is stopped as one.
            start_new_session=True,
        )
        started.append(process)
    return started[0]


def _output_of(process: Process) -> ByteReceiveStream:
    if process.stdout is None:
        raise anyio.ClosedResourceError
    return process.stdout


async def _lines(stream: ByteReceiveStream) -> AsyncIterator[bytes]:
    rest = bytearray()
    async for chunk in stream:
        *ends, last = chunk.split(b"\n")
        for end in ends:
            rest += end
            yield bytes(rest)
            rest.clear()
        rest += last
        if len(rest) > MAX_LINE_BYTES:
            raise TooLong
    # Its last word, of a server that ended without ending the line.
    if rest:
        yield bytes(rest)


async def _has_ended(process: Process) -> bool:
    """Wait a little for its end.

    Looked at, since to wait for it waits for its output too, which a child may hold open.
    """
    with anyio.move_on_after(_ENDS_WITHIN_S):
        while process.returncode is None:  # noqa: ASYNC110 - see above
            await anyio.sleep(_LOOK_S)
        return True
    return False


async def _stop(process: Process) -> None:
    """End it with all that it started: asked first, then without asking."""
    # Its leader's number is the group's, also when the leader has ended.
    group = process.pid
    for asked in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, asked)
        with anyio.move_on_after(_ENDS_WITHIN_S):
            while _lives(process, group):  # noqa: ASYNC110 - a group tells nobody of its end
                await anyio.sleep(_LOOK_S)
            return
    logger.warning("the process %d does not end", group)


def _lives(process: Process, group: int) -> bool:
    # To look at it takes its leader out of the table of processes, and so out of the group.
    _ = process.returncode
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _close(process: Process) -> None:
    """Let go of its pipes, which a child of it may hold open; nothing public does."""
    transport: Any = getattr(getattr(process, "_process", None), "_transport", None)
    close = getattr(transport, "close", None)
    if callable(close):
        with suppress(PermissionError):
            close()
