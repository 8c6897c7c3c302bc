"""What counts as ours in a settings file: what we write there or once wrote, exactly.

A user who has made a line of their own with our program in it keeps that line.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.claude.desk import Desk
from tests.support.shell import Shell

LOOK = "command -v claudemesh >/dev/null || exit 0"
IF_THERE = '[ -x "$0" ] && [ -r "$1" ] || exit 0; exec "$0" -I -S "$@"'
FILE = "/old place/lib/claudemesh_mcp/routes/hook.py"
LINE = "/old place/lib/claudemesh_mcp/statusline.py"
THEIRS: list[dict[str, Any]] = [
    {"command": "my-log.sh; claudemesh hook Stop; notify-send"},
    {"command": "claudemesh hook Stop; notify-send"},
    {"command": "claudemesh hook Stop | tee log"},
    {"command": "my-claudemesh hook Stop"},
    {"command": f"{LOOK}; claudemesh hook Stop || exit 0; notify-send"},
    {"command": f"{LOOK}; claudemesh hook Stop || exit 1"},
    {"command": "say", "args": [f"see {FILE}"]},
    {"command": "sh", "args": ["-c", f"{IF_THERE}; notify-send", "/bin/python", FILE, "Stop"]},
    {"command": "wrapper", "args": ["/bin/python", "-I", "-S", FILE, "Stop"]},
    {"command": f"/bin/python -I -S '{FILE}' Stop"},
    {"command": "claudemesh hook 'unclosed"},
]
OURS: list[dict[str, Any]] = [
    {"command": "sh", "args": ["-c", IF_THERE, "/old place/python", FILE, "Stop"]},
    {"command": "/old place/python", "args": ["-I", "-S", FILE, "rewake"]},
    {"command": f"{LOOK}; claudemesh hook Stop || exit 0"},
    {"command": f"{LOOK}; claudemesh hook rewake shared; [ $? -ne 86 ] || exit 2; exit 0"},
    {"command": f"{LOOK}; exec claudemesh hook Stop"},
    {"command": "claudemesh hook Stop"},
    {"command": "'/old place/claudemesh' hook Stop"},
]
THEIR_LINES = [
    'git branch --show-current; claudemesh statusline --mesh "x"',
    "git branch --show-current; claudemesh statusline",
    "claudemesh statusline | cut -c1-40",
    f"date;/bin/python -I -S '{LINE}'",
    f"{LOOK}; exec claudemesh statusline; date",
    f"wrapper /bin/python -I -S '{LINE}'",
]
OUR_LINES = [
    f"'/old place/python' -I -S '{LINE}'",
    f"{LOOK}; exec claudemesh statusline",
    "claudemesh statusline",
    "/usr/local/bin/claudemesh statusline",
]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk.at(Shell(tmp_path), client=None)
    (desk.tools / "claude").write_text("#!/bin/sh\nexit 0\n", "utf-8")
    (desk.tools / "claude").chmod(0o755)
    return desk


def groups(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"hooks": [{"type": "command", **entry}]}]


@pytest.mark.parametrize("entry", THEIRS)
def test_a_hook_of_their_own_with_ours_in_it_stays(desk: Desk, entry: dict[str, Any]) -> None:
    before = {"hooks": {"Stop": groups(entry)}}
    desk.write("user", json.dumps(before))
    assert desk.run("install", "--yes").code == 0
    assert desk.told("user")["hooks"]["Stop"][:1] == groups(entry)
    assert desk.run("uninstall").code == 0
    assert desk.told("user") == before


@pytest.mark.parametrize("entry", OURS)
def test_a_hook_of_ours_from_another_place_is_replaced_and_taken_out(
    desk: Desk, entry: dict[str, Any]
) -> None:
    desk.write("user", json.dumps({"model": "opus", "hooks": {"Stop": groups(entry)}}))
    assert desk.run("install").code == 0
    (group,) = desk.told("user")["hooks"]["Stop"]
    assert entry["command"] not in {one["command"] for one in group["hooks"] if "args" not in one}
    assert "old place" not in json.dumps(group)
    desk.write("user", json.dumps({"model": "opus", "hooks": {"Stop": groups(entry)}}))
    assert desk.run("uninstall").code == 0
    assert desk.told("user").get("hooks", {}).get("Stop", []) == []


@pytest.mark.parametrize("line", THEIR_LINES)
def test_a_status_line_of_their_own_with_ours_in_it_stays(desk: Desk, line: str) -> None:
    before = {"statusLine": {"type": "command", "command": line}}
    desk.write("user", json.dumps(before))
    assert desk.run("install", "--yes").code == 0
    assert desk.told("user")["statusLine"] == before["statusLine"]
    assert desk.run("uninstall").code == 0
    assert desk.told("user") == before


@pytest.mark.parametrize("line", OUR_LINES)
def test_a_status_line_of_ours_from_another_place_is_replaced_and_taken_out(
    desk: Desk, line: str
) -> None:
    desk.write("user", json.dumps({"statusLine": {"type": "command", "command": line}}))
    assert desk.run("install", "--yes").code == 0
    assert desk.told("user")["statusLine"]["command"] != line
    desk.write("user", json.dumps({"statusLine": {"type": "command", "command": line}}))
    assert desk.run("uninstall").code == 0
    assert "statusLine" not in desk.told("user")
