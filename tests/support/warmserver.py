"""The process that ``warmstart.py`` starts commands from: it has imported all that they need.

For each start it becomes two, and the new one is the command. It serves until its stdin ends.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NoReturn, TextIO, cast

from coverage import Coverage

import claudemesh_mcp
from claudemesh_mcp.__main__ import main as claudemesh

_STREAMS: Final = 3
_CHUNK: Final = 65_536
# Imported by those who use them, when they do; not keyrings, which are chosen by the environment.
_LATER: Final = ("anyio._backends._asyncio", "websockets.asyncio.client", "segno", "platformdirs")


class Server:
    """Takes starts, and tells each how it ended.

    Args:
        address: Where it listens.
    """

    def __init__(self, address: str) -> None:
        self._lines: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen()
        self._wakes, self._woken = socket.socketpair()
        for end in (self._wakes, self._woken):
            end.settimeout(0)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _note)
        # Whoever interrupts the tests ends it through its stdin.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for readable in (sys.stdin.buffer, self._listener, self._woken):
            self._selector.register(readable, selectors.EVENT_READ)

    def serve(self) -> tuple[str, list[str]] | None:
        """Serve until the tests have ended; in the process of a command, give what it is to do."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin.buffer:
                    return None
                if key.fileobj is self._woken:
                    self._tell()
                elif (command := self._start()) is not None:
                    return command

    def _start(self) -> tuple[str, list[str]] | None:
        line, _ = self._listener.accept()
        _, handles, _, _ = socket.recv_fds(line, 1, _STREAMS)
        asked = b"".join(iter(lambda: line.recv(_CHUNK), b""))
        pid = os.fork()
        if pid == 0:
            for number, handle in enumerate(handles):
                os.dup2(handle, number)
            self._forget(line)
            return _become(asked)
        for handle in handles:
            os.close(handle)
        line.sendall(b"%d\n" % pid)
        self._lines[pid] = line
        return None

    def _tell(self) -> None:
        """Tell those whose commands have ended how they did."""
        with suppress(BlockingIOError):
            self._woken.recv(_CHUNK)
        for pid, line in list(self._lines.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                # Who gave up waiting is not there to be told.
                with suppress(OSError), line:
                    line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
                del self._lines[pid]

    def _forget(self, line: socket.socket) -> None:
        """Let go, in the process of a command, of all that a start from nothing would not have."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        for held in (line, *self._lines.values(), self._listener, self._wakes, self._woken):
            held.detach()
        os.closerange(_STREAMS, os.sysconf("SC_OPEN_MAX"))


def _note(number: int, frame: FrameType | None) -> None:
    """Have the wakeup told: without a handler nothing would be."""


def _become(asked: bytes) -> tuple[str, list[str]]:
    """Take on the environment, folder and streams of a command; gives its program and words."""
    program, words, environment, folder = json.loads(asked)
    os.environ.clear()  # noqa: TID251 - this process gets another's
    os.environ.update(environment)  # noqa: TID251 - as above
    os.chdir(folder)
    # The old ones remember what they were opened on.
    sys.stdin = _reopened(sys.stdin, 0, "r")
    sys.stdout = _reopened(sys.stdout, 1, "w")
    sys.stderr = _reopened(sys.stderr, 2, "w", buffering=1)
    sys.argv = ["-c" if program else claudemesh_mcp.__file__, *words]
    return program, words


def _reopened(stream: TextIO, handle: int, mode: str, buffering: int = -1) -> TextIO:
    said = {"encoding": stream.encoding, "errors": stream.errors}
    return cast("TextIO", open(handle, mode, buffering, closefd=False, **said))


def _run(program: str, words: list[str]) -> NoReturn:
    """Run a command and end as Python does, but for taking down all that was imported."""
    code = 1
    try:
        if program:
            exec(program, {"__name__": "__main__"})  # noqa: S102 - as `python -c`
            code = 0
        else:
            code = claudemesh(words)
    except BaseException:  # noqa: BLE001 - as Python's own outermost frame
        sys.excepthook(*cast("Any", sys.exc_info()))
    finally:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # A command whose reader has left takes it away.
                stream.flush()
        os._exit(code)


def main(address: str) -> None:
    """Serve; in the process of a command, run it."""
    for module in pkgutil.iter_modules(claudemesh_mcp.__path__, "claudemesh_mcp."):
        importlib.import_module(module.name)
    for name in _LATER:
        importlib.import_module(name)
    server = Server(address)
    if measured := Coverage.current():
        measured.save()  # Each command then writes what it adds.
    gc.freeze()  # What is here stays: to look it over would copy it for each command.
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if (command := server.serve()) is not None:
        _run(*command)


if __name__ == "__main__":
    main(sys.argv[1])
