"""The lines that the client is given to run: what stands in a path, or is gone, harms no turn.

A hook that ends with 2 forbids the user's prompt, and one behind which a rewake waits wakes the
session; a shell and a Python end so when they do not find their file. The lines are run here as the
client runs them: a program with its words, or a line for a shell.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.installation import entries, placing
from claudemesh_mcp.installation.scopes import Scope
from claudemesh_mcp.plugin.entries import EVENTS, REWAKE, file_of_the_plugin
from claudemesh_mcp.routes.hook import RUNG_SHARED, SHARED
from tests.support.checkout import BROKER, ROOT
from tests.support.shell import Done

STRANGE = """it's "ours" $HOME `id` \\ & co"""
WORDS = (*EVENTS, REWAKE)


def run(entry: dict[str, Any], folder: Path, **environment: str) -> Done:
    """Run an entry as the client does, with a few tools on its PATH."""
    line = [entry["command"], *entry["args"]] if "args" in entry else ["sh", "-c", entry["command"]]
    done = subprocess.run(
        line,
        env={"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), **environment},
        cwd=folder,
        input="{}",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def of_the_plugin(root: Path, data: Path) -> dict[str, dict[str, Any]]:
    """Give the plugin's entries by their word, as the client puts the folders into them."""
    groups = json.loads(file_of_the_plugin())["hooks"].values()
    every = [entry for (group,) in groups for entry in group["hooks"]]
    put = {"${CLAUDE_PLUGIN_ROOT}": str(root), "${CLAUDE_PLUGIN_DATA}": str(data)}
    for entry in every:
        for name, value in put.items():
            entry["args"] = [word.replace(name, value) for word in entry["args"]]
    return {entry["args"][-1]: entry for entry in every}


def program(folder: Path, script: str) -> None:
    """Put a `claudemesh` on the PATH."""
    file = folder / "claudemesh"
    file.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    file.chmod(0o755)


@pytest.mark.parametrize("word", WORDS)
def test_a_plugin_that_was_moved_away_takes_no_turn_from_its_user(
    tmp_path: Path, word: str
) -> None:
    entry = of_the_plugin(tmp_path / "gone", tmp_path / "data")[word]
    assert run(entry, tmp_path) == Done(0, "", "")
    start = tmp_path / "half" / "claudemesh_mcp" / "plugin" / "start.sh"
    start.parent.mkdir(parents=True)
    start.write_bytes((ROOT / "claudemesh_mcp/plugin/start.sh").read_bytes())
    entry = of_the_plugin(tmp_path / "half", tmp_path / "data")[word]
    assert run(entry, tmp_path) == Done(0, "", "")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("gone", ["python", "package"])
def test_what_is_left_of_a_removed_installation_takes_no_turn_from_its_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, word: str, gone: str
) -> None:
    with monkeypatch.context() as patched:
        if gone == "python":
            patched.setattr(sys, "executable", "/gone/python")
        else:
            patched.setattr(entries, "_PACKAGE", tmp_path / "gone")
        entry = entries.own_hook(word)
    assert run(entry, tmp_path) == Done(0, "", "")


@pytest.mark.parametrize("word", WORDS)
def test_another_program_of_that_name_neither_forbids_a_prompt_nor_wakes_a_session(
    tmp_path: Path, word: str
) -> None:
    entry = entries.shared_hook(word)
    assert run(entry, tmp_path) == Done(0, "", "")
    program(tmp_path, "echo unknown command hook >&2; exit 2")
    assert run(entry, tmp_path).code == 0


def test_a_bell_in_a_shared_project_wakes_the_session(tmp_path: Path) -> None:
    script = f'[ "$*" = "hook {REWAKE} {SHARED}" ] && echo 2 wait >&2 && exit {RUNG_SHARED}'
    program(tmp_path, script)
    assert run(entries.shared_hook(REWAKE), tmp_path) == Done(2, "", "2 wait\n")


@pytest.mark.parametrize("where", [STRANGE, "two words"])
def test_hooks_and_monitor_start_from_a_folder_of_any_name(tmp_path: Path, where: str) -> None:
    root, data = tmp_path / where, tmp_path / f"{where} data"
    start = root / "claudemesh_mcp" / "plugin" / "start.sh"
    start.parent.mkdir(parents=True)
    start.write_text('printf \'%s|\' "$0" "$@"', "utf-8")
    (monitor,) = json.loads((ROOT / ".claude-plugin" / "monitors.json").read_text("utf-8"))
    line = monitor["command"].replace("${CLAUDE_PLUGIN_ROOT}", str(root))
    line = line.replace("${CLAUDE_PLUGIN_DATA}", str(data))
    assert run({"command": line}, tmp_path).out == f"{start}|{data}|monitor|"
    hook = start.parents[1] / "routes" / "hook.py"
    hook.parent.mkdir()
    hook.touch()
    told = run(of_the_plugin(root, data)["Stop"], tmp_path)
    assert told.out == f"{start}|{data}|hook|Stop|"


def test_a_module_that_a_project_brings_is_not_run_as_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with monkeypatch.context() as patched:
        # An installation without a program beside its Python.
        patched.setattr(sys, "prefix", str(tmp_path / "none"))
        command, *words = placing.server_command(Scope.USER)
    for name in ("claudemesh_mcp", "json", "typing"):
        (tmp_path / f"{name}.py").write_text("print('the project was here')", "utf-8")
    path = f"{ROOT}:{BROKER.parent}"
    done = run({"command": command, "args": [*words, "--help"]}, tmp_path, PYTHONPATH=path)
    assert done.code == 0
    assert done.out.startswith("Usage: claudemesh mcp")
