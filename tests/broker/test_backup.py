"""Backup and restore of a broker's data: what is in it, what is refused, what a crash leaves."""

import io
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from claudemesh_broker import backup as backups
from claudemesh_broker import embedded
from claudemesh_broker import restore as restores
from claudemesh_broker.backup import back_up
from claudemesh_broker.folders import FolderLock, sync_folder
from claudemesh_broker.restore import restore
from claudemesh_wire.errors import MeshError
from tests.support.brokerdata import MADE, broker_data, content


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return broker_data(tmp_path / "one")


@pytest.fixture
def archive(data: Path, tmp_path: Path) -> Path:
    return back_up(data, tmp_path / "backup.tar").path


def refusal(act: Callable[[], object]) -> MeshError:
    with pytest.raises(MeshError) as caught:
        act()
    assert caught.value.hint
    return caught.value


def database_of(folder: Path) -> list[Any]:
    """Everything in the database of a folder, as SQLite writes it out."""
    with closing(sqlite3.connect(folder / "broker.sqlite3")) as database:
        return list(database.iterdump())


def test_a_backup_holds_what_makes_the_broker_itself(data: Path, tmp_path: Path) -> None:
    made = back_up(data, tmp_path / "backup.tar")
    assert made.manifest.sums.keys() == MADE
    assert made.path.stat().st_mode & 0o777 == 0o600
    done = restore(made.path, tmp_path / "two", force=False)
    assert done.kept is None
    assert done.manifest == made.manifest
    first, second = content(data), content(tmp_path / "two")
    assert first.keys() == second.keys() == MADE
    assert {name for name in MADE if first[name] != second[name]} <= {"broker.sqlite3"}
    assert database_of(data) == database_of(tmp_path / "two")
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "two").iterdir())


def test_in_a_folder_it_is_named_after_the_time(data: Path, tmp_path: Path) -> None:
    path = back_up(data, tmp_path).path
    assert path.parent == tmp_path
    assert path.suffix == ".tar"


def test_nothing_is_replaced_and_nothing_else_is_left(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "mesh.tar").write_bytes(b"older")
    assert refusal(lambda: back_up(data, folder / "mesh.tar")).code == "file_exists"
    assert refusal(lambda: back_up(data, folder / "none" / "mesh.tar")).code == "no_folder"
    assert refusal(lambda: back_up(data, data)).code == "in_data_folder"
    assert [path.name for path in folder.iterdir()] == ["mesh.tar"]
    assert (folder / "mesh.tar").read_bytes() == b"older"


def test_one_that_comes_in_between_is_not_replaced_either(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mesh.tar"
    write = backups.write_archive

    def write_slowly(*arguments: Any) -> None:
        write(*arguments)
        path.write_bytes(b"another's")

    monkeypatch.setattr(backups, "write_archive", write_slowly)
    assert refusal(lambda: back_up(data, path)).code == "file_exists"
    assert path.read_bytes() == b"another's"


_KILLED = """
import os, pathlib, sys
from claudemesh_broker import backup
backup.write_archive = lambda *_: os.kill(os.getpid(), 9)
backup.back_up(*map(pathlib.Path, sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there, nothing is swept")
@pytest.mark.parametrize("name", ["mesh.tar", ""])
def test_what_a_killed_backup_left_the_next_one_to_that_place_removes(
    data: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    kept = {".other.tar.0123456789abcdef.tmp", ".mesh.tar.swp", "mesh.tar.0123456789abcdef.tmp"}
    for one in kept:
        (folder / one).write_bytes(b"another's")
    command = [sys.executable, "-c", _KILLED, str(data), str(folder / name)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    left = {path.name for path in folder.iterdir()} - kept
    assert {one.partition(".tmp")[2] for one in left} == {"", ".sqlite3"}
    # As one that was cut off in the midst of a step, or was of an earlier version.
    base = min(left, key=len)
    for more in (f"{base}.sqlite3-journal", f"{base}-journal", base.replace("0", "1")):
        (folder / more).write_bytes(b"half")
    made = back_up(data, folder / name)
    assert {path.name for path in folder.iterdir()} == {made.path.name, *kept}


def test_a_backup_in_the_making_is_not_swept_away_by_another(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mesh.tar"
    write = backups.write_archive
    made: list[Path] = []

    def write_slowly(*arguments: Any) -> None:
        monkeypatch.setattr(backups, "write_archive", write)
        made.append(back_up(data, path).path)
        made[0].rename(tmp_path / "first.tar")
        write(*arguments)

    monkeypatch.setattr(backups, "write_archive", write_slowly)
    assert back_up(data, path).path == path
    for one in (path, tmp_path / "first.tar"):
        assert restore(one, tmp_path / one.stem, force=False).manifest
    assert not list(tmp_path.glob(".*"))


def test_where_no_broker_was_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir(0o700)
    error = refusal(lambda: back_up(tmp_path / "empty", tmp_path / "backup.tar"))
    assert error.code == "no_broker_data"
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_database_without_its_key_is_no_backup(data: Path, tmp_path: Path) -> None:
    foreign = broker_data(tmp_path / "other") / "broker.key"
    (data / "broker.key").write_bytes(foreign.read_bytes())
    assert refusal(lambda: back_up(data, tmp_path / "backup.tar")).code == "key_changed"
    (data / "broker.key").unlink()
    assert refusal(lambda: back_up(data, tmp_path / "backup.tar")).code == "key_missing"
    assert not (tmp_path / "backup.tar").exists()


def test_a_damaged_database_is_not_backed_up(data: Path, tmp_path: Path) -> None:
    with (data / "broker.sqlite3").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    assert refusal(lambda: back_up(data, tmp_path / "backup.tar")).code == "data_corrupt"


def test_data_that_is_there_is_replaced_only_by_force_and_kept(data: Path, archive: Path) -> None:
    (data / "broker.sqlite3-wal").write_bytes(b"")
    before = content(data)
    assert refusal(lambda: restore(archive, data, force=False)).code == "data_exists"
    done = restore(archive, data, force=True)
    assert done.kept is not None
    assert content(done.kept) == before
    assert (done.kept / "broker.sqlite3-wal").exists()
    assert not (data / "broker.sqlite3-wal").exists()
    assert content(data).keys() == MADE


def test_a_backup_that_is_not_there_is_said_and_nothing_is_made(tmp_path: Path) -> None:
    error = refusal(lambda: restore(tmp_path / "missing.tar", tmp_path / "new", force=False))
    assert (error.category, error.code) == ("not_found", "no_backup")
    assert not (tmp_path / "new").exists()


def test_under_a_running_broker_nothing_is_replaced(data: Path, archive: Path) -> None:
    before = content(data)
    with FolderLock.take(data):
        assert refusal(lambda: restore(archive, data, force=True)).code == "data_in_use"
    assert content(data) == before


Members = list[tuple[tarfile.TarInfo, bytes]]


def packed(path: Path, members: Members) -> None:
    with tarfile.open(path, "w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))


def members_of(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        return [(member, (tar.extractfile(member) or io.BytesIO()).read()) for member in tar]


def named(members: Members, name: str) -> int:
    return next(place for place, (member, _) in enumerate(members) if member.name == name)


def without_a_file(members: Members) -> None:
    del members[named(members, "admin.secret")]


def without_a_manifest(members: Members) -> None:
    del members[0]


def of_a_later_form(members: Members) -> None:
    member, data = members[0]
    members[0] = (member, data.replace(b'"format": 1', b'"format": 2'))


def with_another_key(members: Members) -> None:
    place = named(members, "broker.key")
    members[place] = (members[place][0], bytes(32))


def with_a_path_out_of_the_folder(members: Members) -> None:
    members[named(members, "admin.secret")][0].name = "../admin.secret"


def with_a_link(members: Members) -> None:
    member, _ = members[named(members, "admin.secret")]
    member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0


def with_a_device(members: Members) -> None:
    member, _ = members[named(members, "admin.secret")]
    member.type, member.size = tarfile.FIFOTYPE, 0


def with_more_than_was_packed(members: Members) -> None:
    members.append((tarfile.TarInfo("broker.toml"), b""))


def with_one_twice(members: Members) -> None:
    members.append(members[named(members, "broker.key")])


@pytest.mark.parametrize(
    "spoil",
    [
        without_a_file,
        without_a_manifest,
        of_a_later_form,
        with_another_key,
        with_a_path_out_of_the_folder,
        with_a_link,
        with_a_device,
        with_more_than_was_packed,
        with_one_twice,
    ],
)
def test_what_is_no_whole_backup_changes_nothing(
    data: Path, archive: Path, tmp_path: Path, spoil: Callable[[Members], None]
) -> None:
    before, members = content(data), members_of(archive)
    spoil(members)
    packed(tmp_path / "spoilt.tar", members)
    error = refusal(lambda: restore(tmp_path / "spoilt.tar", data, force=True))
    assert error.code == "backup_damaged"
    assert content(data) == before
    assert not list(data.glob(".restore-*"))
    assert not list(tmp_path.glob("one/**/passwd"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.97])
def test_a_backup_that_was_cut_off_changes_nothing(
    data: Path, archive: Path, tmp_path: Path, share: float
) -> None:
    whole, before = archive.read_bytes(), content(data)
    # What follows the last file is padding.
    (tmp_path / "cut.tar").write_bytes(whole[: int(len(whole.rstrip(bytes(1))) * share)])
    error = refusal(lambda: restore(tmp_path / "cut.tar", data, force=True))
    assert error.code == "backup_damaged"
    assert content(data) == before


def test_a_restore_that_is_cut_off_is_seen_and_can_be_repeated(
    data: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    while True:
        left = steps

        def cut_off(folder: Path) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            sync_folder(folder)

        monkeypatch.setattr(restores, "sync_folder", cut_off)
        try:
            restore(archive, data, force=True)
        except KeyboardInterrupt:
            error = None if (data / "broker.key").exists() else refusal(lambda: start(data))
            assert error is None or error.code == "key_missing"
        else:
            break
        steps += 1
    assert steps > len(MADE)
    assert content(data).keys() == MADE
    start(data)


def start(data: Path) -> None:
    """Do what a broker does first; it makes a new key where there was no broker."""
    embedded.load_signing_key(data)
