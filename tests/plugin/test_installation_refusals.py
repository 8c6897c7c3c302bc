"""What `claudemesh install` and `uninstall` refuse in words, before anything has been done.

Folders that are gone, links that lead nowhere or round in a circle, and what is no file at all.
"""

import os
import shlex
from pathlib import Path

import pytest

from tests.support.claude.desk import Desk
from tests.support.shell import Shell

GONE = "mkdir gone && cd gone && rmdir ../gone && exec "


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk.at(Shell(tmp_path), client=None)
    desk.shell.home.mkdir(mode=0o700)
    for name, line in (("claude", f"echo \"$*\" >>'{tmp_path}/asked'"), ("claudemesh", "exit 0")):
        (desk.tools / name).write_text(f"#!/bin/sh\n{line}\n", "utf-8")
        (desk.tools / name).chmod(0o755)
    return desk


def was_asked(desk: Desk) -> bool:
    """Whether the client was asked to do anything."""
    return (desk.shell.folder / "asked").exists()


@pytest.mark.parametrize("words", [("install", "--json"), ("uninstall", "--json"), ("launch",)])
def test_a_folder_that_is_gone_is_told_in_words(desk: Desk, words: tuple[str, ...]) -> None:
    done = desk.sh(GONE + shlex.join(desk.shell.command(*words)))
    assert (done.code, "Traceback" in done.err) == (3, False), done
    assert "is gone" in done.out + done.err
    if "--json" in words:
        assert done.error["code"] == "folder_gone"
        assert done.error["hint"]
    assert not was_asked(desk)


@pytest.mark.parametrize("command", ["install", "uninstall"])
@pytest.mark.parametrize("scope", ["user", "project", "local"])
def test_links_that_lead_round_in_a_circle_are_refused(
    desk: Desk, command: str, scope: str
) -> None:
    file = desk.settings[scope]
    file.parent.mkdir(exist_ok=True)
    file.symlink_to(file)
    done = desk.run(command, "--scope", scope, "--json")
    assert (done.code, done.error["code"]) == (2, "settings_invalid"), done
    assert str(file) in done.error["message"]
    assert done.error["hint"]
    assert not was_asked(desk)


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_pipe_in_place_of_a_settings_file_is_refused_and_not_waited_for(
    desk: Desk, command: str
) -> None:
    os.mkfifo(desk.settings["user"])
    done = desk.run(command, "--json")
    assert (done.code, done.error["code"]) == (2, "settings_invalid")
    assert "no regular file" in done.error["message"]
    assert not was_asked(desk)


def test_the_doctor_waits_for_no_pipe(desk: Desk) -> None:
    os.mkfifo(desk.settings["user"])
    os.mkfifo(desk.config / ".claude.json")
    found = {one["name"]: one for one in desk.run("doctor", "--json").json["checks"]}
    assert found["hooks"]["state"] == "fail"
    assert "no regular file" in found["hooks"]["message"]


@pytest.mark.parametrize("target", ["/proc/none/settings.json", "/dev/null/settings.json"])
@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_link_to_where_nothing_can_be_made_is_told_before_the_client_is_asked(
    desk: Desk, target: str, words: tuple[str, ...]
) -> None:
    desk.settings["user"].symlink_to(target)
    done = desk.run("install", "--json", *words)
    assert (done.code, done.error["code"]) == (4, "settings_read_only"), done
    assert done.error["hint"]
    assert not was_asked(desk)


def test_a_name_that_no_disk_takes_is_refused_in_words(desk: Desk) -> None:
    desk.settings["user"].symlink_to(desk.shell.folder / "none" / ("x" * 300) / "settings.json")
    done = desk.run("install", "--json")
    assert (done.code, done.error["code"]) == (4, "settings_read_only"), done
    assert done.error["hint"]
