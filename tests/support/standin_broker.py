"""A process that keeps the launcher's side of the contract, or breaks it in one chosen way.

The real broker can't be old, deaf or beaten on demand. Only the standard library, so that it is up
at once. Arguments: data folder, run folder, version, way; the launcher adds `--start-lock` with the
descriptor of the lock that a broker keeps until it holds its data.
"""

import base64
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path


def replace(path: Path, told: object) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        json.dump(told, file)
    temporary.replace(path)


def refuse(run: Path) -> None:
    error = {
        "category": "conflict",
        "code": "data_newer",
        "message": "The database is newer.",
        "hint": "Upgrade.",
    }
    replace(run / "broker-error.json", {"error": error})
    sys.exit(1)


def be_beaten(run: Path) -> None:
    """End as a broker does that finds another one on its data, which is up a little later."""
    command = [sys.executable, *sys.argv[:4], "announced"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as winner:
        assert winner.stdout is not None
        winner.stdout.readline()
        refuse(run)


def hold(data: Path) -> None:
    handle = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    if "--start-lock" in sys.argv:
        os.close(int(sys.argv[-1]))


def serve(data: Path, run: Path, version: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        told = {
            "id": "b_" + "a" * 26,
            "url": f"http://127.0.0.1:{server.getsockname()[1]}",
            "token": base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("="),
            "pid": os.getpid(),
            "version": version,
            "data": str(data),
            "data_version": 1,
            "started_ms": 1,
        }
        replace(run / "broker.json", told)
        while True:
            server.accept()[0].close()


def main(data: Path, run: Path, version: str, way: str) -> None:
    """Do what the way says; each start is noted in a file."""
    with (run / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if way == "silent":
        sys.exit(3)
    if way == "refuses":
        refuse(run)
    if way == "beaten":
        be_beaten(run)
    if way == "mute":  # until somebody opens the other end
        (run / "end").open().close()
        return
    if way == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hold(data)
    if way in {"announced", "stuck"}:
        os.write(1, b"held\n")
    if way == "stuck":
        threading.Event().wait()
    serve(data, run, version)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
