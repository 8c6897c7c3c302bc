"""Keyrings that work, lie, raise and hang, and what a profile makes of each."""

import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from claudemesh_mcp.config import Paths
from claudemesh_mcp.home import Home
from claudemesh_mcp.keystore import profile_file, wrapping_key_file
from tests.support.sockets import for_sockets
from tests.support.starts import Starts


@pytest.fixture
def start(tmp_path: Path) -> Starts:
    return Starts(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(Paths.of(tmp_path / "home"))


@pytest.mark.parametrize(
    "backend",
    [
        "keyring.backends.null.Keyring",
        "keyring.backends.fail.Keyring",
        "tests.support.keyring_backends.Garbled",
        "tests.support.keyring_backends.Hanging",
        "tests.support.keyring_backends.HangingOnSet",
        "tests.support.keyring_backends.Raising",
        "no_such_module.Keyring",
    ],
)
def test_a_keyring_that_keeps_nothing_gives_way_to_a_file_for_ever(
    start: Starts, backend: str
) -> None:
    start.use(backend)
    first = start()
    assert (first["storage"], first["warned"]) == ("file", True)
    start.use("tests.support.keyring_backends.Kept")
    again = start()
    assert (again["profile"], again["key"]) == (first["profile"], first["key"])
    assert (again["storage"], again["warned"], again["asked"]) == ("file", False, False)


def test_a_key_that_a_killed_start_put_in_a_file_stays_there(start: Starts, home: Home) -> None:
    start.use("keyring.backends.null.Keyring")
    assert start(kill_at="key:after") == {"killed": "key:after"}
    before = wrapping_key_file(home).read_bytes()
    start.use("tests.support.keyring_backends.Kept")
    assert start()["storage"] == "file"
    assert wrapping_key_file(home).read_bytes() == before


def test_a_working_keyring_keeps_the_key_and_no_file_does(start: Starts, home: Home) -> None:
    start.use("tests.support.keyring_backends.Kept")
    first = start()
    assert (first["storage"], first["warned"]) == ("keyring", False)
    assert start()["key"] == first["key"]
    assert list(home.keys.iterdir()) == []
    (name,) = json.loads((start.folder / "keyring.json").read_text())
    assert name == f"claudemesh/{first['profile']}"


def test_what_a_keyring_needs_does_not_stay_in_the_process_that_asked(start: Starts) -> None:
    start.use("tests.support.keyring_backends.Kept")
    no_keyring = "import sys; sys.modules['keyring'] = None\n"
    assert start(first=no_keyring)["storage"] == "keyring"


def test_the_folder_of_a_project_lends_no_modules_to_what_asks(start: Starts) -> None:
    project = start.folder / "project"
    project.mkdir()
    (project / "keyring.py").write_text("open('run', 'w')")
    (project / "json.py").write_text("open('run', 'w')")
    start.use("tests.support.keyring_backends.Kept")
    there = f"import json, os; os.chdir({str(project)!r})\n"
    assert start(first=there)["storage"] == "keyring"
    assert not (project / "run").exists()


ALTERNATIVE = """
from tests.support.keyring_backends import Kept

class PlaintextKeyring(Kept):
    priority = 9

    def set_password(self, service, username, password):
        raise SystemExit("asked the plain text keyring")
"""


@pytest.fixture
def alternative(start: Starts) -> None:
    package = start.folder / "extra" / "keyrings" / "alt"
    package.mkdir(parents=True)
    (package / "file.py").write_text(ALTERNATIVE)
    installed = start.folder / "extra" / "keyrings.alt-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: keyrings.alt\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[keyring.backends]\nfile = keyrings.alt.file\n")
    before = start.whole_environ().get("PYTHONPATH", "")
    start.environ["PYTHONPATH"] = f"{start.folder / 'extra'}:{before}"


@pytest.mark.usefixtures("alternative")
def test_a_plain_text_keyring_counts_as_none(start: Starts) -> None:
    start.use("keyrings.alt.file.PlaintextKeyring")
    assert start()["storage"] == "file"


@pytest.mark.usefixtures("alternative")
def test_a_plain_text_keyring_before_a_true_one_is_passed_over(start: Starts) -> None:
    start.use("keyring.backends.chainer.ChainerBackend")
    first = start()
    assert first["storage"] == "keyring"
    assert start()["key"] == first["key"]


@pytest.mark.parametrize(
    ("backend", "code"),
    [
        ("keyring.backends.null.Keyring", "wrapping_key_missing"),
        ("keyring.backends.fail.Keyring", "keyring_unavailable"),
        ("tests.support.keyring_backends.Hanging", "keyring_unavailable"),
        ("tests.support.keyring_backends.Garbled", "key_mismatch"),
    ],
)
def test_a_keyring_profile_without_its_key_is_an_error_and_not_a_new_identity(
    start: Starts, home: Home, backend: str, code: str
) -> None:
    start.use("tests.support.keyring_backends.Kept")
    first = start()
    before = profile_file(home).read_bytes()
    start.use(backend)
    assert start() == {"code": code}
    assert profile_file(home).read_bytes() == before
    start.use("tests.support.keyring_backends.Kept")
    assert start()["key"] == first["key"]


def test_a_keyring_profile_says_so_when_the_keyring_is_switched_off(start: Starts) -> None:
    start.use("tests.support.keyring_backends.Kept")
    start()
    start.environ["CLAUDEMESH_KEYRING"] = "off"
    assert start() == {"code": "keyring_unavailable"}


def in_a_desktop_session(start: Starts) -> list[dict[str, Any]]:
    script = (
        "echo -n password | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1;"
        ' "$@" && "$@"'
    )
    # One of its own: a daemon that an ended session left for a while yet would be asked instead.
    with TemporaryDirectory(dir=for_sockets(), ignore_cleanup_errors=True) as runtime:
        ended = subprocess.run(
            ["dbus-run-session", "--", "bash", "-c", script, "start", *start.command()],
            env=start.whole_environ()
            | {"XDG_DATA_HOME": str(start.folder / "data"), "XDG_RUNTIME_DIR": runtime},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.skipif(
    not (shutil.which("gnome-keyring-daemon") and shutil.which("dbus-run-session")),
    reason="needs gnome-keyring-daemon and dbus-run-session",
)
def test_a_real_secret_service_keeps_the_key_over_desktop_sessions(
    start: Starts, home: Home
) -> None:
    first, second = in_a_desktop_session(start)
    assert first["storage"] == "keyring"
    assert second == first
    assert list(home.keys.iterdir()) == []
    assert start() == {"code": "keyring_unavailable"}
    assert in_a_desktop_session(start) == [first, first]
