"""The check of a broker's data: a healthy one is found so; each fault has its line and remedy."""

import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from claudemesh_broker import checkup
from claudemesh_broker.checkup import Finding, State, check_up
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.folders import FolderLock
from claudemesh_wire.errors import NotFound
from tests.support.authority import Authority
from tests.support.broker import settings
from tests.support.brokerdata import broker_data, content


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return broker_data(tmp_path)


def checked(told: BrokerSettings) -> Mapping[str, Finding]:
    before = content(told.data)
    found = {one.name: one for one in check_up(told)}
    assert content(told.data) == before
    return found


def faults(told: BrokerSettings) -> dict[str, State]:
    found = checked(told).values()
    assert all(one.hint for one in found if one.state is not State.OK)
    return {one.name: one.state for one in found if one.state is not State.OK}


def test_a_healthy_broker_is_found_so(data: Path) -> None:
    told = settings(data.parent)
    assert faults(told) == {}
    assert checked(told)["broker"].says == "does not run"
    with FolderLock.take(data):
        assert str(os.getpid()) in checked(told)["broker"].says
        assert faults(told) == {}


def sums(contents: Iterable[bytes]) -> list[str]:
    return [hashlib.sha256(one).hexdigest() for one in contents]


def test_what_a_killed_broker_left_is_looked_at_and_left_so(tmp_path: Path) -> None:
    killed = tmp_path / "killed" / "broker"
    shutil.copytree(broker_data(tmp_path / "whole"), killed)
    with closing(sqlite3.connect(killed / "broker.sqlite3", isolation_level=None)) as writer:
        writer.execute("INSERT INTO meta VALUES ('last', 'row')")
        copies = [killed / f"broker.sqlite3{end}" for end in ("", "-wal")]
        left = {path: path.read_bytes() for path in copies}
    for path, data in left.items():
        path.write_bytes(data)
        path.chmod(0o600)
    assert faults(settings(killed.parent)) == {}
    # The sums, since what differs would be long to show.
    before, after = sums(left.values()), sums(path.read_bytes() for path in left)
    assert after == before


def test_a_file_that_a_running_broker_removes_meanwhile_is_no_fault(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Path.iterdir

    def with_one_that_is_gone(folder: Path) -> Iterator[Path]:
        yield from listed(folder)
        yield folder / "broker.sqlite3-wal"

    monkeypatch.setattr(Path, "iterdir", with_one_that_is_gone)
    assert faults(settings(data.parent)) == {}


def test_a_check_leaves_no_file_behind(data: Path) -> None:
    before = sorted(data.iterdir())
    assert faults(settings(data.parent)) == {}
    assert [path for path in sorted(data.iterdir()) if path.name != "lock"] == [
        path for path in before if path.name != "lock"
    ]


def test_without_a_broker_there_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        check_up(settings(tmp_path))
    assert caught.value.code == "no_broker_data"


def open_file(data: Path) -> None:
    (data / "admin.secret").chmod(0o640)


def damaged_pages(data: Path) -> None:
    with (data / "broker.sqlite3").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)


def no_database(data: Path) -> None:
    (data / "broker.sqlite3").unlink()


def another_key(data: Path) -> None:
    (data / "broker.key").write_bytes(bytes(32))


def no_key(data: Path) -> None:
    (data / "broker.key").unlink()


def short_key(data: Path) -> None:
    (data / "broker.key").write_bytes(b"short")


def half_a_certificate(data: Path) -> None:
    (data / "broker-tls.key").unlink()


def damaged_secret(data: Path) -> None:
    (data / "admin.secret").write_bytes(b"?")


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (open_file, {"permissions", "admin secret"}),
        (damaged_pages, {"database"}),
        (no_database, {"database", "key"}),
        (another_key, {"key"}),
        (no_key, {"key"}),
        (short_key, {"key"}),
        (half_a_certificate, {"certificate"}),
        (damaged_secret, {"admin secret"}),
    ],
)
def test_a_fault_is_found_where_it_is(
    data: Path, spoil: Callable[[Path], None], names: set[str]
) -> None:
    spoil(data)
    found = faults(settings(data.parent))
    # A page that is damaged may be one that the key is looked up in.
    assert names <= found.keys() <= names | {"key"}
    assert set(found.values()) == {State.FAILED}


def test_the_remedy_names_the_broker_s_own_files_alone(tmp_path: Path) -> None:
    data = broker_data(tmp_path / "o'brien's")
    open_file(data)
    data.chmod(0o755)
    (data / "notes").write_text("of somebody else")
    (data / "notes").chmod(0o644)
    found = checked(settings(data.parent))["permissions"]
    assert "notes" not in found.says + found.hint
    command = found.hint.removeprefix("Close it: ")
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - as a user would
    assert faults(settings(data.parent)) == {}
    assert (data / "notes").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_is_no_broker_s_is_neither_closed_nor_written_into(tmp_path: Path) -> None:
    data = tmp_path / "broker"
    data.mkdir(0o755)
    (data / "passwd").write_text("root")
    with pytest.raises(NotFound) as caught:
        check_up(settings(tmp_path))
    assert caught.value.code == "no_broker_data"
    assert "chmod" not in caught.value.hint
    assert [path.name for path in data.iterdir()] == ["passwd"]


@pytest.mark.parametrize(("days", "state"), [(90, None), (7, State.WARNING), (-1, State.FAILED)])
def test_a_certificate_that_ends_is_said_in_time(
    data: Path, tmp_path: Path, days: int, state: State | None
) -> None:
    certificate, key = Authority(tmp_path).issue("mesh.example.org", days=days)
    told = settings(data.parent, tls_cert=certificate, tls_key=key)
    assert faults(told) == ({"certificate": state} if state else {})


class Usage(NamedTuple):
    """What the system says of a disk."""

    free: int


@pytest.mark.parametrize(
    ("free_mib", "state"), [(4096, None), (512, State.WARNING), (8, State.FAILED)]
)
def test_a_disk_that_fills_up_is_said_in_time(
    data: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, state: State | None
) -> None:
    usage = Usage(free_mib * 1024 * 1024)
    monkeypatch.setattr(checkup.shutil, "disk_usage", lambda _: usage)
    assert faults(settings(data.parent)) == ({"disk": state} if state else {})
