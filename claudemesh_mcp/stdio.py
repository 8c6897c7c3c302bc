"""Serves the client that started this process, over stdin and stdout.

``__main__.py`` calls ``run``; the serving itself is ``server.py``'s. Two threads do the blocking
reads and writes: they work for pipes, sockets, terminals and files alike, and a client that reads
slowly stops nothing but its own output.
"""

import asyncio
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from claudemesh_mcp.behind import Session
from claudemesh_mcp.handover import Continued, Handover, Unrepeated
from claudemesh_mcp.offer import Offer
from claudemesh_mcp.server import serve
from claudemesh_mcp.streams import Reader, Writer

CHUNK_BYTES: Final = 65_536
AHEAD: Final = 4
# Small enough that a pipe takes it whole, with room for little else that nobody has read.
LAST_BYTES: Final = 512
EXIT_S: Final = 6.0
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")


class Stdin:
    """Reads a file descriptor in a thread of its own.

    Args:
        descriptor: What to read; it is never closed here.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._ahead = threading.Semaphore(AHEAD)
        self._total = 0
        # A daemon, because nothing but the client ends a blocking read.
        threading.Thread(target=self._run, name="stdin", daemon=True).start()

    async def read(self) -> bytes:
        """Wait for bytes; none means the end."""
        chunk = await self._chunks.get()
        self._ahead.release()
        return chunk

    def received(self) -> int:
        """Count the bytes read and those that wait in the pipe."""
        # In this order a byte may be counted twice, but none is missed: a result may be taken for
        # unproved once more, never for proved by what was sent before it.
        waiting = _waiting(self._descriptor)
        return self._total + waiting

    def _run(self) -> None:
        chunk = b"more"
        # A loop that has closed needs no more of it.
        with suppress(RuntimeError):
            while chunk:
                self._ahead.acquire()
                try:
                    chunk = os.read(self._descriptor, CHUNK_BYTES)
                except OSError:
                    chunk = b""
                self._total += len(chunk)
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)


class Stdout:
    """Writes to a file descriptor in a thread of its own.

    Args:
        descriptor: Where to write; it is never closed here.
        received: Counts what has come from the client. Asked in the thread that writes and before
            the last piece is written: a fast client's next request would be counted too once it
            has the whole.
    """

    def __init__(self, descriptor: int, received: Callable[[], int]) -> None:
        self._descriptor = descriptor
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[tuple[bytes, asyncio.Future[int]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="stdout", daemon=True).start()

    async def write(self, data: bytes) -> int:
        """Write all of it; give what had been received when the last of it went out.

        Raises:
            OSError: nobody reads any more.
        """
        done: asyncio.Future[int] = self._loop.create_future()
        self._work.put((data, done))
        return await done

    def _run(self) -> None:
        with suppress(RuntimeError):
            while True:
                data, done = self._work.get()
                outcome = self._write(data)
                self._loop.call_soon_threadsafe(_settle, done, outcome)

    def _write(self, data: bytes) -> int | OSError:
        last = max(0, len(data) - LAST_BYTES)
        try:
            self._write_all(memoryview(data)[:last])
            received = self._received()
            self._write_all(memoryview(data)[last:])
        except OSError as failure:
            return failure
        return received

    def _write_all(self, rest: memoryview) -> None:
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


def run(session: Session, offer: Offer, handover: Handover | None = None) -> int:
    """Serve until stdin ends, stdout breaks or a signal comes; all of these are good ends.

    Args:
        session: What is served.
        offer: What the client is told.
        handover: What the client has said to another process that served it before.
    """
    source, sink = _own_streams()
    with suppress(KeyboardInterrupt), asyncio.Runner() as runner:
        runner.run(_serve((source, sink), session, offer, handover))
    return 0


def leave(code: int) -> NoReturn:
    """End the process without taking down all that was imported, which takes longer than the rest.

    What is waited for is what Python waits for too: threads that are no daemons, and the log. The
    session is closed by then, and ``Stdout`` keeps nothing back.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    logging.shutdown()
    # Whoever read it may have gone; there may never have been one.
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    os._exit(code)


async def _serve(
    streams: tuple[int, int], session: Session, offer: Offer, handover: Handover | None
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        _exit_at_the_latest()
        stopping.set()

    for name in _SIGNALS:
        # Windows has other signals, and its loop takes none.
        with suppress(AttributeError, NotImplementedError):
            loop.add_signal_handler(getattr(signal, name), stop)
    reader, writer = _open(*streams, handover)
    await serve(reader, writer, session, offer, stopping)
    _exit_at_the_latest()
    _ignore_signals(loop)


def _open(source: int, sink: int, handover: Handover | None) -> tuple[Reader, Writer]:
    reader: Reader = Stdin(source)
    if handover is not None:
        reader = Continued(reader, handover)
    writer = Stdout(sink, reader.received)
    return reader, Unrepeated(writer, reader) if handover and handover.is_greeted else writer


def _ignore_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Let no signal that comes once more turn a good end into a death by signal."""
    for name in _SIGNALS:
        with suppress(AttributeError, NotImplementedError):
            number = getattr(signal, name)
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


def _own_streams() -> tuple[int, int]:
    """Take stdin and stdout for the protocol alone.

    What prints, here or in a child process, prints to stderr; what reads, reads nothing.
    """
    # Where a stream was closed its number is free: nothing else may come to lie there.
    while (nothing := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    source, sink = os.dup(_STDIN), os.dup(_STDOUT)
    os.dup2(nothing, _STDIN)
    os.dup2(_STDERR, _STDOUT)
    os.close(nothing)
    for descriptor in (source, sink):
        os.set_blocking(descriptor, True)
    sys.stdout = sys.stderr
    return source, sink


def _exit_at_the_latest() -> None:
    """End the process even if a library's thread hangs, on a keyring or a name server."""
    timer = threading.Timer(EXIT_S, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _waiting(descriptor: int) -> int:
    """Count the bytes that the operating system holds for a reader; 0 where it can't tell."""
    try:
        import fcntl
        import termios

        count = bytearray(4)
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
    except (ImportError, OSError):
        return 0
    return int.from_bytes(count, sys.byteorder)


def _settle(done: asyncio.Future[int], outcome: int | OSError) -> None:
    if done.done():
        return
    if isinstance(outcome, OSError):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
