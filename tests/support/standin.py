"""Stands where Python is started, and is told to have a warm server start the program instead.

``warmstart.py`` makes a file of it that is called as Python is, by tests and as `sys.executable` by
what they started. The program is a process of its own, that has the streams, handles, folder and
environment of this one. This one is nothing but whom its starter knows: it passes signals on, ends
as the program has, and if it is killed the program is too. Whatever else Python is started for it
becomes Python for. It imports little: it is started for hundreds of programs.
"""

import marshal
import os
import signal
import socket
import sys
from types import FrameType

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PROGRAMS = ("claudemesh_mcp", "claudemesh_mcp.resident", "claudemesh_broker")
_SHELL_SIGNALLED = 128


def main(address: str, python: str) -> None:
    """Start what the command line says.

    Args:
        address: Where the server listens.
        python: The Python that this one stands for.
    """
    words, told = sys.argv[1:], None
    if words[:1] == ["--told"]:
        told, words = words[1], words[2:]
    if words[:1] != ["-m"] or words[1] not in _PROGRAMS:
        os.execv(python, [python, *words])  # noqa: S606 - it is to become that
    handles = _handles()
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        socket.send_fds(line, [b"\0"], handles)
        asked = {
            "module": words[1],
            "words": words[2:],
            "environment": dict(os.environ),  # noqa: TID251 - to hand on
            "folder": os.getcwd(),  # noqa: PTH109 - pathlib costs a third of a start
            "python": sys.argv[0],
            "handles": handles,
        }
        line.sendall(marshal.dumps(asked))
        answers = line.makefile("rb")
        pid = int(answers.readline())

        def pass_on(number: int, frame: FrameType | None) -> None:
            del frame
            os.kill(pid, number)

        for number in _PASSED_ON:
            signal.signal(number, pass_on)
        for handle in handles:
            os.close(handle)  # Who reads from the program is to see when it closes its own.
        _tell(told, pid)
        status = int(answers.readline())
    _tell(told, status if status >= 0 else _SHELL_SIGNALLED - status)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _handles() -> list[int]:
    """Give all handles that whoever started this process gave it."""
    handles: list[int] = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - as above
        try:
            os.fstat(int(name))
        except OSError:
            continue  # It was that of the list.
        handles.append(int(name))
    return handles


def _tell(file: str | None, number: int) -> None:
    if file is not None:
        handle = os.open(file, os.O_WRONLY)
        os.write(handle, b"%d\n" % number)
        os.close(handle)
