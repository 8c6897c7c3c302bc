"""Two machines as far as the network goes: namespaces of the test's own, joined by a virtual cable.

It takes root, Linux and ``ip``; a test that has not got them says so and runs on one machine.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

HOST: Final = "10.213.7.1"
GUEST: Final = "10.213.7.2"


@dataclass(frozen=True)
class Cable:
    """Two namespaces and the addresses that each reaches the other by."""

    host: str
    guest: str

    def at_host(self, *words: str) -> list[str]:
        """The command that runs these words on the host."""
        return ["ip", "netns", "exec", self.host, *words]

    def at_guest(self, *words: str) -> list[str]:
        """The command that runs these words on the guest's machine."""
        return ["ip", "netns", "exec", self.guest, *words]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def is_possible() -> bool:
    """Tell whether this process may make network namespaces."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"cm{uuid.uuid4().hex[:8]}"
    try:
        _ip("netns", "add", name)
        _ip("netns", "del", name)
    except subprocess.CalledProcessError:
        return False
    return True


@contextmanager
def a_cable() -> Iterator[Cable]:
    """Make two machines with one cable between them, and take them away again."""
    mark = uuid.uuid4().hex[:6]
    cable = Cable(f"cmh{mark}", f"cmg{mark}")
    try:
        for name in (cable.host, cable.guest):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        ends = (f"vh{mark}", f"vg{mark}")
        _ip(
            *("link", "add", ends[0], "netns", cable.host),
            *("type", "veth", "peer", "name", ends[1], "netns", cable.guest),
        )
        places = zip((cable.host, cable.guest), ends, (HOST, GUEST), strict=True)
        for name, end, address in places:
            _ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
        # Each knows a way to everywhere, as machines do: by that a broker tells its own address.
        for name, beyond in ((cable.host, GUEST), (cable.guest, HOST)):
            _ip("-n", name, "route", "add", "default", "via", beyond)
        yield cable
    finally:
        for name in (cable.host, cable.guest):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
