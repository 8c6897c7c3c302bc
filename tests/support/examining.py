"""Runs `claudemesh doctor` as a user does, and holds each finding to its form.

The tests of the doctor on real homes ask here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from claudemesh_wire import VERSION
from tests.support.shell import Shell, shell_in


@contextmanager
def a_machine(folder: Path, *, is_used: bool = False) -> Iterator[Shell]:
    """Open a shell on whose PATH is a program of this version, and no claude.

    Args:
        folder: Where its home is.
        is_used: Whether that home works already.
    """
    with shell_in(folder) as shell:
        install(shell, "claudemesh", f"echo {VERSION}")
        assert not is_used or shell.run("peers").code == 0
        yield shell


def install(shell: Shell, name: str, script: str) -> None:
    """Put a program on the PATH that the doctor finds."""
    file = shell.folder / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def examined(shell: Shell, *flags: str, code: int = 0, **environment: str) -> dict[str, Any]:
    """Run the doctor; gives each check's finding by its name."""
    path = f"{shell.folder / 'bin'}:/usr/bin:/bin"
    done = shell.run(*flags, "doctor", "--json", stdin=b"", PATH=path, **environment)
    assert (done.code, done.err) == (code, "")
    assert done.json["ok"] == (code == 0)
    found = {one["name"]: one for one in done.json["checks"]}
    assert len(found) == len(done.json["checks"])
    for one in found.values():
        assert set(one) == {"name", "state", "message", "fix"}
        assert one["message"]
        lacks_client = one["name"] == "claude" and one["state"] == "skip"
        assert bool(one["fix"]) == (one["state"] in {"warn", "fail"} or lacks_client)
    return found


def states(found: dict[str, Any], state: str) -> set[str]:
    return {name for name, one in found.items() if one["state"] == state}
