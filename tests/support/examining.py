"""Runs `claudemesh doctor` as a user does, and holds each finding to its form.

The tests of the doctor on real homes ask here.
"""

from typing import Any

from tests.support.shell import Shell


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
