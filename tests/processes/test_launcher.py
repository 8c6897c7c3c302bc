"""Starting, finding, stopping and replacing the embedded broker, with real processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from claudemesh_mcp.config import Paths
from claudemesh_mcp.home import Home, atomic_write, file_lock
from claudemesh_mcp.launcher import BrokerInfo, Clock, Launcher, is_newer
from claudemesh_wire.errors import Conflict, Forbidden, MeshError, Unavailable
from tests.support.sessions import launching, pid_from

STANDIN = Path(__file__).parents[1] / "support" / "standin_broker.py"
LIMIT_S = 30


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(Paths.of(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _nothing_is_left(home: Home) -> Iterator[None]:
    yield
    assert anyio.run(lambda: Launcher(home).stop(0, force=True))


def command(home: Home, way: str = "works", version: str = "1.0.0") -> list[str]:
    return [sys.executable, str(STANDIN), str(home.broker), str(home.run), version, way]


def standin(home: Home, way: str = "works", version: str = "1.0.0") -> Launcher:
    return Launcher(home, command(home, way, version))


def hurried() -> Clock:
    """Give a clock on which a minute is over in a moment."""
    time_s = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal time_s
        time_s += seconds
        await checkpoint()

    return Clock(lambda: time_s, sleep)


def starts(home: Home) -> int:
    return len((home.run / "starts").read_text().splitlines())


def told(home: Home, **changed: Any) -> None:
    fields = {
        "id": "b_a",
        "url": "http://127.0.0.1:9",
        "token": "A" * 43,
        "pid": os.getpid(),
        "version": "1.0.0",
        "data": str(home.broker),
        "data_version": 1,
        "started_ms": 1,
    }
    atomic_write(home.run / "broker.json", json.dumps(fields | changed).encode())


async def refusal(launcher: Launcher) -> MeshError:
    with anyio.fail_after(LIMIT_S):
        with pytest.raises(MeshError) as caught:
            await launcher.ensure()
    assert caught.value.hint
    return caught.value


async def ensured(launcher: Launcher) -> BrokerInfo:
    with anyio.fail_after(LIMIT_S):
        return await launcher.ensure()


# Starting


async def test_a_home_without_a_broker_gets_one_and_keeps_it(home: Home) -> None:
    launcher = standin(home)
    assert launcher.find() is None
    info = await ensured(launcher)
    assert launcher.find() == info
    assert await ensured(standin(home)) == info
    assert starts(home) == 1
    assert info.token == bytes(range(32))
    assert "token" not in repr(info)


async def test_the_broker_is_detached_from_the_session(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a secret of this session")
    info = await ensured(standin(home))
    assert os.getsid(info.pid) == info.pid
    process = Path("/proc") / str(info.pid)
    assert (process / "cwd").resolve() == Path("/")
    assert (process / "fd" / "0").resolve() == Path("/dev/null")
    assert (process / "fd" / "2").resolve() == home.logs / "broker.log"
    assert b"a secret of this session" not in (process / "environ").read_bytes()
    assert (home.logs / "broker.log").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def sessions(home: Home) -> Iterator[list[subprocess.Popen[str]]]:
    started = [launching(home, *command(home)) for _ in range(8)]
    yield started
    for each in started:
        each.communicate()


def test_eight_sessions_that_start_at_once_get_one_broker(
    home: Home, sessions: list[subprocess.Popen[str]]
) -> None:
    pids = {pid_from(each) for each in sessions}
    assert len(pids) == 1
    assert starts(home) == 1


def test_a_broker_outlives_the_killed_session_that_started_it(home: Home) -> None:
    with launching(home, *command(home)) as first:
        pid = pid_from(first)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    info = standin(home).find()
    assert info is not None
    assert info.pid == pid


async def test_a_killed_broker_is_replaced(home: Home) -> None:
    launcher = standin(home)
    first = await ensured(launcher)
    os.kill(first.pid, signal.SIGKILL)
    with file_lock(home.broker / "lock", LIMIT_S):
        pass  # It has let go, though it may not have been waited for yet.
    assert launcher.find() is None
    second = await ensured(launcher)
    assert second.pid != first.pid
    assert launcher.find() == second


async def test_a_broker_that_another_one_beat_gives_way_to_it(home: Home) -> None:
    info = await ensured(standin(home, "beaten"))
    assert starts(home) == 2
    assert standin(home).find() == info


async def test_a_large_log_is_set_aside(home: Home) -> None:
    with (home.logs / "broker.log").open("wb") as file:
        file.truncate(5 * 1024 * 1024)
    await ensured(standin(home))
    assert (home.logs / "broker.log").stat().st_size == 0
    assert (home.logs / "broker.log.1").stat().st_size == 5 * 1024 * 1024


# Failing to start


async def test_a_broker_that_refuses_is_quoted(home: Home) -> None:
    error = await refusal(standin(home, "refuses"))
    assert error.code == "data_newer"
    assert isinstance(error, Conflict)
    assert error.reason == "The database is newer."
    assert str(home.logs / "broker.log") in error.hint


async def test_an_old_refusal_is_not_quoted_again(home: Home) -> None:
    await refusal(standin(home, "refuses"))
    assert (await refusal(standin(home, "silent"))).code == "broker_start_failed"


async def test_a_broker_that_ends_without_a_word_is_told_with_its_log(home: Home) -> None:
    (home.logs / "broker.log").write_text("of an earlier broker")
    error = await refusal(standin(home, "silent"))
    assert error.code == "broker_start_failed"
    assert str(home.logs / "broker.log") in error.hint
    assert "earlier" not in error.reason


async def test_a_broker_that_only_has_last_words_is_quoted(home: Home) -> None:
    error = await refusal(Launcher(home, [sys.executable, "-c", "import nothing_of_that_name"]))
    assert error.code == "broker_start_failed"
    assert "nothing_of_that_name" in error.reason


async def test_a_program_that_does_not_exist_is_told(home: Home) -> None:
    error = await refusal(Launcher(home, ["/nowhere/claudemesh"]))
    assert error.code == "broker_start_failed"


async def test_a_broker_that_never_answers_is_not_awaited_for_ever(home: Home) -> None:
    os.mkfifo(home.run / "end")
    launcher = Launcher(home, command(home, "mute"), hurried())
    assert (await refusal(launcher)).code == "broker_start_timeout"
    with anyio.fail_after(LIMIT_S):
        await anyio.Path(home.run / "end").write_text("")


async def test_a_broker_that_holds_the_data_and_does_not_answer_is_told(home: Home) -> None:
    async with await anyio.open_process(command(home, "stuck")) as stuck:
        assert stuck.stdout is not None
        with anyio.fail_after(LIMIT_S):
            assert await stuck.stdout.receive() == b"held\n"
        error = await refusal(Launcher(home, command(home), hurried()))
        assert error.code == "broker_stuck"
        assert await Launcher(home).stop(0, force=True)


async def test_who_waits_for_a_broker_says_once_that_its_file_makes_no_sense(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    info = await ensured(standin(home))
    atomic_write(home.run / "broker.json", b"{bad")
    error = await refusal(Launcher(home, command(home), hurried()))
    assert error.code == "broker_stuck"
    assert len([one for one in caplog.messages if "makes no sense" in one]) == 1
    assert Launcher(home).find_silent() == info.pid
    assert await Launcher(home).stop(LIMIT_S)
    assert Launcher(home).find_silent() is None


async def test_a_start_that_takes_another_session_too_long_is_told(home: Home) -> None:
    with file_lock(home.run / "start.lock"):
        error = await refusal(Launcher(home, command(home), hurried()))
    assert error.code == "locked"
    assert isinstance(error, Unavailable)


# Finding


def test_a_file_left_by_a_dead_broker_is_ignored(home: Home) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    told(home, pid=ended.pid)
    (home.broker / "lock").write_text(f"{ended.pid}\n")
    (home.broker / "lock").chmod(0o600)
    assert Launcher(home).find() is None


def test_a_pid_that_now_belongs_to_another_program_is_no_broker(home: Home) -> None:
    told(home)
    atomic_write(home.broker / "lock", f"{os.getpid()}\n".encode())
    assert Launcher(home).find() is None


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "http://192.0.2.1:80"},
        {"url": "http://localhost:80"},
        {"url": "http://127.0.0.1"},
        {"url": "http://127.0.0.1:99999"},
        {"url": "https://192.0.2.7:9"},
        {"url": "http://192.0.2.7:9", "pin": "A" * 43},
        {"url": "https://192.0.2.7:9", "pin": "AAAA"},
        {"pin": 7},
        {"url": 7},
        {"token": "AAAA"},
        {"token": 7},
        {"token": "*"},
        {"pid": "me"},
        {"pid": None},
        {"data": 7},
        {"version": None, "started_ms": []},
    ],
)
def test_a_file_that_makes_no_sense_is_ignored(home: Home, changed: dict[str, Any]) -> None:
    with file_lock(home.broker / "lock") as lock:
        os.write(lock.handle, f"{os.getpid()}\n".encode())
        told(home)
        assert Launcher(home).find() is not None
        told(home, **changed)
        assert Launcher(home).find() is None


def test_a_broker_elsewhere_than_loopback_is_known_by_its_certificate(home: Home) -> None:
    with file_lock(home.broker / "lock") as lock:
        os.write(lock.handle, f"{os.getpid()}\n".encode())
        told(home, url="https://192.0.2.7:9", pin="A" * 43)
        found = Launcher(home).find()
    assert found is not None
    assert (found.host, found.port, found.pin) == ("192.0.2.7", 9, bytes(32))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b"{}", b"\xff"])
def test_a_file_that_is_no_object_is_ignored(home: Home, data: bytes) -> None:
    with file_lock(home.broker / "lock") as lock:
        os.write(lock.handle, f"{os.getpid()}\n".encode())
        atomic_write(home.run / "broker.json", data)
        assert Launcher(home).find() is None


def test_a_file_that_others_can_write_is_refused(home: Home) -> None:
    told(home)
    (home.run / "broker.json").chmod(0o666)
    with pytest.raises(Forbidden) as caught:
        Launcher(home).find()
    assert caught.value.code == "wrong_mode"


# Stopping


async def test_stopping_where_nothing_runs_is_done_at_once(home: Home) -> None:
    assert await Launcher(home, clock=hurried()).stop(10)


async def test_a_broker_that_is_asked_to_stop_ends(home: Home) -> None:
    launcher = standin(home)
    await ensured(launcher)
    with anyio.fail_after(LIMIT_S):
        assert await launcher.stop(LIMIT_S)
    assert launcher.find() is None


async def test_a_broker_that_does_not_listen_ends_by_force_only(home: Home) -> None:
    launcher = standin(home, "deaf")
    info = await ensured(launcher)
    assert not await Launcher(home, clock=hurried()).stop(10)
    assert launcher.find() == info
    with anyio.fail_after(LIMIT_S):
        assert await launcher.stop(0, force=True)
    assert launcher.find() is None


# Replacing


async def test_an_older_broker_is_replaced_once_by_many_newer_sessions(home: Home) -> None:
    old = await ensured(standin(home, version="1.9.0"))
    found: list[BrokerInfo] = []

    async def take_over() -> None:
        found.append(await standin(home, version="1.10.0").take_over("1.10.0"))

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(take_over)
    assert {info.pid for info in found} == {found[0].pid}
    assert found[0].pid != old.pid
    assert found[0].version == "1.10.0"
    assert starts(home) == 2


@pytest.mark.parametrize("mine", ["1.0.0", "0.9.12", "1.0.0rc1", "unknown"])
async def test_a_broker_that_is_not_older_stays(home: Home, mine: str) -> None:
    info = await ensured(standin(home))
    with anyio.fail_after(LIMIT_S):
        assert await standin(home).take_over(mine) == info
    assert starts(home) == 1


@pytest.mark.parametrize(
    ("older", "newer"),
    [("0.9", "0.10"), ("1", "1.0.1"), ("1.2.3", "1.3"), ("1.0rc2", "1.1"), ("", "0.0.1")],
)
def test_versions_compare_by_their_numbers(older: str, newer: str) -> None:
    assert is_newer(newer, older)
    assert not is_newer(older, newer)
    assert not is_newer(older, older + ".0" if older else older)
