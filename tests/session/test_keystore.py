"""The wrapping key: one per profile, found again after any kill, never silently replaced."""

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from claudemesh_mcp.config import Paths, Settings
from claudemesh_mcp.home import Home, atomic_write, remove
from claudemesh_mcp.keystore import (
    CHECKPOINTS,
    CREDENTIAL_NAME,
    open_wrapping_key,
    profile_file,
    read_profile,
    wrapping_key_file,
)
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, MeshError, NotFound
from tests.support.starts import Starts


@pytest.fixture
def start(tmp_path: Path) -> Starts:
    return Starts(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(Paths.of(tmp_path / "home"))


NO_KEYRING = Settings(keyring=False)


def code_of(call: Callable[[], object], kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.hint
    return caught.value.code


def test_the_next_start_finds_the_same_key(home: Home) -> None:
    first = open_wrapping_key(home, NO_KEYRING)
    again = open_wrapping_key(home, NO_KEYRING)
    assert (again.key, again.profile_id, again.storage) == (first.key, first.profile_id, "file")
    assert len(first.key) == 32


def test_the_profile_tells_the_fingerprint_and_not_the_key(home: Home) -> None:
    wrapping = open_wrapping_key(home, NO_KEYRING)
    told = json.loads(profile_file(home).read_text())
    assert told == {
        "id": wrapping.profile_id,
        "storage": "file",
        "fingerprint": wrapping.fingerprint.hex(),
    }
    assert wrapping.key.hex() not in repr(wrapping)
    assert repr(wrapping.key) not in repr(wrapping)


@pytest.mark.parametrize("keyring", ["kept", "none"])
@pytest.mark.parametrize("kill_at", CHECKPOINTS)
def test_a_start_killed_at_any_step_is_finished_by_the_next(
    start: Starts, home: Home, keyring: str, kill_at: str
) -> None:
    kept = keyring == "kept"
    start.use("tests.support.keyring_backends.Kept" if kept else "keyring.backends.fail.Keyring")
    start.environ["CLAUDEMESH_KEYRING"] = "on" if kept else "off"
    first = start(kill_at)
    known = read_profile(home)
    there = {start.folder / "keyring.json", wrapping_key_file(home)}
    before = {path: path.read_bytes() for path in there if path.exists()}

    second = start()
    assert second["storage"] == ("keyring" if kept else "file")
    assert known is None or known.id == second["profile"]
    assert all(path.read_bytes() == data for path, data in before.items())
    assert start() | {"warned": None, "asked": None} == second | {"warned": None, "asked": None}
    if first != {"killed": kill_at}:
        # Only the keyring has the step between set and read back.
        assert kill_at == "keyring:set"
        assert not kept
        assert first["key"] == second["key"]


def test_eight_that_start_at_once_get_one_profile_and_one_key(start: Starts) -> None:
    start.use("tests.support.keyring_backends.Kept")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: start(), range(8)))
    assert {(each["profile"], each["key"], each["storage"]) for each in found} == {
        (found[0]["profile"], found[0]["key"], "keyring")
    }
    assert len(json.loads((start.folder / "keyring.json").read_text())) == 1


@pytest.mark.parametrize(
    "written",
    [
        bytes(range(128, 160)),
        base64.b64encode(bytes(range(128, 160))) + b"\n",
        base64.urlsafe_b64encode(bytes(range(128, 160))).rstrip(b"="),
        bytes(range(128, 160)).hex().encode() + b"\n",
    ],
)
def test_an_explicit_key_file_comes_first_in_any_common_form(
    home: Home, tmp_path: Path, written: bytes
) -> None:
    atomic_write(tmp_path / "key", written)
    wrapping = open_wrapping_key(home, Settings(key_file=tmp_path / "key"))
    assert (wrapping.key, wrapping.storage) == (bytes(range(128, 160)), "explicit")
    assert list(home.keys.iterdir()) == []


@pytest.mark.parametrize("written", [b"", b"secret", b"p" * 32, bytes(31), b"\xff" * 33, b"z" * 64])
def test_a_key_file_without_a_key_is_refused(home: Home, tmp_path: Path, written: bytes) -> None:
    atomic_write(tmp_path / "key", written)
    settings = Settings(key_file=tmp_path / "key")
    assert code_of(lambda: open_wrapping_key(home, settings), Invalid) == "key_file_damaged"
    profile = read_profile(home)
    assert profile is not None
    assert profile.storage is None


def test_a_key_file_that_others_can_read_is_refused(home: Home, tmp_path: Path) -> None:
    atomic_write(tmp_path / "key", bytes(range(128, 160)), mode=0o644)
    settings = Settings(key_file=tmp_path / "key")
    assert code_of(lambda: open_wrapping_key(home, settings), Forbidden) == "wrong_mode"


def test_a_named_key_file_that_is_missing_is_an_error_and_no_other_place_is_tried(
    home: Home, tmp_path: Path
) -> None:
    settings = Settings(key_file=tmp_path / "key")
    assert code_of(lambda: open_wrapping_key(home, settings), NotFound) == "wrapping_key_missing"
    assert list(home.keys.iterdir()) == []


def test_a_profile_with_an_explicit_key_needs_it_named_again(home: Home, tmp_path: Path) -> None:
    atomic_write(tmp_path / "key", bytes(range(128, 160)))
    open_wrapping_key(home, Settings(key_file=tmp_path / "key"))
    code = code_of(lambda: open_wrapping_key(home, NO_KEYRING), NotFound)
    assert code == "wrapping_key_missing"
    atomic_write(tmp_path / "key", bytes(range(129, 161)))
    settings = Settings(key_file=tmp_path / "key")
    assert code_of(lambda: open_wrapping_key(home, settings), Conflict) == "key_mismatch"


def test_a_key_file_named_later_is_not_used_and_this_is_told(home: Home, tmp_path: Path) -> None:
    first = open_wrapping_key(home, NO_KEYRING)
    atomic_write(tmp_path / "key", bytes(range(128, 160)))
    again = open_wrapping_key(home, Settings(key_file=tmp_path / "key", keyring=False))
    assert again.key == first.key
    assert again.warning


def test_a_systemd_credential_is_used_when_there_is_one(home: Home, tmp_path: Path) -> None:
    (tmp_path / CREDENTIAL_NAME).write_bytes(bytes(range(128, 160)))
    settings = Settings(credentials_dir=tmp_path)
    wrapping = open_wrapping_key(home, settings)
    assert (wrapping.key, wrapping.storage) == (bytes(range(128, 160)), "credential")
    assert open_wrapping_key(home, settings).key == wrapping.key
    for without in (NO_KEYRING, Settings(credentials_dir=tmp_path / "none")):
        code = code_of(lambda settings=without: open_wrapping_key(home, settings), NotFound)
        assert code == "wrapping_key_missing"


def test_a_credentials_folder_without_our_credential_is_passed_over(
    home: Home, tmp_path: Path
) -> None:
    settings = Settings(credentials_dir=tmp_path, keyring=False)
    assert open_wrapping_key(home, settings).storage == "file"


def test_a_file_profile_without_its_key_is_an_error(home: Home) -> None:
    open_wrapping_key(home, NO_KEYRING)
    remove(wrapping_key_file(home))
    code = code_of(lambda: open_wrapping_key(home, NO_KEYRING), NotFound)
    assert code == "wrapping_key_missing"
    assert not wrapping_key_file(home).exists()


def test_a_file_profile_with_another_key_is_an_error(home: Home) -> None:
    open_wrapping_key(home, NO_KEYRING)
    atomic_write(wrapping_key_file(home), bytes(range(128, 160)))
    assert code_of(lambda: open_wrapping_key(home, NO_KEYRING), Conflict) == "key_mismatch"


def test_a_lost_profile_with_keys_left_is_an_error(home: Home) -> None:
    open_wrapping_key(home, NO_KEYRING)
    remove(profile_file(home))
    assert code_of(lambda: open_wrapping_key(home, NO_KEYRING), NotFound) == "profile_missing"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"id": 7}',
        '{"id": "prof_a", "storage": "moon"}',
        '{"id": "prof_a", "storage": "file", "fingerprint": "xyz"}',
        '{"id": "prof_a", "storage": "file", "fingerprint": 1}',
        '{"id": "prof_a", "storage": ["file"]}',
        "\udcff",
    ],
)
def test_a_damaged_profile_is_refused_and_left_alone(home: Home, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    atomic_write(profile_file(home), data)
    assert code_of(lambda: open_wrapping_key(home, NO_KEYRING), Invalid) == "profile_damaged"
    assert profile_file(home).read_bytes() == data


def test_a_full_disk_at_the_first_start_is_told_and_the_next_start_works(
    start: Starts, home: Home
) -> None:
    start.environ["CLAUDEMESH_KEYRING"] = "off"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))\n"
    assert start(first=limit) == {"code": "storage_full"}
    assert read_profile(home) is None
    assert start()["storage"] == "file"
