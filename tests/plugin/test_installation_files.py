"""`claudemesh install` on settings files as they are found: odd ones, locked ones, shared ones.

The client's program is a script that notes what it is asked; what is tested is what happens to the
files. `test_installation.py` has the real client.
"""

import json
import os
import pty
import select
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.installation.jsonfile import JsonFile
from claudemesh_mcp.installation.record import Note, Record, record_alone
from claudemesh_mcp.installation.steps import Edit, Place
from claudemesh_wire.errors import Conflict
from tests.support.claude.desk import Desk
from tests.support.owners import somebody_elses
from tests.support.shell import LIMIT_S, Done, Shell

# Takes the terminal as its own, so that what is typed there reaches it as from a user.
AT_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"
QUESTION = b"[Y/n]: "
AGAIN_S = 1.0
EVENTS = {"SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd"}
BOM = b"\xef\xbb\xbf"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk.at(Shell(tmp_path / 'a home\'s "own" place'), client=None)
    script = f"echo \"$*\" >>'{tmp_path}/asked'"
    for name, line in (("claude", script), ("claudemesh", "exit 0")):
        (desk.tools / name).write_text(f"#!/bin/sh\n{line}\n", "utf-8")
        (desk.tools / name).chmod(0o755)
    yield desk
    home = desk.shell.home
    assert not home.exists() or home.stat().st_mode & 0o777 == 0o700


def asked(desk: Desk) -> list[str]:
    """What the client was asked to do."""
    file = desk.shell.folder.parent / "asked"
    return file.read_text("utf-8").splitlines() if file.exists() else []


def served(desk: Desk) -> None:
    """Let the client have the server, as a command by hand left it."""
    entry = {"command": str(desk.tools / "claudemesh"), "args": ["mcp"]}
    state = desk.config / ".claude.json"
    state.write_text(json.dumps({"mcpServers": {"claudemesh": entry}}), "utf-8")


def at_a_terminal(desk: Desk, answers: Sequence[bytes], *words: str) -> Done:
    """Run `claudemesh` at a terminal of its own; type an answer to each question that is shown."""
    screen, terminal = pty.openpty()
    typed, shown, last = iter(answers), b"", b""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", AT_TERMINAL, *desk.shell.command(*words)],
        env=desk.environment(),
        cwd=desk.project,
        stdin=terminal,
    ) as process:
        os.close(terminal)
        # Nobody writes any more: Linux says so by an error.
        with suppress(OSError):
            while data := _read(screen, last):
                asked_before = shown.count(QUESTION)
                shown += data
                for _ in range(shown.count(QUESTION) - asked_before):
                    last = next(typed, b"\x04")
                    os.write(screen, last)
        os.close(screen)
        code = process.wait(LIMIT_S)
    return Done(code, shown.decode(), "")


def _read(screen: int, last: bytes) -> bytes:
    """Read what is shown; ^C is typed again, since it is lost just before a program reads."""
    while last == b"\x03" and not select.select([screen], [], [], AGAIN_S)[0]:
        os.write(screen, last)
    return os.read(screen, 4096)


@pytest.mark.parametrize(
    ("answers", "allowed", "has_line"),
    [
        ([b"y\n", b"n\n"], True, False),
        ([b"n\n", b"y\n"], False, True),
        ([b"\n", b"\n"], True, True),
        ([b"what\n", b"n\n", b"n\n"], False, False),
    ],
)
def test_at_a_terminal_both_offers_are_asked_for_and_the_answers_count(
    desk: Desk, answers: list[bytes], *, allowed: bool, has_line: bool
) -> None:
    done = at_a_terminal(desk, answers, "install")
    assert done.code == 0, done.out
    assert "without a question? [Y/n]" in done.out
    assert "status line, if none is set? [Y/n]" in done.out
    told = desk.told("user")
    assert (("permissions" in told), ("statusLine" in told)) == (allowed, has_line)
    assert set(told["hooks"]) == EVENTS


@pytest.mark.parametrize("key", [b"\x03", b"\x04"])
def test_whoever_ends_the_questions_has_nothing_installed(desk: Desk, key: bytes) -> None:
    done = at_a_terminal(desk, [b"y\n", key], "install")
    assert done.code in {1, 130}
    assert asked(desk) == []
    assert not desk.settings["user"].exists()


@pytest.mark.parametrize("words", [("--yes",), ("--no-allow", "--no-statusline"), ("--dry-run",)])
def test_at_a_terminal_what_was_said_beforehand_is_not_asked(
    desk: Desk, words: tuple[str, ...]
) -> None:
    done = at_a_terminal(desk, [], "install", *words)
    assert (done.code, "[Y/n]" in done.out) == (0, False)


def test_without_a_terminal_nothing_is_asked_and_both_are_left_out(desk: Desk) -> None:
    done = desk.run("install")
    assert (done.code, "[Y/n]" in done.out + done.err) == (0, False)
    assert set(desk.told("user")) == {"hooks"}


@pytest.mark.parametrize(
    "text",
    [
        '{"hooks": 1}',
        '{"hooks": {"Stop": {}}}',
        '{"permissions": []}',
        '{"permissions": {"allow": "Bash"}}',
        '// mine\n{"model": "opus"}',
        '{"model": "opus",}',
        '{"timeout": 1e999}',
        '{"timeout": NaN}',
        "7",
        "[" * 100_000,
    ],
)
def test_what_can_not_be_changed_safely_is_refused_before_the_client_is_asked(
    desk: Desk, text: str
) -> None:
    file = desk.write("user", text)
    done = desk.run("install", "--yes", "--json")
    assert (done.code, done.error["code"]) == (2, "settings_invalid")
    assert str(file) in done.error["message"]
    assert (file.read_text("utf-8"), asked(desk)) == (text, [])


@pytest.mark.parametrize(
    "content",
    [
        {"hooks": {"Stop": [1, None, "x", [], {"hooks": 1}, {"hooks": [None, {"args": 5}]}]}},
        {"hooks": {"Other": 1, "Stop": []}, "statusLine": 7},
        {"permissions": {"allow": [1, None, {}]}, "enabledPlugins": [], "statusLine": None},
        {"big": ["x" * 100] * 50_000},
    ],
)
def test_what_is_odd_elsewhere_in_the_file_stays_as_it_is(
    desk: Desk, content: dict[str, Any]
) -> None:
    desk.write("user", json.dumps(content))
    assert desk.run("install", "--yes").code == 0
    assert desk.run("uninstall").code == 0
    assert desk.told("user") == content


def test_a_mark_of_the_byte_order_stays(desk: Desk) -> None:
    file = desk.write("user", "")
    file.write_bytes(BOM + b'{"model": "opus"}')
    assert desk.run("install").code == 0
    written = file.read_bytes()
    assert written.startswith(BOM)
    assert set(json.loads(written.removeprefix(BOM))) == {"model", "hooks"}


def test_a_file_that_its_owner_made_read_only_is_left_alone(desk: Desk) -> None:
    file = desk.write("user", '{"model": "opus"}')
    file.chmod(0o444)
    done = desk.run("install", "--json")
    assert (done.code, done.error["code"]) == (4, "settings_read_only")
    # The folder's name has both kinds of quotes.
    assert shlex.split(done.error["hint"]) == ["chmod", "u+w", str(file)]
    assert (asked(desk), desk.told("user")) == ([], {"model": "opus"})
    served(desk)
    assert desk.run("uninstall").code == 0  # There is nothing of ours in it.


def test_a_folder_that_is_no_folder_is_told_before_the_client_is_asked(desk: Desk) -> None:
    (desk.project / ".claude").write_text("a file", "utf-8")
    done = desk.run("install", "--scope", "project", "--json")
    assert (done.code, done.error["code"]) == (4, "settings_read_only")
    assert asked(desk) == []


def test_a_link_to_nothing_stays_one_after_all_is_taken_back(desk: Desk) -> None:
    target = desk.shell.folder / "dotfiles" / "settings.json"
    desk.settings["user"].symlink_to(target)
    assert desk.run("install").code == 0
    assert "hooks" in json.loads(target.read_text("utf-8"))
    assert desk.run("uninstall").code == 0
    assert (desk.settings["user"].is_symlink(), target.exists()) == (True, False)


def test_a_home_that_an_installation_makes_is_this_users_alone(desk: Desk) -> None:
    served(desk)
    desk.write("user", '{"model": "opus"}')
    before = os.umask(0o022)
    try:
        done = desk.run("install", "--json")
    finally:
        os.umask(before)
    assert done.code == 0, done
    for folder in (desk.shell.home, desk.shell.home / "backups"):
        assert folder.stat().st_mode & 0o777 == 0o700
    (kept,) = (desk.shell.home / "backups").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_an_uninstallation_without_a_home_makes_none(desk: Desk) -> None:
    assert desk.run("uninstall").code == 0
    assert not desk.shell.home.exists()


def test_a_change_of_a_running_client_is_not_lost(desk: Desk) -> None:
    file = desk.write("user", '{"model": "opus"}')
    changes = iter(['{"model": "haiku"}', '{"model": "haiku", "theme": "dark"}'])

    def change(content: dict[str, Any], _note: Note) -> list[str]:
        if more := next(changes, None):
            file.write_text(more, "utf-8")
        content["hooks"] = {}
        return ["hooks"]

    with record_alone(desk.shell.home) as record:
        Edit(Place(file, record), change).take()
    assert desk.told("user") == {"model": "haiku", "theme": "dark", "hooks": {}}


def test_a_file_that_changes_all_the_time_is_given_up(desk: Desk) -> None:
    file = desk.write("user", "{}")
    seen = JsonFile.read(file)
    file.write_text('{"model": "opus"}', "utf-8")
    with pytest.raises(Conflict) as caught:
        seen.write({"hooks": {}})
    assert caught.value.code == "settings_changed"
    assert desk.told("user") == {"model": "opus"}


def test_two_scopes_installed_at_once_are_both_noted_and_both_taken_back(desk: Desk) -> None:
    desk.shell.home.mkdir(mode=0o700)
    scopes = ("user", "project", "local")
    done: dict[str, Done] = {}

    def put(scope: str) -> None:
        done[scope] = desk.run("install", "--scope", scope, "--yes")

    threads = [threading.Thread(target=put, args=[scope]) for scope in scopes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert {scope: one.code for scope, one in done.items()} == dict.fromkeys(scopes, 0)
    record = Record(desk.shell.home)
    assert all((note := record.note(desk.settings[one])) and note.allow for one in scopes)
    assert desk.run("uninstall").code == 0
    assert [one for one in scopes if desk.settings[one].exists()] == []


def test_a_second_scope_says_that_hooks_are_called_twice(desk: Desk) -> None:
    served(desk)
    said = desk.run("install", "--scope", "local").err
    assert "claudemesh uninstall --scope user" in said


def test_hooks_that_are_left_stand_in_the_way_of_the_plugin(desk: Desk) -> None:
    assert desk.run("install").code == 0
    done = desk.run("install", "--plugin", "--json")
    assert done.error["code"] == "installed_as_server"
    assert desk.run("uninstall").code == 0
    foreign = {"mcpServers": {"claudemesh": {"command": "/bin/other", "args": []}}}
    (desk.config / ".claude.json").write_text(json.dumps(foreign), "utf-8")
    assert desk.run("install", "--plugin").code == 0


def test_without_a_client_the_hooks_go_and_the_server_is_named(desk: Desk) -> None:
    assert desk.run("install").code == 0
    served(desk)
    (desk.tools / "claude").unlink()
    done = desk.run("uninstall", "--json")
    assert (done.code, done.error["code"]) == (3, "claude_not_found")
    assert not desk.settings["user"].exists()


def at_home(desk: Desk) -> dict[str, str]:
    """The variables with which the project is the user's home, and its settings the user's own."""
    return {"HOME": str(desk.project), "CLAUDE_CONFIG_DIR": str(desk.project / ".claude")}


@pytest.mark.parametrize("words", [(), ("--plugin",), ("--dry-run",)])
def test_a_project_whose_settings_are_the_users_is_refused(
    desk: Desk, words: tuple[str, ...]
) -> None:
    done = desk.run("install", "--scope", "project", "--json", *words, **at_home(desk))
    assert (done.code, done.error["code"]) == (1, "project_is_home")
    assert "--scope user" in done.error["hint"]
    assert asked(desk) == []
    assert not desk.settings["project"].exists()


def test_in_the_home_an_installation_for_the_user_is_one_and_taken_back_once(desk: Desk) -> None:
    assert desk.run("install", "--scope", "user", **at_home(desk)).code == 0
    assert set(desk.told("project")["hooks"]) == EVENTS
    steps = desk.run("uninstall", "--json", "--dry-run", **at_home(desk)).json["steps"]
    assert [one["edit"] for one in steps] == [str(desk.settings["project"])]
    done = desk.run("uninstall", "--scope", "project", "--json", **at_home(desk))
    assert done.json["steps"] == []
    assert "hooks" in desk.told("project")
    assert desk.run("uninstall", **at_home(desk)).code == 0
    assert not desk.settings["project"].exists()


def test_in_the_home_a_server_of_the_folder_is_taken_out_and_the_users_note_stays(
    desk: Desk,
) -> None:
    assert desk.run("install", "--scope", "user", **at_home(desk)).code == 0
    before = (desk.shell.home / "installed.json").read_bytes()
    entry = {"command": "claudemesh", "args": ["mcp"]}
    (desk.project / ".mcp.json").write_text(json.dumps({"mcpServers": {"claudemesh": entry}}))
    steps = desk.run("uninstall", "--scope", "project", "--json", **at_home(desk)).json["steps"]
    assert steps == [{"run": "claude mcp remove --scope project claudemesh"}]
    assert (desk.shell.home / "installed.json").read_bytes() == before


@pytest.mark.parametrize("command", ["install", "uninstall"])
@pytest.mark.parametrize("place", ["config", "project"])
def test_sudo_on_what_belongs_to_its_caller_is_refused(
    desk: Desk, command: str, place: str
) -> None:
    theirs = somebody_elses(desk.config if place == "config" else desk.project)
    told = {"CLAUDE_CONFIG_DIR": str(theirs)} if place == "config" else {}
    done = desk.run(command, "--scope", "project", "--json", SUDO_USER="ada", **told)
    assert (done.code, done.error["code"]) == (4, "wrong_user")
    assert "ada" in done.error["hint"]
    assert asked(desk) == []
    assert not desk.shell.home.exists()


def test_root_may_install_for_itself_and_in_a_container_on_a_home_that_is_not_its(
    desk: Desk,
) -> None:
    assert desk.run("install", SUDO_USER="ada").code == 0
    assert desk.run("uninstall", SUDO_USER="ada").code == 0
    somebody_elses(desk.config)
    assert desk.run("install").code == 0
