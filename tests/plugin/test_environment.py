"""The environment of the plugin's server, apart from its making: what is said of it, what goes."""

import json
import os
from pathlib import Path

import pytest

from claudemesh_mcp.plugin.environment import Environment, pins
from claudemesh_mcp.plugin.start import environment_of, leave_program
from tests.support.checkout import BROKER, ROOT


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "data")


def test_an_environment_is_ready_only_with_its_mark_and_its_python(
    environment: Environment,
) -> None:
    environment.python.parent.mkdir(parents=True)
    environment.python.symlink_to("/bin/sh")
    assert not environment.is_ready
    (environment.folder / "ready").touch()
    assert environment.is_ready
    assert environment.progress().state == "ready"
    # As when the system's Python was replaced by another one.
    environment.python.unlink()
    environment.python.symlink_to("/gone/python3")
    assert not environment.is_ready


def test_the_environment_holds_what_sessions_need_and_not_what_tests_need() -> None:
    held = pins()
    assert "cryptography==" in held
    assert "pytest==" not in held
    assert "pytest==" in (ROOT / "requirements.lock").read_text("utf-8")


@pytest.mark.parametrize("text", ["", "{bad", "[]", '{"state": "ready", "more": 1}'])
def test_with_a_damaged_note_and_nobody_about_it_a_retry_is_offered(
    environment: Environment, text: str
) -> None:
    environment.data.mkdir()
    (environment.data / "setup.json").write_text(text, "utf-8")
    told = environment.progress()
    assert (told.state, told.code) == ("failed", "interrupted")
    assert "retry" in told.hint


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("ERROR: [Errno 28] No space left on device", "storage_full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS", "hash_mismatch"),
        ("urllib3 NewConnectionError: Connection refused", "registry_unreachable"),
        (
            "error: Failed to fetch\n  Caused by: error sending request for url",
            "registry_unreachable",
        ),
        ("ERROR: No matching distribution found for attrs==26.1.0", "registry_unreachable"),
        (
            "  cause: Because there is no version of attrs==26.1.0\nerror: No solution found when",
            "registry_unreachable",
        ),
        ("error: command 'gcc' failed with exit code 1", "setup_failed"),
        ("", "setup_failed"),
    ],
)
def test_each_failure_of_a_tool_is_told_apart_with_a_remedy(
    environment: Environment, said: str, code: str
) -> None:
    told = environment._failure(said)
    assert (told.state, told.code) == ("failed", code)
    assert told.message
    assert told.hint


def test_of_earlier_environments_the_newest_stays(environment: Environment) -> None:
    for age, name in enumerate(("new", "older", "oldest")):
        folder = environment.data / f"env-{name}"
        folder.mkdir(parents=True)
        os.utime(folder, (1000 - age, 1000 - age))
    environment.folder.mkdir()
    environment._sweep()
    left = {path.name for path in environment.data.glob("env-*")}
    assert left == {environment.folder.name, "env-new"}


def test_what_others_set_for_their_python_does_not_reach_the_server() -> None:
    told = environment_of({"PYTHONHOME": "/x", "PYTHONPATH": "/y", "HOME": "/home/ada"})
    assert told == {"HOME": "/home/ada", "PYTHONPATH": f"{ROOT}:{BROKER.parent}"}


def test_a_program_is_left_for_the_shell_and_written_anew_only_when_it_differs(
    tmp_path: Path,
) -> None:
    file = tmp_path / "bin" / "claudemesh"
    leave_program(file, ["/a b/python", "-m", "claudemesh_mcp"])
    written = file.stat().st_mtime_ns
    assert "exec '/a b/python' -m claudemesh_mcp" in file.read_text("utf-8")
    leave_program(file, ["/a b/python", "-m", "claudemesh_mcp"])
    assert file.stat().st_mtime_ns == written
    leave_program(tmp_path / "bin" / "claudemesh" / "no folder", ["x"])
    assert json.dumps([path.name for path in file.parent.iterdir()]) == '["claudemesh"]'
