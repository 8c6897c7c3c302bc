"""Starts processes that open the wrapping key of a home, and kills them where a test says."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claudemesh_mcp.config import broker_environment
from tests.support import warmstart
from tests.support.warmstart import Start

LIMIT_S = 60
PROGRAM = """
import json, os, signal, sys
from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home
from claudemesh_mcp.keystore import open_wrapping_key
from claudemesh_wire.errors import MeshError

kill_at, asked = sys.argv[1], []

def checkpoint(name):
    if name == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

def listen(event, args):
    if event == "subprocess.Popen" and "claudemesh_mcp.oskeyring" in args[1]:
        asked.append(args)

sys.addaudithook(listen)
settings = Settings.load()
home = Home.open(settings.paths())
try:
    with home.lock():
        found = open_wrapping_key(home, settings, checkpoint)
except MeshError as error:
    print(json.dumps({"code": error.code}))
else:
    told = {"profile": found.profile_id, "key": found.key.hex(), "storage": found.storage}
    print(json.dumps(told | {"warned": bool(found.warning), "asked": bool(asked)}))
"""


@dataclass
class Starts:
    """Starts processes that open the wrapping key of one home."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def use(self, backend: str) -> None:
        """Choose the keyring of the starts to come."""
        self.environ["PYTHON_KEYRING_BACKEND"] = backend

    def command(self, kill_at: str = "", first: str = "") -> list[str]:
        """Give the command of a start, with some lines of Python to run first."""
        return [sys.executable, "-c", first + PROGRAM, kill_at]

    def whole_environ(self) -> dict[str, str]:
        """Give the environment of a start."""
        return broker_environment() | {
            "HOME": str(self.folder),
            "CLAUDEMESH_HOME": str(self.folder / "home"),
            "TEST_KEYRING": str(self.folder / "keyring.json"),
            **self.environ,
        }

    def __call__(self, kill_at: str = "", first: str = "") -> dict[str, Any]:
        """Start once, and say what it found or at which step it was killed."""
        environ = self.whole_environ()
        if first:
            ended = subprocess.run(
                self.command(kill_at, first),
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=LIMIT_S,
            )
        else:
            warm = Start((kill_at,), environ, self.folder, program=PROGRAM)
            ended = warmstart.run(warm, LIMIT_S)
        if ended.returncode == -signal.SIGKILL:
            return {"killed": kill_at}
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)
