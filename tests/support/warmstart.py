"""Runs commands, sessions and brokers as processes that begin with everything imported.

``shell.py`` asks for commands, ``live.py``, ``hosting.py`` and ``foreground.py`` for what stays:
most of what a start costs is its imports, and the suite makes well over a thousand.
``warmserver.py`` imports them once, and becomes two for each. That has a process of its own all
the same: id, exit code, locks, environment, folder. The brokers that those start begin warm too:
what they start Python by is ``standin.py``. What a start from nothing does is seen by the tests
that make one: of the README, of embedded brokers, of the plugin, of the real client.
"""

import atexit
import marshal
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Final

from coverage import Coverage

from claudemesh_mcp.config import broker_environment
from tests.support.sockets import for_sockets

MOST_STDIN_BYTES: Final = 16 * 1024
"""What every system's pipe takes at once: nobody has to feed it while another reads."""
_CHUNK: Final = 65_536
_STANDIN: Final = """#!{python} -IS
import sys
sys.path.append({folder!r})
from standin import main
main({address!r}, {python!r})
"""
# They say or look up what they were started by, for others to start again.
_NAMING: Final = frozenset({"doctor", "install", "launch", "statusline", "uninstall"})
_MEASURED: Final[set[tuple[object, ...]]] = set()


@dataclass(frozen=True)
class Start:
    """What a command is started with.

    Args:
        words: The words behind `claudemesh`.
        environment: All that it finds there.
        folder: Where it works.
        stdin: What it may read, at most ``MOST_STDIN_BYTES``.
        program: Python to run in place of `claudemesh`, as ``python -c`` does.
    """

    words: tuple[str, ...]
    environment: dict[str, str]
    folder: Path
    stdin: bytes = b""
    program: str = ""


def run(start: Start, limit_s: float) -> "subprocess.CompletedProcess[bytes]":
    """Run a command to its end.

    Raises:
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(_server())
        out, err = _begin(line, start.stdin)
        line.sendall(marshal.dumps(_asked(start)))
        answers = line.makefile("rb")
        pid = int(answers.readline())
        until = monotonic() + limit_s
        try:
            said = _read((out, err), until)
            line.settimeout(max(1.0, until - monotonic()))
            status = int(answers.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(["claudemesh", *start.words], limit_s) from None
        finally:
            os.close(out)
            os.close(err)
    return subprocess.CompletedProcess(start.words, status, said[out], said[err])


def _asked(start: Start) -> dict[str, object]:
    """Give what the server's ``Asked`` is."""
    asked: dict[str, object] = {
        "module": "claudemesh_mcp",
        "words": list(start.words),
        "environment": start.environment,
        "folder": str(start.folder),
    }
    if _is_first(start):
        asked["is_measured"] = True
    if start.program:
        asked["program"] = start.program
    elif _NAMING.isdisjoint(start.words[:1]):
        asked["python"] = python()
    return asked


def python() -> str:
    """Give what Python can be started by so that our programs start warm; see ``standin.py``."""
    file = Path(_server()).with_name("python")
    if not file.exists():
        folder = str(Path(__file__).parent)
        named = {"python": sys.executable, "folder": folder, "address": str(file.with_name("line"))}
        file.write_text(_STANDIN.format(**named), "utf-8")
        file.chmod(0o700)
    return str(file)


def _begin(line: socket.socket, stdin: bytes) -> tuple[int, int]:
    """Send the ends of three pipes that the command gets; gives those to read from."""
    (its_in, feed), (out, its_out), (err, its_err) = (os.pipe() for _ in range(3))
    os.write(feed, stdin)
    os.close(feed)
    socket.send_fds(line, [b"\0"], [its_in, its_out, its_err])
    for handle in (its_in, its_out, its_err):
        os.close(handle)
    return out, err


def _read(handles: tuple[int, ...], until: float) -> dict[int, bytes]:
    """Read all to their ends: that of the last process that holds them."""
    parts: dict[int, list[bytes]] = {handle: [] for handle in handles}
    with selectors.DefaultSelector() as selector:
        for handle in handles:
            selector.register(handle, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, until - monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                read = os.read(key.fd, _CHUNK)
                parts[key.fd].append(read)
                if not read:
                    selector.unregister(key.fd)
    return {handle: b"".join(read) for handle, read in parts.items()}


def _is_first(start: Start) -> bool:
    """Tell whether it is the first of its kind in this process, if coverage is measured at all.

    To measure a command costs as much again as to run it, and its like shows hardly a line more.
    """
    names = tuple(word for word in start.words[:2] if word.isalpha())
    options = frozenset(word for word in start.words if word.startswith("-"))
    kind = (start.program, names, options)
    if Coverage.current() is None or kind in _MEASURED:
        return False
    _MEASURED.add(kind)
    return True


@cache
def _server() -> str:
    """Start a server, one in a process that runs tests; gives its address."""
    folder = tempfile.TemporaryDirectory(prefix="warm-", dir=for_sockets())
    address = f"{folder.name}/line"
    program = Path(__file__).with_name("warmserver.py")
    process = subprocess.Popen(
        [sys.executable, "-P", program, address],
        env=broker_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def end() -> None:
        process.communicate()  # It ends with its stdin.
        folder.cleanup()

    atexit.register(end)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return address
