"""`claudemesh install` and `claudemesh uninstall` with the real client: what changes, what stays.

Each test sits at a desk of its own; what was installed is read from the client's files and asked of
the client itself.
"""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.installation.entries import READ_ONLY
from tests.support.checkout import ROOT
from tests.support.claude.client import need_client
from tests.support.claude.desk import Desk
from tests.support.documents import definitions
from tests.support.shell import Done, Shell
from tests.test_readme import example

READING = ("inbox", "search_peers", "message_status", "history", "mesh_info", "mesh_tools")
EVENTS = {"SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd"}
ALLOWED = [f"mcp__claudemesh__{name}" for name in READING]
FOREIGN: dict[str, Any] = {
    "model": "opus",
    "hooks": {
        "Stop": [{"hooks": [{"type": "command", "command": "say done"}]}],
        "PreToolUse": [{"matcher": "Bash", "hooks": [{"type": "command", "command": "true"}]}],
    },
    "permissions": {"allow": ["Bash(ls:*)", ALLOWED[0]], "deny": ["WebFetch"]},
    "statusLine": {"type": "command", "command": "date"},
    "other": {"ß": [1, 2.5, None, True, "\ud83d"]},
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    need_client()
    shell = Shell(tmp_path)
    shell.home.mkdir(mode=0o700)
    return Desk.at(shell)


def installed(desk: Desk, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """Run an installation; gives its steps."""
    done = desk.run(*words, "--json")
    assert (done.code, done.err) == (code, ""), done
    return done.json["steps"]


def entries(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The hooks of a settings file that start claudemesh."""
    groups = [group for groups in settings.get("hooks", {}).values() for group in groups]
    found = [entry for group in groups for entry in group["hooks"]]
    return [one for one in found if "claudemesh" in json.dumps(one)]


@pytest.mark.parametrize("scope", ["user", "project", "local"])
def test_an_installation_is_found_by_the_client_and_taken_back_without_a_trace(
    desk: Desk, scope: str
) -> None:
    before = desk.files()
    steps = installed(desk, "install", "--scope", scope)
    assert [next(iter(step)) for step in steps] == ["run", "edit"]
    assert steps[0]["run"].startswith(f"claude mcp add --scope {scope} claudemesh -- ")
    assert f"Scope: {scope.capitalize()}" in desk.claude("mcp", "get", "claudemesh").out
    told = desk.told(scope)
    assert set(told["hooks"]) == EVENTS
    assert [one["asyncRewake"] for one in entries(told) if "asyncRewake" in one] == [True, True]

    written = desk.settings[scope].stat().st_mtime_ns
    assert installed(desk, "install", "--scope", scope) == []
    assert desk.settings[scope].stat().st_mtime_ns == written

    steps = installed(desk, "uninstall", "--scope", scope)
    assert {"run": f"claude mcp remove --scope {scope} claudemesh"} in steps
    assert desk.claude("mcp", "get", "claudemesh").code == 1
    after = desk.files()
    after.pop(str(desk.project / ".mcp.json"), None)  # The client leaves an empty one.
    assert after == before
    assert installed(desk, "uninstall", "--scope", scope) == []


def test_what_is_somebody_elses_stays_in_its_meaning_and_is_kept_as_it_was(desk: Desk) -> None:
    file = desk.write("user", json.dumps(FOREIGN, indent=4))
    raw = file.read_bytes()
    edit = installed(desk, "install", "--yes")[1]
    assert Path(edit["backup"]).read_bytes() == raw
    told = desk.told("user")
    assert told["permissions"]["allow"] == ["Bash(ls:*)", *ALLOWED]
    assert told["statusLine"] == FOREIGN["statusLine"]
    assert told["hooks"]["PreToolUse"] == FOREIGN["hooks"]["PreToolUse"]
    assert told["hooks"]["Stop"][0] == FOREIGN["hooks"]["Stop"][0]
    installed(desk, "uninstall")
    assert desk.told("user") == FOREIGN
    assert list(desk.told("user")) == list(FOREIGN)


def test_a_dry_run_prints_the_commands_and_changes_nothing(desk: Desk) -> None:
    desk.write("user", json.dumps(FOREIGN))
    before = desk.files()
    done = desk.run("install", "--dry-run", "--yes")
    assert done.code == 0
    assert done.out.startswith("claude mcp add --scope user claudemesh -- ")
    assert str(desk.settings["user"]) in done.out
    assert desk.files() == before
    assert desk.claude("mcp", "get", "claudemesh").code == 1
    assert not (desk.shell.home / "installed.json").exists()


def test_the_printed_command_is_the_one_that_installs(desk: Desk) -> None:
    command = desk.run("install", "--dry-run").out.splitlines()[0]
    assert "claudemesh" in desk.sh(command).out
    (edit,) = installed(desk, "install")
    assert "edit" in edit
    installed(desk, "uninstall")
    assert "Scope: User" in desk.claude("mcp", "get", "claudemesh").out
    assert "claude mcp remove --scope user claudemesh" in desk.run("uninstall").err


@pytest.mark.parametrize("text", ["{bad", "[]", "", '{"hooks": []}', '{"hooks": {"Stop": 1}}'])
def test_a_settings_file_that_makes_no_sense_is_refused_untouched(desk: Desk, text: str) -> None:
    file = desk.write("user", text)
    done = desk.run("install", "--json")
    if not text:  # An empty file is one without settings.
        assert done.code == 0
        return
    assert (done.code, done.error["code"]) == (2, "settings_invalid")
    assert done.error["hint"]
    assert str(file) in done.error["message"]
    assert file.read_text("utf-8") == text
    assert desk.claude("mcp", "get", "claudemesh").code == 1


def test_a_link_to_a_settings_file_stays_a_link(desk: Desk) -> None:
    kept = desk.shell.folder / "dotfiles.json"
    kept.write_text('{"model": "opus"}', "utf-8")
    kept.chmod(0o640)
    desk.settings["user"].symlink_to(kept)
    installed(desk, "install")
    assert desk.settings["user"].is_symlink()
    assert set(json.loads(kept.read_text("utf-8"))) == {"model", "hooks"}
    assert kept.stat().st_mode & 0o777 == 0o640


def test_another_server_of_that_name_is_left_alone(desk: Desk) -> None:
    desk.claude("mcp", "add", "--scope", "user", "claudemesh", "--", "/bin/other", "--serve")
    done = desk.run("install", "--json")
    assert (done.error["code"], "claude mcp remove" in done.error["hint"]) == ("name_taken", True)
    assert not desk.settings["user"].exists()
    assert installed(desk, "uninstall") == []


def test_a_server_of_an_installation_that_is_gone_is_replaced(desk: Desk) -> None:
    desk.claude("mcp", "add", "--scope", "user", "claudemesh", "--", "/gone/claudemesh", "mcp")
    steps = [step.get("run", "") for step in installed(desk, "install")]
    assert steps[0] == "claude mcp remove --scope user claudemesh"
    assert steps[1].startswith("claude mcp add --scope user claudemesh -- ")
    assert "/gone/" not in desk.claude("mcp", "get", "claudemesh").out


def test_hooks_of_an_installation_that_moved_are_replaced_and_not_doubled(desk: Desk) -> None:
    installed(desk, "install")
    text = desk.settings["user"].read_text("utf-8")
    desk.settings["user"].write_text(text.replace(sys.executable, "/gone/python"), "utf-8")
    installed(desk, "install")
    assert desk.settings["user"].read_text("utf-8") == text


def test_hooks_of_an_earlier_version_are_taken_out_where_they_belong_no_more(desk: Desk) -> None:
    installed(desk, "install")
    text = desk.settings["user"].read_text("utf-8")
    told = json.loads(text)
    rewake = told["hooks"]["UserPromptSubmit"][-1]["hooks"].pop()
    assert rewake["asyncRewake"]
    told["hooks"]["Stop"][-1]["hooks"].append(rewake)
    desk.settings["user"].write_text(json.dumps(told), "utf-8")
    installed(desk, "install")
    assert json.loads(desk.settings["user"].read_text("utf-8")) == json.loads(text)


def test_a_project_is_told_nothing_of_this_machine(desk: Desk) -> None:
    installed(desk, "install", "--scope", "project", "--yes")
    shared = desk.settings["project"].read_text("utf-8")
    shared += (desk.project / ".mcp.json").read_text("utf-8")
    assert str(desk.shell.folder) not in shared
    assert sys.executable not in shared
    (stop,) = entries({"hooks": {"Stop": desk.told("project")["hooks"]["Stop"]}})
    assert desk.sh(stop["command"]) == Done(0, "", "")


def test_without_the_note_what_starts_claudemesh_is_taken_out_and_the_rest_stays(
    desk: Desk,
) -> None:
    desk.write("user", json.dumps(FOREIGN))
    installed(desk, "install")
    (desk.shell.home / "installed.json").unlink()
    installed(desk, "uninstall")
    told = desk.told("user")
    assert entries(told) == []
    assert told["permissions"] == FOREIGN["permissions"]
    assert told["hooks"]["Stop"] == FOREIGN["hooks"]["Stop"]
    assert desk.claude("mcp", "get", "claudemesh").code == 1


def test_without_a_client_nothing_is_installed_and_hooks_are_still_taken_out(desk: Desk) -> None:
    (desk.tools / "claude").unlink()
    done = desk.run("install", "--json")
    assert (done.code, done.error["code"]) == (3, "claude_not_found")
    installed_by_hand = {
        "Stop": [{"hooks": [{"type": "command", "command": "claudemesh hook Stop"}]}]
    }
    desk.write("user", json.dumps({"hooks": installed_by_hand, "model": "opus"}))
    installed(desk, "uninstall")
    assert desk.told("user")["model"] == "opus"
    assert entries(desk.told("user")) == []


def test_the_status_line_is_set_if_there_is_none_and_goes_again(desk: Desk) -> None:
    before = desk.files()
    installed(desk, "install", "--statusline")
    line = desk.told("user")["statusLine"]
    assert line["type"] == "command"
    assert desk.sh(line["command"]) == Done(0, "", "")
    installed(desk, "uninstall")
    assert desk.files() == before


def test_every_tool_that_is_allowed_exists_and_changes_nothing_elsewhere() -> None:
    assert READ_ONLY == READING
    tools = {tool["name"]: tool["annotations"] for tool in definitions()}
    assert set(READ_ONLY) <= set(tools)
    assert [name for name in READ_ONLY if tools[name].get("destructiveHint")] == []


def test_the_plugin_is_installed_offered_its_rules_and_taken_back(desk: Desk) -> None:
    steps = installed(desk, "install", "--plugin", "--yes")
    ran = [step["run"] for step in steps if "run" in step]
    assert re.fullmatch(r"claude plugin marketplace add --scope user \S+", ran[0])
    assert ran[1] == "claude plugin install --scope user claudemesh@claudemesh"
    (listed,) = json.loads(desk.claude("plugin", "list", "--json").out)
    assert (listed["id"], listed["enabled"]) == ("claudemesh@claudemesh", True)
    rules = [f"mcp__plugin_claudemesh_mesh__{name}" for name in READING]
    assert desk.told("user")["permissions"]["allow"] == rules
    assert "hooks" not in desk.told("user")
    assert installed(desk, "install", "--plugin", "--yes") == []
    twice = desk.run("install", "--json")
    assert twice.error["code"] == "installed_as_plugin"

    ran = [step["run"] for step in installed(desk, "uninstall") if "run" in step]
    assert ran == [
        "claude plugin uninstall --scope user claudemesh@claudemesh",
        "claude plugin marketplace remove --scope user claudemesh",
    ]
    assert json.loads(desk.claude("plugin", "list", "--json").out) == []
    left = desk.told("user")
    assert left == {"enabledPlugins": {}, "extraKnownMarketplaces": {}}


def test_the_server_stands_in_the_way_of_the_plugin(desk: Desk) -> None:
    installed(desk, "install")
    done = desk.run("install", "--plugin", "--json")
    assert done.error["code"] == "installed_as_server"
    assert "claudemesh uninstall --scope user" in done.error["hint"]


def test_the_lines_of_the_readme_install_the_plugin(desk: Desk) -> None:
    for line in example("plugin").splitlines():
        program, *words = shlex.split(line)
        assert program == "claude"
        assert desk.claude(*(str(ROOT) if word == "./" else word for word in words)).code == 0
    (listed,) = json.loads(desk.claude("plugin", "list", "--json").out)
    assert (listed["enabled"], listed["readFromFolder"]) == (True, str(ROOT))
    assert installed(desk, "install", "--plugin") == []


def test_the_lines_of_the_readme_install_the_server(desk: Desk) -> None:
    for line in example("install").splitlines():
        program, *words = shlex.split(line)
        assert (program, desk.run(*words).code) == ("claudemesh", 0)
    assert "Scope: User" in desk.claude("mcp", "get", "claudemesh").out
    assert installed(desk, "install") == []
