"""The process that ``warmstart.py`` starts programs from: it has imported all that they need.

For each start it becomes two, and the new one is the command; for one that ``standin.py`` asks for
it becomes three, since a session looks for its client among the processes above it, and those of
two are not the same. It serves until its stdin ends.
"""

import atexit
import fcntl
import gc
import marshal
import os
import selectors
import signal
import socket
import sys
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Final, NoReturn, NotRequired, TextIO, TypedDict, cast

from coverage import Coverage
from pydantic import BaseModel

import claudemesh_broker.__main__
import claudemesh_mcp.__main__
import claudemesh_mcp.resident
from tests.support.checkout import PACKAGES, ROOT, import_all

_STREAMS: Final = 3
_MOST_HANDLES: Final = 64
_CHUNK: Final = 65_536
# Imported by those who use them, when they do; not keyrings, which are chosen by the environment.
_LATER: Final = (
    "anyio._backends._asyncio",
    "platformdirs",
    "rich.console",
    "rich.table",
    "segno",
    "typer._adapters",
    "websockets.asyncio.client",
)
_PROGRAMS: Final[dict[str, ModuleType]] = {
    "claudemesh_mcp": claudemesh_mcp.__main__,
    "claudemesh_mcp.resident": claudemesh_mcp.resident,
    "claudemesh_broker": claudemesh_broker.__main__,
}


class Asked(TypedDict):
    """What is to be started.

    Args:
        module: What to run, as ``python -m`` does.
        words: The words behind it.
        environment: All that it finds there.
        folder: Where it works.
        program: Python to run in its place, as ``python -c`` does.
        python: What it is to start Python by, if not the one that it runs on.
        is_measured: Whether its coverage is.
        handles: The numbers that it has the handles by which came along, if it stays.
    """

    module: str
    words: list[str]
    environment: dict[str, str]
    folder: str
    program: NotRequired[str]
    python: NotRequired[str]
    is_measured: NotRequired[bool]
    handles: NotRequired[list[int]]


class Server:
    """Takes starts, and tells each how it ended.

    Args:
        address: Where it listens.
    """

    def __init__(self, address: str) -> None:
        self._lines: dict[int, socket.socket | None] = {}
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

    def serve(self) -> Asked | None:
        """Serve until the tests have ended; in the process of a program, give what it is to do."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin.buffer:
                    signal.set_wakeup_fd(-1)  # What ends from now on is told to nobody.
                    return None
                if key.fileobj is self._woken:
                    self._tell()
                elif (asked := self._start()) is not None:
                    return asked

    def _start(self) -> Asked | None:
        line, _ = self._listener.accept()
        _, handles, _, _ = socket.recv_fds(line, 1, _MOST_HANDLES)
        try:
            with line.makefile("rb") as said:
                asked: Asked = marshal.load(said)  # noqa: S302 - the tests' own
        except EOFError:  # Who was killed asking has asked for nothing.
            _drop(handles, line)
            return None
        pid = os.fork()
        if pid == 0:
            self._forget()
            _begin(asked, line, handles)
            return asked
        is_told_here = "handles" not in asked
        self._lines[pid] = line if is_told_here else None
        if is_told_here:
            _answer(line, pid)
        _drop(handles, None if is_told_here else line)
        return None

    def _tell(self) -> None:
        """Tell those whose commands have ended how they did."""
        with suppress(BlockingIOError):
            self._woken.recv(_CHUNK)
        for pid, line in list(self._lines.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                if line is not None:
                    _answer(line, os.waitstatus_to_exitcode(status))
                    line.close()
                del self._lines[pid]

    def _forget(self) -> None:
        """Let go, in the process of a command, of what only the server needs."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        for held in (*self._lines.values(), self._listener, self._wakes, self._woken):
            if held is not None:
                held.close()


def _note(number: int, frame: FrameType | None) -> None:
    """Have the wakeup told: without a handler nothing would be."""


def _begin(asked: Asked, line: socket.socket, handles: list[int]) -> None:
    """Give the process of a program what it has, and nothing else."""
    numbers = list(range(_STREAMS))
    if "handles" in asked:
        numbers = asked["handles"]
        _stand_between(line, handles)
    line.detach()  # It is closed below.
    above = max(*numbers, *handles) + 1
    kept = [fcntl.fcntl(handle, fcntl.F_DUPFD, above) for handle in handles]
    for handle, number in zip(kept, numbers, strict=True):
        os.dup2(handle, number)
    for handle in range(above):
        if handle not in numbers:
            with suppress(OSError):
                os.close(handle)
    os.closerange(above, os.sysconf("SC_OPEN_MAX"))
    _become(asked)


def _drop(handles: list[int], line: socket.socket | None = None) -> None:
    for handle in handles:
        os.close(handle)
    if line is not None:
        line.close()


def _stand_between(line: socket.socket, handles: list[int]) -> None:
    """Become two: the program, which alone returns, and its parent, which lives as long.

    The program ends with whoever asked for it, as one that is killed would end with itself.
    """
    pid = os.fork()
    if pid == 0:
        os.setsid()
        return
    _drop(handles)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(_STREAMS):
        os.dup2(nothing, number)
    _answer(line, pid)
    threading.Thread(target=_kill_without, args=(line, pid), daemon=True).start()
    _, status = os.waitpid(pid, 0)
    _answer(line, os.waitstatus_to_exitcode(status))
    os._exit(0)


def _kill_without(line: socket.socket, pid: int) -> None:
    with suppress(OSError):
        line.recv(1)  # Nothing is said: it ends.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _answer(line: socket.socket, number: int) -> None:
    """Say a number; who gave up waiting is not there to be told."""
    with suppress(OSError):
        line.sendall(b"%d\n" % number)


def _become(asked: Asked) -> None:
    """Take on the environment, folder and streams of a program."""
    os.environ.clear()  # noqa: TID251 - this process gets another's
    os.environ.update(asked["environment"])  # noqa: TID251 - as above
    os.chdir(asked["folder"])
    # The old ones remember what they were opened on.
    sys.stdin = _reopened(sys.stdin, 0, "r")
    sys.stdout = _reopened(sys.stdout, 1, "w")
    sys.stderr = _reopened(sys.stderr, 2, "w", buffering=1)
    program = "-c" if "program" in asked else str(_PROGRAMS[asked["module"]].__file__)
    sys.argv = [program, *asked["words"]]
    sys.executable = asked.get("python", sys.executable)


def _reopened(stream: TextIO, handle: int, mode: str, buffering: int = -1) -> TextIO:
    said = {"encoding": stream.encoding, "errors": stream.errors}
    return cast("TextIO", open(handle, mode, buffering, closefd=False, **said))


def _run(asked: Asked, coverage: Coverage) -> NoReturn:
    """Run a program and end as Python does, but for taking down all that was imported."""
    code = 1
    if asked.get("is_measured"):
        atexit.register(coverage.save)
        coverage.start()
    try:
        if "program" in asked:
            exec(asked["program"], {"__name__": "__main__"})  # noqa: S102 - as `python -c`
            code = 0
        else:
            code = _PROGRAMS[asked["module"]].main(asked["words"])
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


def _complete(model: type[BaseModel]) -> None:
    """Build what models of the product put off until they are used: each program would again."""
    if model.__module__.partition(".")[0] in PACKAGES:
        model.model_rebuild()
    for one in model.__subclasses__():
        _complete(one)


def _prepared() -> Coverage:
    """Give what measures a command: to get it ready takes as long as the command does.

    It names no files that the command never ran, which takes even longer: the tests do.
    """
    ours = [f"{Path(sys.modules[name].__file__ or '').parent}/*" for name in PACKAGES]
    coverage = Coverage(config_file=str(ROOT / "pyproject.toml"), source_pkgs=[], include=ours)
    coverage.start()
    coverage.stop()
    return coverage


def main(address: str) -> None:
    """Serve; in the process of a program, run it."""
    import_all()
    for name in _LATER:
        import_module(name)
    _complete(BaseModel)
    coverage = _prepared()
    server = Server(address)
    gc.freeze()  # What is here stays: to look it over would copy it for each command.
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if (asked := server.serve()) is not None:
        _run(asked, coverage)


if __name__ == "__main__":
    main(sys.argv[1])
