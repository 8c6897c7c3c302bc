"""The plugin on a disk of the test's own: a copy of its folder, a registry, a client of its server.

``tests/plugin`` starts the plugin's parts with these as a client does. The copy pins one package
instead of all the libraries; it stands in the registry here and leads to those of the tests, so
that a real pip installs it in a second, hashes and all.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from tests.support.checkout import ROOT

LIMIT_S: Final = 90
START: Final = "claudemesh_mcp/plugin/start.sh"
HELLO: Final = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "tester", "version": "1"},
}
_PARTS: Final = ("claudemesh_mcp", "broker", ".claude-plugin", "skills")
_NAME: Final = "claudemesh_libs"
_WHEEL: Final = f"{_NAME}-1-py3-none-any.whl"


def base_python() -> str:
    """Give the Python that the environment of the tests was made of."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def wheel() -> bytes:
    """Give the one package: a file that leads Python to the libraries of the tests."""
    info = f"{_NAME}-1.dist-info"
    files = {
        f"{_NAME}.pth": sysconfig.get_path("purelib") + "\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: 1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{name},{digest(text.encode())},{len(text)}" for name, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return packed.getvalue()


def digest(data: bytes) -> str:
    """Give a hash as a wheel's record has it."""
    return f"sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')}"


def copy_plugin(folder: Path) -> Path:
    """Copy the plugin, with a lock that pins the one package."""
    ignored = shutil.ignore_patterns("__pycache__")
    for part in _PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    pinned = f"{_NAME}==1 --hash=sha256:{hashlib.sha256(wheel()).hexdigest()}\n"
    (folder / "requirements.lock").write_text(pinned, "utf-8")
    return folder


@dataclass
class Registry:
    """A package registry on loopback, which can be out of reach.

    Args:
        port: Where it listens, or is going to.
    """

    port: int
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """What pip is told."""
        return f"http://127.0.0.1:{self.port}/simple"

    @contextmanager
    def open(self) -> Iterator[None]:
        """Be reached."""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                is_file = self.path.endswith(".whl")
                data = wheel() if is_file else f'<a href="/{_WHEEL}">{_WHEEL}</a>'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keep quiet."""

        server = _Server(("127.0.0.1", self.port), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    allow_reuse_port = True


def a_socket(port: int = 0) -> socket.socket:
    """Give a socket on loopback, at a port that others of these may have too."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


@contextmanager
def a_registry() -> Iterator[Registry]:
    """Give a registry that is out of reach, at a port that is kept for it."""
    with a_socket() as kept:
        yield Registry(kept.getsockname()[1])


@dataclass
class Plugin:
    """One user's plugin.

    Args:
        root: The plugin's folder.
        folder: Where the data folder and the user's home are.
        registry: What its pip asks.
    """

    root: Path
    folder: Path
    registry: Registry

    @property
    def data(self) -> Path:
        """The plugin's data folder."""
        return self.folder / "data"

    @property
    def project(self) -> Path:
        """What its sessions work on."""
        return self.folder / "project"

    def environment(self, **more: str) -> dict[str, str]:
        """What the client's programs find: a PATH with a Python of the system and little else."""
        tools = self.folder / "bin"
        if not tools.exists():
            self.project.mkdir(parents=True)
            tools.mkdir()
            (tools / "python3").symlink_to(base_python())
            for name in ("sh", "mkdir", "mv"):
                (tools / name).symlink_to(str(shutil.which(name)))
        return {
            "PATH": str(tools),
            "HOME": str(self.folder),
            "CLAUDEMESH_HOME": str(self.folder / "home"),
            "CLAUDEMESH_KEYRING": "off",
            "CLAUDE_PROJECT_DIR": str(self.project),
            "PIP_INDEX_URL": self.registry.url,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_CACHE_DIR": "1",
            **more,
        }

    def program(self, name: str, script: str) -> Path:
        """Put a program on the PATH of the client."""
        self.environment()
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)
        return path

    def command(self, *words: str) -> list[str]:
        """Give the command that starts a part of it."""
        return ["sh", str(self.root / START), str(self.data), *words]

    def run(
        self, *words: str, stdin: bytes = b"", **more: str
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run a part of it to its end."""
        return subprocess.run(
            self.command(*words),
            env=self.environment(**more),
            cwd=self.project,
            input=stdin,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )

    @contextmanager
    def server(self, **more: str) -> Iterator["Served"]:
        """Start its server, and be its client."""
        with subprocess.Popen(
            self.command("server"),
            env=self.environment(**more),
            cwd=self.project if self.environment() else None,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield Served(process)
            finally:
                assert process.stdin
                process.stdin.close()
                try:
                    process.wait(LIMIT_S)
                finally:
                    process.kill()


@dataclass
class Served:
    """A client of the plugin's server, over its pipes.

    Args:
        process: The server, whatever it is at the time.
    """

    process: "subprocess.Popen[bytes]"
    told: list[str] = field(default_factory=list)
    _number: int = 0

    def say(self, message: dict[str, Any]) -> None:
        """Send a line."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Read a line."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the server has ended"
        return json.loads(line)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask, and give what is answered; what the server tells meanwhile is kept."""
        self._number += 1
        self.say({"id": self._number, "method": method, "params": params})
        while "id" not in (answer := self.hear()):
            self.told.append(answer["method"])
        assert answer["id"] == self._number
        return answer

    def greet(self) -> dict[str, Any]:
        """Shake hands; gives what the server says of itself."""
        greeting = self.ask("initialize", **HELLO)["result"]
        self.say({"method": "notifications/initialized"})
        return greeting

    def tools(self) -> list[str]:
        """Name the tools that it has."""
        return [tool["name"] for tool in self.ask("tools/list")["result"]["tools"]]

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; gives what it found, in the form for programs."""
        result = self.ask("tools/call", name=tool, arguments=arguments)["result"]
        shown = result["structuredContent"]
        assert json.loads(result["content"][0]["text"]) == shown
        return shown
