"""The home: private folders, whole files, and locks that die with their holder."""

import os
import shlex
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from claudemesh_mcp.config import Paths, broker_environment
from claudemesh_mcp.home import (
    Home,
    atomic_write,
    create_once,
    file_lock,
    private_folder,
    read_private,
    remove,
    sweep_leftovers,
    try_lock,
)
from claudemesh_wire.errors import Forbidden, Unavailable

as_root = pytest.mark.skipif(os.getuid() != 0, reason="giving files away needs root")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def run(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=broker_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_all_folders_of_a_new_home_are_private(tmp_path: Path) -> None:
    home = Home.open(Paths.of(tmp_path / "new"))
    folders = [home.data, home.broker, home.run, home.keys, home.meshes, home.sessions, home.logs]
    assert {mode_of(folder) for folder in folders} == {0o700}


def test_a_home_opens_again_with_what_it_holds(tmp_path: Path) -> None:
    atomic_write(Home.open(Paths.of(tmp_path)).keys / "a", b"1")
    assert read_private(Home.open(Paths.of(tmp_path)).keys / "a") == b"1"


def test_a_loose_umask_opens_nothing(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        home = Home.open(Paths.of(tmp_path / "new"))
        atomic_write(home.keys / "a", b"1")
        create_once(home.keys / "b", b"1")
        with home.lock():
            pass
    finally:
        os.umask(before)
    assert mode_of(home.keys) == 0o700
    files = [home.keys / "a", home.keys / "b", home.data / "home.lock"]
    assert {mode_of(file) for file in files} == {0o600}


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_a_folder_that_others_can_enter_is_refused_with_the_command(
    tmp_path: Path, mode: int
) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(Forbidden) as caught:
        Home.open(Paths.of(folder))
    assert caught.value.code == "wrong_mode"
    assert f"chmod 700 {shlex.quote(str(folder))}" in caught.value.hint


@as_root
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(0o700)
    os.chown(folder, 4242, 4242)
    with pytest.raises(Forbidden) as caught:
        private_folder(folder)
    assert caught.value.code == "wrong_owner"


def test_a_link_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / "home").mkdir(0o700)
    (tmp_path / "home" / "keys").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Forbidden) as caught:
        Home.open(Paths.of(tmp_path / "home"))
    assert caught.value.code == "not_a_folder"


def test_a_file_in_the_place_of_the_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(Forbidden) as caught:
        Home.open(Paths.of(tmp_path / "home"))
    assert caught.value.code == "not_a_folder"


def test_a_home_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable) as caught:
        Home.open(Paths.of(tmp_path / "file" / "home"))
    assert caught.value.code == "storage_failed"


def test_a_file_that_is_not_there_reads_as_none(tmp_path: Path) -> None:
    assert read_private(tmp_path / "none") is None


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"1", mode=0o640)
    with pytest.raises(Forbidden) as caught:
        read_private(tmp_path / "a")
    assert caught.value.code == "wrong_mode"
    assert "chmod 600" in caught.value.hint


@as_root
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"1")
    os.chown(tmp_path / "a", 4242, 4242)
    with pytest.raises(Forbidden) as caught:
        read_private(tmp_path / "a")
    assert caught.value.code == "wrong_owner"


def test_a_link_is_not_followed_by_a_read(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"1")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(Forbidden) as caught:
        read_private(tmp_path / "link")
    assert caught.value.code == "not_a_file"


def test_a_pipe_is_refused_and_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(Forbidden) as caught:
        read_private(tmp_path / "pipe")
    assert caught.value.code == "not_a_file"


def test_a_file_larger_than_expected_is_refused(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"12345")
    with pytest.raises(Forbidden) as caught:
        read_private(tmp_path / "a", max_bytes=4)
    assert caught.value.code == "not_a_file"


def test_a_write_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept"
    assert read_private(tmp_path / "link") == b"new"


def test_a_write_leaves_nothing_beside_it(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"1")
    atomic_write(tmp_path / "a", b"2")
    assert create_once(tmp_path / "b", b"3")
    assert not create_once(tmp_path / "b", b"4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert (read_private(tmp_path / "a"), read_private(tmp_path / "b")) == (b"2", b"3")


def test_of_many_creators_one_wins_with_all_of_its_content(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda data: create_once(tmp_path / "a", data), contents))
    assert won.count(True) == 1
    assert read_private(tmp_path / "a") == contents[won.index(True)]


def test_removing_says_whether_there_was_something(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"1")
    assert remove(tmp_path / "a")
    assert not remove(tmp_path / "a")


def test_only_old_leftovers_are_swept(tmp_path: Path) -> None:
    for name in (".a.00.tmp", ".hidden", "a"):
        (tmp_path / name).write_bytes(b"")
    written_s = (tmp_path / "a").stat().st_mtime
    sweep_leftovers(tmp_path, written_s + 10)
    assert len(list(tmp_path.iterdir())) == 3
    sweep_leftovers(tmp_path, written_s + 4000)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a"]


def test_a_full_disk_is_told_and_keeps_the_old_content(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", b"old")
    program = """
import resource, sys
from pathlib import Path
from claudemesh_mcp.home import atomic_write, create_once
from claudemesh_wire.errors import Unavailable
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
folder = Path(sys.argv[1])
for write, name in ((atomic_write, "a"), (create_once, "b")):
    try:
        write(folder / name, bytes(8192))
    except Unavailable as error:
        print(error.code)
"""
    out, _ = run(program, str(tmp_path)).communicate(timeout=30)
    assert out.split() == ["storage_full", "storage_full"]
    assert read_private(tmp_path / "a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_lock_excludes_a_second_taker_of_the_same_process(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    assert try_lock(tmp_path / "lock") is None
    lock.release()
    again = try_lock(tmp_path / "lock")
    assert again is not None
    again.release()


def test_waiting_for_a_lock_ends_with_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        file_lock(path),
        pytest.raises(Unavailable) as caught,
        file_lock(path, timeout_s=0.05),
    ):
        pytest.fail("two holders")
    assert caught.value.code == "locked"


def test_a_waiter_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    entered = threading.Event()

    def wait_for_it() -> None:
        with file_lock(tmp_path / "lock", timeout_s=30):
            entered.set()

    waiter = threading.Thread(target=wait_for_it)
    waiter.start()
    assert not entered.is_set()
    lock.release()
    waiter.join(30)
    assert entered.is_set()


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), file_lock(tmp_path / "lock"):
        raise KeyError
    with file_lock(tmp_path / "lock", timeout_s=0):
        pass


def test_a_killed_holder_frees_the_lock_and_its_children_do_not_keep_it(tmp_path: Path) -> None:
    program = """
import subprocess, sys
from pathlib import Path
from claudemesh_mcp.home import file_lock
with file_lock(Path(sys.argv[1])):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=sys.stdin)
    print("held", flush=True)
    child.wait()
"""
    holder = run(program, str(tmp_path / "lock"))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert try_lock(tmp_path / "lock") is None
    holder.send_signal(signal.SIGKILL)
    holder.wait(30)
    with file_lock(tmp_path / "lock", timeout_s=0):
        pass
    holder.communicate()


def test_a_link_in_the_place_of_a_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(Forbidden) as caught:
        try_lock(tmp_path / "lock")
    assert caught.value.code == "not_a_file"
    assert not (tmp_path / "target").exists()
