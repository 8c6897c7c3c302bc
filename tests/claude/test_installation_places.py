"""`claudemesh install` where a checkout is more than one folder, and where the plugin has moved.

The real client says where it keeps what is for one user in a project, and whether it can load the
plugin.
"""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkout import ROOT
from tests.support.claude.client import CLIENT, need_client
from tests.support.claude.desk import Desk
from tests.support.repository import git, repository
from tests.support.shell import Done, Shell

PLUGIN = "claudemesh@claudemesh"
EVENTS = {"SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd"}
UNINSTALL = "claude plugin uninstall --scope {} claudemesh@claudemesh"
REMOVE = "claude plugin marketplace remove --scope {} claudemesh"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    need_client()
    desk = Desk.at(Shell(tmp_path))
    desk.shell.home.mkdir(mode=0o700)
    return desk


@pytest.fixture
def checkout(desk: Desk) -> Path:
    desk.project.rmdir()
    return repository(desk.project)


def within(desk: Desk, folder: Path, *command: str) -> Done:
    """Run a command in a folder."""
    return desk.sh(f"cd {shlex.quote(str(folder))} && exec {shlex.join(command)}")


def ran(desk: Desk, folder: Path, *words: str) -> list[str]:
    """Run an installation in a folder; gives what it asked the client to do."""
    done = within(desk, folder, *desk.shell.command(*words, "--json"))
    assert (done.code, done.err) == (0, ""), done
    return [one["run"] for one in done.json["steps"] if "run" in one]


def checks(desk: Desk, folder: Path) -> dict[str, Any]:
    """Ask the doctor in a folder."""
    told = within(desk, folder, *desk.shell.command("doctor", "--json")).json["checks"]
    return {one["name"]: one for one in told}


def plugins(desk: Desk) -> list[dict[str, Any]]:
    """The plugins, as the client lists them."""
    return json.loads(desk.claude("plugin", "list", "--json").out)


@pytest.mark.parametrize("where", ["below", "tree"])
def test_a_server_for_one_project_is_found_again_from_below_and_from_a_work_tree(
    desk: Desk, checkout: Path, where: str
) -> None:
    folder = checkout.parent / "tree" if where == "tree" else checkout / "a" / "b"
    if where == "tree":
        git(checkout, "worktree", "add", "--quiet", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    (added,) = ran(desk, folder, "install", "--scope", "local")
    assert added.startswith("claude mcp add --scope local claudemesh -- ")
    state = json.loads((desk.config / ".claude.json").read_text("utf-8"))
    assert "claudemesh" in state["projects"][str(checkout)]["mcpServers"]
    assert set(desk.told("local")["hooks"]) == EVENTS
    for one in (folder, checkout):
        assert ran(desk, one, "install", "--scope", "local") == []
        found = checks(desk, one)
        assert (found["server"]["state"], found["hooks"]["state"]) == ("ok", "ok")

    gone = "claude mcp remove --scope local claudemesh"
    assert ran(desk, folder, "uninstall") == [gone]
    assert not desk.settings["local"].exists()
    assert within(desk, folder, str(CLIENT), "mcp", "get", "claudemesh").code == 1
    assert ran(desk, folder, "uninstall") == []


def test_hooks_that_stand_in_a_folder_below_are_moved_to_the_root(
    desk: Desk, checkout: Path
) -> None:
    below = checkout / "a" / ".claude"
    below.mkdir(parents=True)
    entry = {"type": "command", "command": "claudemesh hook Stop"}
    told = {"model": "opus", "hooks": {"Stop": [{"hooks": [entry]}]}}
    (below / "settings.local.json").write_text(json.dumps(told), "utf-8")
    ran(desk, checkout / "a", "install", "--scope", "local")
    left = json.loads((below / "settings.local.json").read_text("utf-8"))
    assert left == {"model": "opus", "hooks": {"Stop": []}}
    assert set(desk.told("local")["hooks"]) == EVENTS


def test_the_plugin_for_one_project_is_installed_from_a_work_tree_and_taken_back(
    desk: Desk, checkout: Path
) -> None:
    tree = checkout.parent / "tree"
    git(checkout, "worktree", "add", "--quiet", str(tree))
    words = ("install", "--plugin", "--scope", "local")
    add, install = ran(desk, tree, *words)
    assert add.startswith("claude plugin marketplace add --scope local ")
    assert install == "claude plugin install --scope local claudemesh@claudemesh"
    assert ran(desk, tree, *words) == []
    assert desk.told("local")["enabledPlugins"] == {PLUGIN: True}
    assert not desk.settings["user"].exists()
    assert ran(desk, tree, "uninstall") == [UNINSTALL.format("local"), REMOVE.format("local")]
    assert plugins(desk) == []


def test_a_project_is_not_told_of_a_folder_of_this_machine(desk: Desk) -> None:
    done = desk.run("install", "--plugin", "--scope", "project", "--json")
    assert (done.code, done.error["code"]) == (1, "plugin_not_shared")
    assert not desk.settings["project"].exists()
    assert (plugins(desk), desk.claude("plugin", "marketplace", "list", "--json").json) == ([], [])


def test_a_plugin_that_others_installed_goes_only_when_it_is_named(desk: Desk) -> None:
    assert desk.claude("plugin", "marketplace", "add", str(ROOT)).code == 0
    assert desk.claude("plugin", "install", PLUGIN).code == 0
    assert ran(desk, desk.project, "uninstall") == []
    assert [one["enabled"] for one in plugins(desk)] == [True]
    assert ran(desk, desk.project, "uninstall", "--plugin") == [UNINSTALL.format("user")]
    assert plugins(desk) == []
    (kept,) = desk.claude("plugin", "marketplace", "list", "--json").json
    assert kept["name"] == "claudemesh"


@pytest.mark.parametrize("repair", ["install --plugin", "doctor --fix"])
def test_a_plugin_whose_folder_has_moved_is_read_from_here(desk: Desk, repair: str) -> None:
    old = desk.shell.folder / "old"
    for part in (".claude-plugin", "skills"):
        shutil.copytree(ROOT / part, old / part)
    assert desk.claude("plugin", "marketplace", "add", str(old)).code == 0
    assert desk.claude("plugin", "install", PLUGIN).code == 0
    assert checks(desk, desk.project)["server"]["state"] == "ok"
    old.rename(old.with_name("moved"))
    assert plugins(desk)[0]["errors"] != []
    found = checks(desk, desk.project)["server"]
    assert (found["state"], found["fix"]) == ("fail", "claudemesh install --plugin --scope user")
    assert str(old) in found["message"]

    done = desk.run(*repair.split())
    assert f"claude plugin marketplace add --scope user {ROOT}" in done.out + done.err
    (listed,) = plugins(desk)
    assert (listed.get("errors", []), listed["readFromFolder"]) == ([], str(ROOT))
    assert checks(desk, desk.project)["server"]["state"] == "ok"
    assert ran(desk, desk.project, "install", "--plugin") == []
    # Others have installed it, and have it still.
    assert ran(desk, desk.project, "uninstall") == []
