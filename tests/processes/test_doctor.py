"""`claudemesh doctor` on real homes: what is well, what is not, and that its remedies are right."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import meshes
from claudemesh_mcp.config import Paths
from claudemesh_mcp.home import Home
from claudemesh_mcp.meshes import KnownMesh, Place
from claudemesh_mcp.routes import bells, facts, wakerprobes
from claudemesh_mcp.routes.processes import claim
from claudemesh_mcp.routes.records import place
from claudemesh_wire import VERSION
from tests.processes.test_meeting import parent
from tests.support.checkout import SESSION
from tests.support.examining import a_machine, examined, install, states
from tests.support.live import Live, alive
from tests.support.shell import Shell, shell_in

CONNECTED = {"broker", "versions", "clock", "trust", "quotas"}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with a_machine(tmp_path) as shell:
        yield shell


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A home that works; each test leaves it as it was."""
    with a_machine(tmp_path_factory.mktemp("used"), is_used=True) as shell:
        yield shell


def test_a_new_home_has_nothing_wrong_and_nothing_is_made_of_it(shell: Shell) -> None:
    found = examined(shell)
    assert states(found, "fail") == set()
    assert {"keys", "broker", "messages"} <= states(found, "skip")
    assert not (shell.home / "keys").exists()


def test_a_home_that_works_is_well_in_every_check(used: Shell) -> None:
    found = examined(used)
    assert states(found, "fail") == set()
    assert CONNECTED | {"home", "disk", "keys", "mesh", "address", "members", "messages"} <= states(
        found, "ok"
    )
    assert VERSION in found["versions"]["message"]
    assert str(used.home / "logs") in found["logs"]["message"]
    words = used.run("doctor", PATH="/usr/bin:/bin")
    assert (words.code, words.err) == (0, "")
    assert [line.split(":")[0][2:] for line in words.out.splitlines() if line[0] != " "] == [*found]


def test_each_setting_is_told_with_where_it_comes_from(shell: Shell) -> None:
    assert shell.run("config", "set", "log_level", "debug").code == 0
    (shell.folder / ".claudemesh.toml").write_text('name = "ada"\n')
    said = examined(shell)["settings"]["message"]
    assert f"log_level ({shell.home / 'config.toml'})" in said
    assert "name (.claudemesh.toml)" in said
    assert "home (environment)" in said
    assert "mesh (flag)" in examined(shell, "--mesh", "local")["settings"]["message"]


def test_a_broker_that_does_not_run_is_a_warning_with_the_command_that_starts_it(
    used: Shell,
) -> None:
    assert used.run("down").code == 0
    found = examined(used)
    assert found["broker"]["state"] == "warn"
    assert CONNECTED - {"broker"} <= states(found, "skip")
    assert found["members"]["state"] == "ok"
    command, *words = found["broker"]["fix"].split()
    assert command == "claudemesh"
    assert used.run(*words).code == 0
    assert examined(used)["broker"]["state"] == "ok"


def test_a_home_that_others_can_enter_fails_until_the_remedy_was_run(used: Shell) -> None:
    keys = used.home / "keys"
    keys.chmod(0o755)
    found = examined(used, code=1)
    assert found["home"]["state"] == "fail"
    assert str(keys) in found["home"]["message"]
    subprocess.run(found["home"]["fix"], shell=True, check=True)  # noqa: S602 - as a user would
    assert examined(used)["home"]["state"] == "ok"


def test_a_damaged_file_of_a_session_is_named(used: Shell) -> None:
    (file,) = used.home.glob("sessions/*/peer.db")
    whole = file.read_bytes()
    file.write_bytes(b"no database at all, and longer than the head of one" * 100)
    found = examined(used, code=1)
    assert found["messages"]["state"] == "fail"
    assert str(file) in found["messages"]["message"]
    file.write_bytes(whole)
    assert examined(used)["messages"]["state"] == "ok"


def test_what_waits_and_what_is_held_is_counted(used: Shell) -> None:
    (file,) = used.home.glob("sessions/*/peer.db")
    with closing(sqlite3.connect(file)) as sql, sql:
        for number, held in enumerate((None, None, "message")):
            sql.execute(
                "INSERT INTO inbox (sender, id, header_hash, certificate, conv, seq, handle,"
                " member, member_name, text, stripped, priority, e2e, sent_ms, received_ms,"
                " expires_ms, held) VALUES ('p', ?, x'', x'', 'd_', 1, 'a', 'm', 'm', 't', 0,"
                " 'next', 1, 0, 0, 0, ?)",
                (str(number), held),
            )
    said = examined(used)["messages"]["message"]
    with closing(sqlite3.connect(file)) as sql, sql:
        sql.execute("DELETE FROM inbox")
    assert "2 messages unread, 1 held, 0 not yet taken" in said


def test_a_broker_elsewhere_without_tls_fails(used: Shell) -> None:
    home = Home(Paths.of(used.home))
    founding = meshes.founding_file(home).read_bytes()
    place = Place("http://192.0.2.1:7300", "b_nobody")
    mesh = "mesh_" + 26 * "a"
    meshes.remember(home, KnownMesh(mesh, "team", founding, place))
    found = examined(used, "--mesh", "team", code=1)
    assert {"address", "broker"} <= states(found, "fail")
    assert "TLS" in found["address"]["message"]
    meshes.forget(home, mesh)
    assert examined(used, "--mesh", "no-such-mesh", code=1)["mesh"]["state"] == "fail"


@pytest.mark.parametrize(
    ("changed", "state", "word"),
    [
        ({"bind": "127.0.0.1"}, "ok", "this machine alone"),
        ({"bind": "::1"}, "ok", "this machine alone"),
        ({"bind": "192.0.2.7", "pin": "A" * 43}, "ok", "by TLS"),
        ({"bind": "192.0.2.7"}, "fail", "without TLS"),
        ({"bind": ""}, "warn", "does not say"),
    ],
)
def test_for_whom_the_broker_of_the_home_listens_is_told(
    used: Shell, changed: dict[str, str], state: str, word: str
) -> None:
    # By a certificate that it does not have it is not reached, which is another finding.
    assert used.run("up").code == 0
    file = used.home / "run" / "broker.json"
    written = file.read_bytes()
    file.write_text(json.dumps({**json.loads(written), **changed}))
    try:
        found = examined(used, code=int(state == "fail" or "pin" in changed))["bindings"]
    finally:
        file.write_bytes(written)
    assert found["state"] == state
    assert word in found["message"]
    assert examined(used)["bindings"]["message"].count("127.0.0.1") == 1


def test_a_mesh_that_this_home_is_not_in_fails(shell: Shell) -> None:
    assert "mesh" in states(examined(shell, "--mesh", "team", code=1), "fail")


def test_a_config_file_that_makes_no_sense_fails_and_the_rest_is_looked_at(used: Shell) -> None:
    (used.home / "config.toml").write_text("colour = 'red'\n")
    found = examined(used, code=1)
    assert states(found, "fail") == {"settings"}
    assert {"home", "disk", "messages"} <= states(found, "ok")
    (used.home / "config.toml").unlink()


def test_a_name_that_no_session_can_have_is_named_with_its_file(shell: Shell) -> None:
    file = shell.folder / ".claudemesh.toml"
    file.write_text('name = "b\u043eb"\n', "utf-8")
    found = examined(shell, code=1)["settings"]
    assert found["state"] == "fail"
    assert str(file) in found["message"]
    assert "b\\u043eb" in found["message"]
    file.write_text('name = "Bob"\n')
    assert examined(shell)["settings"]["state"] == "ok"


def test_a_session_that_is_switched_off_is_told_so(shell: Shell) -> None:
    found = examined(shell, CLAUDEMESH="off")
    assert found["settings"]["state"] == "warn"
    assert found["broker"]["state"] == "skip"


def served(shell: Shell, command: str, *flags: str) -> None:
    """Let Claude Code have the server, as `claude mcp add --scope user` writes it."""
    entry = {"type": "stdio", "command": command, "args": ["mcp", *flags], "env": {}}
    told = {"mcpServers": {"claudemesh": entry}}
    (shell.folder / ".claude.json").write_text(json.dumps(told))


def hooked(shell: Shell, python: str) -> Path:
    """Let Claude Code have a hook."""
    file = shell.folder / ".claude" / "settings.json"
    file.parent.mkdir(exist_ok=True)
    args = ["-I", "-S", str(SESSION / "routes" / "hook.py"), "Stop"]
    entry = {"type": "command", "command": python, "args": args}
    file.write_text(json.dumps({"hooks": {"Stop": [{"hooks": [entry]}]}}))
    return file


def test_what_claude_code_has_is_told(shell: Shell) -> None:
    found = examined(shell)
    assert {"claude", "server", "hooks"} <= states(found, "skip")
    assert "Install Claude Code" in found["claude"]["fix"]
    install(shell, "claude", "echo 2.1.330 \\(Claude Code\\)")
    found = examined(shell)
    assert found["claude"]["state"] == "ok"
    assert "2.1.330" in found["claude"]["message"]
    assert (found["server"]["state"], found["hooks"]["state"]) == ("warn", "skip")
    served(shell, str(shell.folder / "bin" / "claudemesh"), "--name", "ada")
    found = examined(shell)
    assert (found["server"]["state"], found["hooks"]["state"]) == ("ok", "warn")
    assert found["hooks"]["fix"] == "claudemesh install --scope user"
    file = hooked(shell, sys.executable)
    assert {"server", "hooks"} <= states(examined(shell), "ok")
    file.write_text(json.dumps({**json.loads(file.read_text()), "disableAllHooks": True}))
    assert examined(shell)["hooks"]["state"] == "warn"
    file.write_text("{bad")
    assert "hooks" in states(examined(shell, code=1), "fail")


def test_two_installations_are_named_with_the_command_that_takes_one_away(shell: Shell) -> None:
    served(shell, "claudemesh")
    file = shell.folder / ".claude" / "settings.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"enabledPlugins": {"claudemesh@claudemesh": True}}))
    found = examined(shell)["server"]
    assert (found["state"], found["fix"]) == ("warn", "claudemesh uninstall --scope user")
    (shell.folder / ".claude.json").unlink()
    found = examined(shell)
    assert {"server", "hooks"} <= states(found, "ok")


def test_a_server_of_another_program_is_told_and_left_alone(shell: Shell) -> None:
    served(shell, "/bin/other")
    assert "/bin/other" in examined(shell)["server"]["message"]


def test_what_has_moved_fails_until_it_is_fixed(shell: Shell) -> None:
    install(shell, "claude", f'echo "$*" >>{shell.folder}/asked')
    served(shell, "/gone/claudemesh")
    file = hooked(shell, "/gone/python")
    assert {"server", "hooks"} <= states(examined(shell, code=1), "fail")
    path = f"{shell.folder / 'bin'}:/usr/bin:/bin"
    done = shell.run("doctor", "--fix", "--json", PATH=path)
    assert any(said.startswith("server: claude mcp remove") for said in done.json["fixed"])
    asked = (shell.folder / "asked").read_text().splitlines()
    assert any(line.startswith("mcp add --scope user claudemesh -- ") for line in asked)
    assert "/gone/" not in file.read_text()
    assert "hooks" not in {one["name"] for one in done.json["checks"] if one["state"] == "fail"}


@pytest.mark.parametrize(
    ("name", "opened", "closed", "failing"),
    [
        ("keys", 0o755, 0o700, {"home", "broker"}),
        ("run/broker.json", 0o644, 0o600, {"home", "address", "bindings", "token", "broker"}),
        ("broker/lock", 0o644, 0o600, {"home", "address", "bindings", "broker"}),
    ],
)
def test_a_home_that_others_can_look_into_is_closed_by_the_fix(
    used: Shell, name: str, opened: int, closed: int, failing: set[str]
) -> None:
    assert used.run("up").code == 0
    path = used.home / name
    path.chmod(opened)
    assert states(examined(used, code=1), "fail") == failing
    done = used.run("doctor", "--fix", PATH=f"{used.folder / 'bin'}:/usr/bin:/bin")
    assert (done.code, path.stat().st_mode & 0o777) == (0, closed)
    assert "fixed: home: closed 1" in done.err


def test_a_home_with_a_quote_in_its_path_is_closed_by_the_fix_and_by_the_remedy(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "o'brien's"
    folder.mkdir()
    with shell_in(folder) as shell:
        assert shell.run("peers").code == 0
        keys = shell.home / "keys"
        keys.chmod(0o755)
        told = shell.run("doctor", "--json").json["checks"]
        (remedy,) = [one["fix"] for one in told if one["name"] == "home"]
        subprocess.run(remedy, shell=True, check=True)  # noqa: S602 - as a user would
        assert keys.stat().st_mode & 0o777 == 0o700
        keys.chmod(0o755)
        assert "fixed: home: closed 1" in shell.run("doctor", "--fix").err
        assert keys.stat().st_mode & 0o777 == 0o700
        keys.chmod(0o755)
        hint = shell.run("peers", "--json").error["hint"]
        subprocess.run(hint.partition(": ")[2], shell=True, check=True)  # noqa: S602 - same
        assert keys.stat().st_mode & 0o777 == 0o700


async def checked(live: Live) -> dict[str, Any]:
    """Give what doctor finds in a home whose sessions are open, by check."""
    command = [sys.executable, "-m", "claudemesh_mcp", "doctor", "--json"]
    done = await anyio.run_process(command, env=live.environment(), check=False)
    return {one["name"]: one for one in json.loads(done.stdout)["checks"]}


async def test_the_routes_of_open_sessions_are_told(tmp_path: Path) -> None:
    async with alive(tmp_path) as live:
        await live.join("ada")
        found = await checked(live)
    assert found["routes"]["state"] == "ok"
    assert ": tool works" in found["routes"]["message"]
    assert found["token"]["state"] == "ok"


async def test_a_session_whose_hooks_reach_no_model_is_warned_of(tmp_path: Path) -> None:
    async with alive(tmp_path) as live:
        for name in ("ada", "bob"):
            joined = await live.join(name)
            peer = (await joined.call("mesh_info"))["me"]["peer"]
            with closing(sqlite3.connect(live.home.sessions / peer / "peer.db")) as sql, sql:
                facts.put(sql, facts.HOOKS, {"ada": "silent", "bob": "reaches"}[name])
        await live.recorded("ada", "bob")
        found = (await checked(live))["routes"]
    assert found["state"] == "warn"
    assert "What the hooks of ada print does not reach the model" in found["message"]
    assert "bob: tool works, hooks works" in found["message"]
    assert "/hooks" in found["fix"]


async def test_a_session_that_nothing_wakes_is_warned_of(tmp_path: Path) -> None:
    async with alive(tmp_path) as live:
        for name in ("ada", "bob"):
            joined = await live.join(name, CLAUDEMESH_CHANNEL="off")
            peer = (await joined.call("mesh_info"))["me"]["peer"]
            # The process of the test stands for their monitors.
            claim(place(live.home.data, parent(joined.pid), bells.MONITOR))
            rung_ms = {"ada": 1, "bob": time.time_ns() // 1_000_000}[name]
            with closing(sqlite3.connect(live.home.sessions / peer / "peer.db")) as sql, sql:
                wakerprobes.note(sql, bells.MONITOR, "0" * 16, rung_ms)
        await live.recorded("ada", "bob")
        found = (await checked(live))["routes"]
    assert found["state"] == "warn"
    assert "Nothing seems to wake ada when idle" in found["message"]
    assert "start that session anew" in found["fix"]


def test_a_program_on_path_of_another_version_fails(shell: Shell) -> None:
    install(shell, "claudemesh", "echo 0.0.1")
    assert states(examined(shell, code=1), "fail") == {"program"}
    (shell.folder / "bin" / "claudemesh").unlink()
    assert "program" in states(examined(shell), "warn")
