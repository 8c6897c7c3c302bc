"""The plugin's server from its first start on: no libraries yet, no registry, then the mesh.

Each test starts it as Claude Code does, with a data folder of its own and a Python of the system.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from claudemesh_mcp.offer import INSTRUCTIONS
from claudemesh_wire import VERSION
from tests.support.documents import definitions
from tests.support.plugin import Plugin, a_registry, a_socket, base_python, copy_plugin
from tests.support.shell import Shell

ALL = {tool["name"] for tool in definitions()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_plugin(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def plugin(root: Path, tmp_path: Path) -> Iterator[Plugin]:
    """A plugin that has not been started yet, and whose registry is out of reach."""
    with a_registry() as registry:
        plugin = Plugin(root, tmp_path, registry)
        yield plugin
        # It outlives its session, and a test that asks nothing of it too.
        for maker in makers_of(plugin):
            with suppress(ProcessLookupError):
                os.killpg(maker, signal.SIGKILL)
    Shell(tmp_path).run("down", "--force")


def makers_of(plugin: Plugin) -> list[int]:
    """Find the process that sets it up, if there is one; it leads a group with its tools."""
    maker = b"environment.py\0%s\0" % str(plugin.data).encode()
    found = [path for path in Path("/proc").glob("[0-9]*/cmdline") if holds(path, maker)]
    return [int(path.parent.name) for path in found]


def holds(path: Path, words: bytes) -> bool:
    with suppress(OSError):
        return words in path.read_bytes()
    return False


def without_venv(plugin: Plugin) -> None:
    """Give the user a Python as Debian has it, which can't make an environment."""
    plugin.environment()
    python = plugin.folder / "bin" / "python3"
    whole = Path(base_python())
    library = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}"
    (plugin.folder / library).mkdir(parents=True)
    for part in (whole.parents[1] / library).iterdir():
        if part.name not in {"ensurepip", "site-packages"}:
            (plugin.folder / library / part.name).symlink_to(part)
    python.unlink()
    shutil.copy(whole, python)


def test_without_a_registry_the_session_is_answered_and_told_what_to_do(plugin: Plugin) -> None:
    with plugin.server() as client:
        assert client.greet()["instructions"] == INSTRUCTIONS
        assert client.tools() == ["setup_status"]
        told = client.call("setup_status", wait_s=60)
        assert (told["state"], told["error"]["code"]) == ("failed", "registry_unreachable")
        assert "PIP_INDEX_URL" in told["error"]["hint"]
        assert "127.0.0.1" in Path(told["log"]).read_text("utf-8")
        assert client.ask("ping")["result"] == {}
        missing = client.ask("tools/call", name="send", arguments={})["error"]["data"]["error"]
        assert (missing["code"], "setup_status" in missing["hint"]) == ("not_found", True)
    assert client.process.returncode == 0


def test_once_the_registry_is_there_a_retry_makes_this_process_the_server(plugin: Plugin) -> None:
    with plugin.server() as client:
        greeting = client.greet()
        assert greeting["capabilities"]["tools"] == {"listChanged": True}
        assert client.call("setup_status", wait_s=60)["state"] == "failed"
        with plugin.registry.open():
            assert client.call("setup_status", retry=True, wait_s=60)["state"] == "ready"
            assert set(client.tools()) == ALL
        assert client.told == ["notifications/tools/list_changed"]
        again = client.ask("initialize", protocolVersion="2025-11-25")
        assert again["error"]["data"]["error"]["code"] == "already_initialized"
        client.call("search_peers")
        assert client.call("mesh_info")["me"]["handle"] == "project"
        program = [plugin.data / "bin" / "claudemesh", "peers", "--json"]
        peers = subprocess.run(program, env=plugin.environment(), capture_output=True, check=True)
        assert "project" in {peer["handle"] for peer in json.loads(peers.stdout)["peers"]}
        assert client.process.poll() is None
    assert client.process.returncode == 0


def test_the_next_start_tries_again_and_the_one_after_it_has_nothing_to_do(plugin: Plugin) -> None:
    with plugin.server() as client:
        client.greet()
        assert client.call("setup_status", wait_s=60)["state"] == "failed"
    with plugin.registry.open(), plugin.server() as client:
        client.greet()
        assert client.call("setup_status", wait_s=60)["state"] == "ready"
        assert set(client.tools()) == ALL
    with plugin.server() as client:
        assert client.greet()["capabilities"]["tools"] == {"listChanged": True}
        assert set(client.tools()) == ALL
    assert not list(plugin.data.glob("handover.*"))


def test_a_session_that_ends_meanwhile_leaves_the_setting_up_to_go_on(plugin: Plugin) -> None:
    with plugin.registry.open():
        with plugin.server() as client:
            client.greet()
        with plugin.server() as client:
            client.greet()
            if "setup_status" in client.tools():
                assert client.call("setup_status", wait_s=60)["state"] == "ready"
            assert set(client.tools()) == ALL
    fetched = [path for path in plugin.registry.asked if path.endswith(".whl")]
    assert len(fetched) == 1


def test_a_setting_up_that_was_killed_is_said_and_begun_again(plugin: Plugin) -> None:
    plugin.environment()
    plugin.data.mkdir()
    # A package index that takes the connection and never answers.
    with a_socket(plugin.registry.port) as silent:
        silent.listen()
        with plugin.server() as client:
            client.greet()
            silent.accept()[0].close()
            (maker,) = makers_of(plugin)
            os.killpg(maker, signal.SIGKILL)
            told = client.call("setup_status", wait_s=60)
            assert (told["state"], told["error"]["code"]) == ("failed", "interrupted")
    with plugin.registry.open(), plugin.server() as client:
        client.greet()
        assert client.call("setup_status", wait_s=60)["state"] == "ready"


def test_the_installed_program_of_the_same_version_is_the_server(plugin: Plugin) -> None:
    script = (
        f'[ "$1" = --version ] && echo {VERSION} && exit; read -r _; echo "{{\\"got\\":\\"$*\\"}}"'
    )
    plugin.program("claudemesh", script)
    with plugin.server() as client:
        client.say({"id": 1, "method": "initialize"})
        assert client.hear() == {"got": "mcp"}
    assert not list(plugin.data.glob("env-*"))


@pytest.mark.parametrize("script", ["echo 0.0.1", "exit 1", "exec sleep 60"])
def test_an_installed_program_of_another_version_is_left_alone(plugin: Plugin, script: str) -> None:
    plugin.program("claudemesh", script)
    plugin.program("sleep", f'exec {"/bin/sleep"} "$1"')
    with plugin.server() as client:
        client.greet()
        assert client.tools() == ["setup_status"]


def test_a_program_that_the_project_brings_is_not_run(plugin: Plugin) -> None:
    tools = plugin.environment()["PATH"]
    brought = plugin.project / "claudemesh"
    brought.write_text(f"#!/bin/sh\n: >'{plugin.folder}/ran'; echo {VERSION}\n", "utf-8")
    brought.chmod(0o755)
    with plugin.server(PATH=f".::{tools}") as client:
        client.greet()
        assert client.tools() == ["setup_status"]
    assert not (plugin.folder / "ran").exists()


@pytest.mark.parametrize("entry", [".", "", "tools", "./tools", "../project/tools"])
@pytest.mark.parametrize("has_python", [True, False])
def test_nothing_that_the_project_brings_is_run_in_the_search_for_a_python(
    plugin: Plugin, entry: str, *, has_python: bool
) -> None:
    tools = plugin.environment()["PATH"]
    if not has_python:
        (plugin.folder / "bin" / "python3").unlink()
    for folder in (plugin.project, plugin.project / "tools"):
        folder.mkdir(exist_ok=True)
        for name in ("python3.13", "python3", "uv", "mkdir", "mv", "claudemesh"):
            brought = folder / name
            brought.write_text(f"#!/bin/sh\n: >'{plugin.folder}/ran'; echo '{brought}'\n", "utf-8")
            brought.chmod(0o755)
    for words in (("hook", "Stop"), ("monitor",), ("server",)):
        plugin.run(*words, PATH=f"{entry}:{tools}")
    assert (plugin.data / "python").exists() == has_python
    assert not (plugin.folder / "ran").exists()


def test_uv_is_asked_for_a_python_where_no_project_has_settings_for_it(plugin: Plugin) -> None:
    found = plugin.program("found", "exit 0")
    plugin.program("uv", f"pwd >'{plugin.folder}/asked in'; echo '{found}'")
    (plugin.folder / "bin" / "python3").unlink()
    plugin.run("hook", "Stop")
    assert (plugin.folder / "asked in").read_text("utf-8") == "/\n"
    assert (plugin.data / "python").read_text("utf-8") == f"{found}\n"


def test_what_it_starts_has_the_path_that_it_was_given(plugin: Plugin) -> None:
    tools = plugin.environment()["PATH"]
    (plugin.folder / "bin" / "python3").unlink()
    plugin.program("claudemesh", 'echo "$PATH" "$@"')
    done = plugin.run("server", PATH=f".:{tools}")
    assert done.stdout == f".:{tools} mcp\n".encode()


def test_uv_where_python_has_no_venv_is_given_the_certificates_of_the_system(
    plugin: Plugin,
) -> None:
    without_venv(plugin)
    plugin.program("uv", 'echo "$UV_SYSTEM_CERTS: $*" >&2; exit 1')
    with plugin.server() as client:
        client.greet()
        told = client.call("setup_status", wait_s=60)
    assert (told["state"], told["error"]["code"]) == ("failed", "setup_failed")
    assert Path(told["log"]).read_text("utf-8").startswith("1: venv --python ")


def test_nobody_else_looks_into_the_data_folder_or_writes_there(plugin: Plugin) -> None:
    plugin.environment()
    before = os.umask(0)
    try:
        plugin.run("hook", "Stop")
        kept = {path.name: path.stat().st_mode & 0o077 for path in plugin.data.iterdir()}
        assert (plugin.data.stat().st_mode & 0o777, kept["python"]) == (0o700, 0)
        # As a client may have made it.
        plugin.data.chmod(0o777)
        with plugin.server() as client:
            client.greet()
            client.tools()
            assert plugin.data.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_a_session_that_is_switched_off_sets_nothing_up(plugin: Plugin) -> None:
    with plugin.server(CLAUDEMESH="off") as client:
        assert "switched off" in client.greet()["instructions"]
        assert client.tools() == []
    (plugin.project / ".claudemesh.toml").write_text("enabled = false\n", "utf-8")
    with plugin.server() as client:
        assert "switched off" in client.greet()["instructions"]
    assert not list(plugin.data.glob("env-*"))


def test_a_data_folder_that_cannot_be_written_is_said_and_not_a_broken_server(
    plugin: Plugin,
) -> None:
    plugin.environment()
    plugin.data.write_text("a file and no folder", "utf-8")
    with plugin.server() as client:
        client.greet()
        told = client.call("setup_status")
        assert (told["state"], told["error"]["code"]) == ("failed", "storage_failed")


def test_without_a_python_the_server_says_so_and_a_hook_says_nothing(plugin: Plugin) -> None:
    plugin.environment()
    (plugin.folder / "bin" / "python3").unlink()
    done = plugin.run("server")
    assert (done.returncode, b"Python 3.11" in done.stderr) == (1, True)
    for part in (("hook", "Stop"), ("hook", "rewake"), ("monitor",)):
        done = plugin.run(*part)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_python_that_is_too_old_or_a_shim_is_passed_over_and_the_found_one_kept(
    plugin: Plugin,
) -> None:
    plugin.program("python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    plugin.program("python3.12", "exit 1")
    plugin.run("hook", "Stop")
    (kept,) = (plugin.data / "python").read_text("utf-8").splitlines()
    assert Path(kept).samefile(plugin.folder / "bin" / "python3")
    assert [path.name for path in plugin.data.glob("python*")] == ["python"]


def test_a_kept_python_that_is_gone_is_looked_for_anew(plugin: Plugin) -> None:
    plugin.environment()
    plugin.data.mkdir()
    (plugin.data / "python").write_text("/nowhere/python3\n", "utf-8")
    plugin.run("hook", "Stop")
    kept = (plugin.data / "python").read_text("utf-8").strip()
    assert Path(kept).samefile(plugin.folder / "bin" / "python3")
