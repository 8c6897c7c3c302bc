"""`claudemesh install --plugin` in a project that others share: they are told of no folder here.

`tests/claude/test_installation_places.py` has the real client.
"""

import json
from pathlib import Path

import pytest

from tests.support.claude.desk import Desk
from tests.support.shell import Shell


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk.at(Shell(tmp_path), client=None)
    (desk.tools / "claude").write_text(f"#!/bin/sh\necho \"$*\" >>'{tmp_path}/asked'\n", "utf-8")
    (desk.tools / "claude").chmod(0o755)
    return desk


def was_asked(desk: Desk) -> bool:
    """Whether the client was asked to do anything."""
    return (desk.shell.folder / "asked").exists()


@pytest.mark.parametrize("words", [(), ("--yes",), ("--dry-run",)])
def test_a_plugin_that_would_name_this_machine_to_a_project_is_refused(
    desk: Desk, words: tuple[str, ...]
) -> None:
    done = desk.run("install", "--plugin", "--scope", "project", "--json", *words)
    assert (done.code, done.error["code"]) == (1, "plugin_not_shared")
    assert "--scope local" in done.error["hint"]
    assert not was_asked(desk)
    assert not desk.settings["project"].exists()


def test_a_project_that_has_the_plugin_from_elsewhere_gets_its_rules(desk: Desk) -> None:
    desk.write("project", json.dumps({"enabledPlugins": {"claudemesh@claudemesh": True}}))
    done = desk.run("install", "--plugin", "--scope", "project", "--yes", "--json")
    assert done.code == 0, done
    assert desk.told("project")["permissions"]["allow"][0] == "mcp__plugin_claudemesh_mesh__inbox"
    assert str(desk.shell.folder) not in desk.settings["project"].read_text("utf-8")
    assert not was_asked(desk)


def test_a_project_whose_plugin_is_read_from_a_lost_folder_is_told_what_to_do(desk: Desk) -> None:
    enabled = json.dumps({"enabledPlugins": {"claudemesh@claudemesh": True}})
    desk.write("project", enabled)
    known = desk.config / "plugins" / "known_marketplaces.json"
    known.parent.mkdir()
    lost = {"source": {"source": "directory", "path": str(desk.shell.folder / "lost")}}
    known.write_text(json.dumps({"claudemesh": lost}), "utf-8")
    done = desk.run("install", "--plugin", "--scope", "project", "--json")
    assert (done.code, done.error["code"]) == (1, "plugin_not_shared")
    found = {one["name"]: one for one in desk.run("doctor", "--json").json["checks"]}["server"]
    assert found["state"] == "fail"
    assert found["fix"] == "claudemesh uninstall --plugin --scope project"
    assert desk.settings["project"].read_text("utf-8") == enabled
    assert desk.run("uninstall", "--plugin", "--scope", "project").code == 0
    asked = (desk.shell.folder / "asked").read_text("utf-8").splitlines()
    assert asked == ["--version", "plugin uninstall --scope project claudemesh@claudemesh"]
