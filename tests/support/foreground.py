"""A broker in the foreground, for the sessions of its own home and for whoever reaches it.

The process tests of TLS, proxy and backup start it through here and speak to it over real sockets.
"""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from claudemesh_mcp.brokerinfo import BrokerInfo, read_info
from claudemesh_mcp.config import Settings, broker_environment
from tests.support import warmstart

LIMIT_S = 60


@dataclass
class Hosted:
    """A broker that runs.

    Args:
        popen: Its process.
        home: The home whose sessions find it.
        says: The line that it printed when it began to listen; with ``end`` all it printed.
    """

    popen: subprocess.Popen[bytes]
    home: Path
    says: str

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.home / "broker"

    @property
    def info(self) -> BrokerInfo:
        """What it says to the sessions of its home."""
        info = read_info((self.home / "run" / "broker.json").read_bytes())
        assert info is not None
        return info

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and wait until it has ended."""
        self.popen.send_signal(number)
        said, complained = self.popen.communicate(timeout=LIMIT_S)
        self.says += (said + complained).decode()
        return self.popen.returncode


def settings_of(home: Path) -> Settings:
    """Give the settings of a session of a home."""
    return Settings(home=home, keyring=False)


def command(home: Path, *words: str) -> list[str]:
    """Give the command that starts the broker's program on the data of a home."""
    program = [warmstart.python(), "-m", "claudemesh_broker", *words]
    return [*program, "--data", str(home / "broker")]


def environment(**more: str) -> dict[str, str]:
    """Give an environment with nothing of the machine's own settings."""
    machine = broker_environment().items()
    return {name: value for name, value in machine if "CLAUDEMESH" not in name} | more


@contextmanager
def hosted(folder: Path, *flags: str, **variables: str) -> Iterator[Hosted]:
    """Run a broker for a home in a folder, and end it."""
    home = folder / "home"
    for made in (home, home / "run"):
        made.mkdir(0o700, parents=True, exist_ok=True)
    words = command(home, "run", "--port", "0", "--run", str(home / "run"), *flags)
    popen = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Unbuffered: what follows the first line is left to be read at the end.
        bufsize=0,
        env=environment(**variables),
        cwd=folder,
    )
    assert popen.stdout is not None
    try:
        says = popen.stdout.readline().decode()
        assert says, popen.communicate()[1]
        yield Hosted(popen, home, says)
    finally:
        popen.kill()
        popen.communicate()


def run_to_its_end(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the broker's program to its end."""
    return subprocess.run(
        [warmstart.python(), "-m", "claudemesh_broker", *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=environment(CLAUDEMESH_HOME=str(home)),
    )
