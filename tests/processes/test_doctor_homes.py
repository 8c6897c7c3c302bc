"""`claudemesh doctor` on homes in which something is damaged, and what its remedies do."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.examining import a_machine, examined
from tests.support.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with a_machine(tmp_path) as shell:
        yield shell


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A home that works; each test leaves it as it was."""
    with a_machine(tmp_path_factory.mktemp("used"), is_used=True) as shell:
        yield shell


A_TOKEN = "B" * 43


@pytest.mark.parametrize(
    ("written", "state"),
    [
        ("{bad", "fail"),
        ({"token": "too short"}, "fail"),
        ({"token": A_TOKEN}, "fail"),
        ({"pid": 1}, "fail"),
        (None, "warn"),
    ],
)
def test_a_broker_that_runs_and_is_not_found_by_its_file_is_told_with_what_helps(
    used: Shell, written: str | dict[str, Any] | None, state: str
) -> None:
    assert used.run("up").code == 0
    file = used.home / "run" / "broker.json"
    if isinstance(written, dict):
        file.write_text(json.dumps({**json.loads(file.read_bytes()), **written}))
    elif written is None:
        file.unlink()
    else:
        file.write_text(written)
    found = examined(used, code=int(state == "fail"))["broker"]
    assert found["state"] == state
    assert str(file) in found["message"]
    assert found["fix"].endswith("claudemesh down, then claudemesh up")
    assert "The broker has ended." in used.run("down").err
    assert used.run("up").code == 0
    assert examined(used)["broker"]["state"] == "ok"


def test_a_home_that_is_a_file_is_told_and_no_log_in_it_is_named(shell: Shell) -> None:
    shell.home.rmdir()
    shell.home.write_text("a file")
    found = examined(shell, code=1)
    shell.home.unlink()
    shell.home.mkdir(mode=0o700)
    assert found["home"]["state"] == "fail"
    assert "CLAUDEMESH_HOME" in found["home"]["fix"]
    assert all(str(shell.home / "logs") not in one["fix"] for one in found.values())


def test_keys_that_only_a_file_protects_are_a_warning_unless_it_is_meant_so(used: Shell) -> None:
    found = examined(used, CLAUDEMESH_KEYRING="on")["keys"]
    assert found["state"] == "warn"
    assert found["fix"].endswith("claudemesh config set keyring off")
    assert used.run("config", "set", "keyring", "off").code == 0
    assert examined(used, CLAUDEMESH_KEYRING="")["keys"]["state"] == "ok"
    (used.home / "config.toml").unlink()


@pytest.mark.parametrize("name", ["claudemesh", "claude"])
def test_a_program_that_does_not_start_is_a_warning(shell: Shell, name: str) -> None:
    file = shell.folder / "bin" / name
    file.write_bytes(b"\x7fno program")
    file.chmod(0o755)
    check = "program" if name == "claudemesh" else "claude"
    found = examined(shell)[check]
    assert (found["state"], found["fix"]) == ("warn", f"Look yourself: {name} --version")
