"""`claudemesh install` and `uninstall` that are repeated, cut off, or crossed by other writers.

What counts is what stands in the settings at the end: as before, and with nothing of ours.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.installation import entries
from claudemesh_mcp.installation.record import Note, Record, record_alone
from claudemesh_mcp.installation.steps import Change, Edit, Place
from claudemesh_wire.errors import Conflict
from tests.support.claude.desk import Desk
from tests.support.shell import Shell

RULES = [
    "mcp__claudemesh__inbox",
    "mcp__claudemesh__search_peers",
    "mcp__claudemesh__message_status",
    "mcp__claudemesh__history",
    "mcp__claudemesh__mesh_info",
    "mcp__claudemesh__mesh_tools",
]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk.at(Shell(tmp_path), client=None)
    desk.shell.home.mkdir(mode=0o700)
    for name in ("claude", "claudemesh"):
        (desk.tools / name).write_text("#!/bin/sh\nexit 0\n", "utf-8")
        (desk.tools / name).chmod(0o755)
    return desk


def noted(desk: Desk) -> dict[str, Any]:
    """What is remembered of installations."""
    file = desk.shell.home / "installed.json"
    return json.loads(file.read_text("utf-8"))["places"] if file.exists() else {}


def takes(desk: Desk, change: Change) -> None:
    """Make a change of the user's settings as an installation does."""
    with record_alone(desk.shell.home) as record:
        Edit(Place(desk.settings["user"], record), change).take()


@pytest.mark.parametrize("kept", [{"permissions", "model"}, {"model"}])
def test_what_was_put_in_twice_is_taken_out_once(desk: Desk, kept: set[str]) -> None:
    desk.write("user", '{"model": "opus"}')
    assert desk.run("install", "--yes").code == 0
    between = {"model": "opus", "permissions": {"allow": []}}
    desk.write("user", json.dumps({key: between[key] for key in kept}))
    assert desk.run("install", "--yes").code == 0
    assert desk.told("user")["permissions"]["allow"] == RULES
    done = desk.run("uninstall")
    assert done.code == 0, done.err
    assert desk.told("user") == {"model": "opus"}


def test_a_client_that_writes_during_an_installation_leaves_nothing_to_fall_over(
    desk: Desk,
) -> None:
    file = desk.write("user", "{}")
    changes = iter(['{"theme": "dark"}'])

    def change(content: dict[str, Any], note: Note) -> list[str]:
        if more := next(changes, None):
            file.write_text(more, "utf-8")
        return entries.allow(content, note, file, entries.BY_SERVER)

    takes(desk, change)
    note = Record(desk.shell.home).note(file)
    assert note is not None
    assert (note.allow, note.made) == (RULES, [["permissions"], ["permissions", "allow"]])
    assert desk.run("uninstall").code == 0
    assert desk.told("user") == {"theme": "dark"}


def test_a_client_that_writes_during_an_uninstallation_keeps_nothing_of_ours(desk: Desk) -> None:
    file = desk.write("user", '{"model": "opus"}')
    assert desk.run("install", "--yes").code == 0
    changes = iter([json.dumps(desk.told("user") | {"theme": "dark"})])

    def change(content: dict[str, Any], note: Note) -> list[str]:
        if more := next(changes, None):
            file.write_text(more, "utf-8")
        return entries.take_out(content, note)

    takes(desk, change)
    assert desk.told("user") == {"model": "opus", "theme": "dark"}
    note = Record(desk.shell.home).note(file)
    assert note == Note(server=True)


def test_an_uninstallation_that_could_not_write_is_made_good_by_the_next(desk: Desk) -> None:
    file = desk.write("user", '{"model": "opus"}')
    assert desk.run("install", "--yes").code == 0
    installed, before = desk.told("user"), noted(desk)
    counts = iter(range(9))

    def change(content: dict[str, Any], note: Note) -> list[str]:
        file.write_text(json.dumps(installed | {"count": next(counts)}), "utf-8")
        return entries.take_out(content, note)

    with pytest.raises(Conflict):
        takes(desk, change)
    assert noted(desk) == before
    assert desk.run("uninstall").code == 0
    assert desk.told("user") == {"model": "opus", "count": 2}


def test_an_installation_that_could_not_write_has_noted_nothing(desk: Desk) -> None:
    file = desk.write("user", "{}")
    counts = iter(range(9))

    def change(content: dict[str, Any], note: Note) -> list[str]:
        file.write_text(json.dumps({"count": next(counts)}), "utf-8")
        return entries.allow(content, note, file, entries.BY_SERVER)

    with pytest.raises(Conflict):
        takes(desk, change)
    assert noted(desk) == {}


@pytest.mark.parametrize("was_there", [True, False])
def test_a_note_that_a_kill_has_left_is_forgotten_by_the_next_uninstallation(
    desk: Desk, *, was_there: bool
) -> None:
    if was_there:
        desk.write("user", '{"model": "opus"}')
    assert desk.run("install", "--yes").code == 0
    left = (desk.shell.home / "installed.json").read_bytes()
    assert desk.run("uninstall").code == 0
    # As a kill leaves it between the file and its note.
    (desk.shell.home / "installed.json").write_bytes(left)
    done = desk.run("uninstall")
    assert (done.code, "nothing of claudemesh" in done.err) == (0, True)
    assert noted(desk) == {}
    mine = {"permissions": {"allow": RULES[:1]}}
    desk.write("user", json.dumps(mine))
    assert desk.run("uninstall").code == 0
    assert desk.told("user") == mine


@pytest.mark.parametrize(
    "note",
    [
        {"allow": 5},
        {"made": [[]]},
        {"made": [5, ["permissions", 7], None], "allow": [None, *RULES, *RULES]},
        {"status_line": 7, "made": {}, "server": "yes", "of_a_later_version": True},
        5,
        None,
        [],
    ],
)
def test_a_note_that_makes_no_sense_holds_no_uninstallation_up(desk: Desk, note: Any) -> None:
    desk.write("user", '{"model": "opus", "kept": [[]]}')
    assert desk.run("install").code == 0
    told = {"v": 1, "places": {str(desk.settings["user"]): note}}
    (desk.shell.home / "installed.json").write_text(json.dumps(told), "utf-8")
    done = desk.run("uninstall")
    assert done.code == 0, done.err
    told = desk.told("user")
    assert {event: groups for event, groups in told.pop("hooks", {}).items() if groups} == {}
    assert told == {"model": "opus", "kept": [[]]}


@pytest.mark.parametrize("text", ["{bad", "[]", '{"v": 1, "places": 5}', "[" * 100_000])
def test_notes_that_make_no_sense_hold_no_uninstallation_up(desk: Desk, text: str) -> None:
    assert desk.run("install").code == 0
    (desk.shell.home / "installed.json").write_text(text, "utf-8")
    assert desk.run("uninstall").code == 0
    assert entries.has_hooks(desk.told("user")) == []


def test_a_client_that_refuses_leaves_no_note_of_what_it_did_not_do(desk: Desk) -> None:
    (desk.tools / "claude").write_text("#!/bin/sh\nexit 1\n", "utf-8")
    done = desk.run("install", "--json")
    assert (done.code, done.error["code"]) == (5, "claude_failed")
    assert noted(desk) == {}


def test_what_a_killed_installation_has_added_is_known_as_ours(desk: Desk) -> None:
    entry = {"command": str(desk.tools / "claudemesh"), "args": ["mcp"]}
    state = desk.config / ".claude.json"
    added = json.dumps({"mcpServers": {"claudemesh": entry}})
    # The client has added the server, and what ran it is killed before it hears of that.
    script = f"echo '{added}' >'{state}'; kill -9 $PPID"
    (desk.tools / "claude").write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    assert desk.run("install").code == -9
    script = f"echo \"$*\" >>'{desk.shell.folder}/asked'"
    (desk.tools / "claude").write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    assert desk.run("install").code == 0
    assert desk.run("uninstall").code == 0
    asked = (desk.shell.folder / "asked").read_text("utf-8").splitlines()
    assert asked == ["mcp remove --scope user claudemesh"]


def test_a_pipe_in_place_of_the_notes_is_refused(desk: Desk) -> None:
    os.mkfifo(desk.shell.home / "installed.json", 0o600)
    done = desk.run("uninstall", "--json")
    assert (done.code, done.error["code"]) == (4, "not_a_file")
