"""Where the home is, and who started a program: by the environment alone."""

from pathlib import Path

import pytest

from claudemesh_mcp.config import locate
from claudemesh_mcp.routes.places import caller, is_off, places

HOMES = [
    {},
    {"CLAUDEMESH_HOME": "/mesh"},
    {"CLAUDEMESH_HOME": "~/mesh"},
    {"CLAUDEMESH_HOME": "/a/../mesh/"},
    {"CLAUDEMESH_HOME": ""},
    {"XDG_DATA_HOME": "/data"},
    {"XDG_DATA_HOME": "relative"},
    {"XDG_DATA_HOME": ""},
    {"XDG_STATE_HOME": "/state"},
    {"XDG_DATA_HOME": "/data", "XDG_STATE_HOME": "/state", "CLAUDEMESH_HOME": "/mesh"},
]


@pytest.mark.parametrize("told", HOMES, ids=str)
def test_the_home_is_where_the_session_has_it(
    told: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CLAUDEMESH_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    environ = {"HOME": str(tmp_path), **told}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    expected = locate(environ)
    assert places(environ, "linux") == (str(expected.data), str(expected.logs))


def test_the_home_is_found_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    assert places({"CLAUDEMESH_HOME": str(tmp_path / "home")}).data == str(tmp_path / "disk")


def test_a_mac_has_a_place_of_its_own_for_data_and_for_logs() -> None:
    library = "/Users/ada/Library"
    found = places({"HOME": "/Users/ada"}, "darwin")
    assert found == (f"{library}/Application Support/claudemesh", f"{library}/Logs/claudemesh")


@pytest.mark.parametrize("pid", ["", "x", "-1", "²", "1 2"])
def test_a_client_without_a_proper_pid_is_told_by_none(pid: str) -> None:
    assert caller({"CLAUDE_PID": pid}).pid == 0


@pytest.mark.parametrize(
    ("entry", "attended", "expected"),
    [("cli", "1", True), ("cli", "0", False), ("sdk-cli", "1", False), ("sdk-cli", "0", False)],
)
def test_a_run_without_a_terminal_is_not_attended(
    entry: str, attended: str, *, expected: bool
) -> None:
    told = {"CLAUDE_CODE_ENTRYPOINT": entry, "CLAUDE_CODE_SESSION_ATTENDED": attended}
    assert caller(told).is_attended is expected


def test_who_switched_claudemesh_off_has_no_hooks() -> None:
    assert [is_off({"CLAUDEMESH": word}) for word in ("off", "OFF", "on", "")] == [
        *(True, True),
        *(False, False),
    ]
