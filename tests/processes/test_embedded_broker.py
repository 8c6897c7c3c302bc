"""Launcher and broker keep the same contract: the real broker is started, refused, replaced."""

import os
import select
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.config import Paths, broker_environment
from claudemesh_mcp.home import Home, atomic_write, file_lock
from claudemesh_mcp.launcher import BrokerInfo, Clock, Launcher
from claudemesh_wire import DATA_VERSION, VERSION
from claudemesh_wire.errors import MeshError
from tests.support.sessions import launching, pid_from

LIMIT_S = 60


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(Paths.of(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _nothing_is_left(home: Home) -> Iterator[None]:
    yield
    assert anyio.run(lambda: Launcher(home).stop(0, force=True))


async def ensured(home: Home) -> BrokerInfo:
    with anyio.fail_after(LIMIT_S):
        return await Launcher(home).ensure()


async def stopped(home: Home) -> None:
    with anyio.fail_after(LIMIT_S):
        assert await Launcher(home).stop(LIMIT_S)


async def refusal(home: Home) -> MeshError:
    with anyio.fail_after(LIMIT_S), pytest.raises(MeshError) as caught:
        await Launcher(home).ensure()
    assert caught.value.hint
    return caught.value


async def test_the_broker_says_what_it_is(home: Home) -> None:
    info = await ensured(home)
    assert (info.version, info.data, info.data_version) == (VERSION, home.broker, DATA_VERSION)
    assert Launcher(home).find() == info
    assert await Launcher(home).take_over(VERSION) == info


async def test_a_broker_that_was_stopped_comes_back_as_the_same_with_a_new_token(
    home: Home,
) -> None:
    first = await ensured(home)
    await stopped(home)
    assert Launcher(home).find() is None
    assert not (home.run / "broker.json").exists()
    second = await ensured(home)
    assert second.id == first.id
    assert second.pid != first.pid
    assert second.token != first.token


async def test_a_broker_that_was_killed_comes_back_as_the_same(home: Home) -> None:
    first = await ensured(home)
    os.kill(first.pid, signal.SIGKILL)
    with file_lock(home.broker / "lock", LIMIT_S):
        pass  # The kernel frees it when the broker is gone.
    assert Launcher(home).find() is None
    assert (await ensured(home)).id == first.id


def test_eight_sessions_on_an_empty_home_share_one_broker(home: Home) -> None:
    sessions = [launching(home) for _ in range(8)]
    try:
        assert len({pid_from(each) for each in sessions}) == 1
    finally:
        for each in sessions:
            each.communicate()


class Slow:
    """A broker that has been started and gets no further than to its file of settings.

    Args:
        home: Its home.
    """

    def __init__(self, home: Home) -> None:
        self._file = home.broker / "broker.toml"
        os.mkfifo(self._file)
        self._handle = -1
        self.is_waited_for = False

    def await_start(self) -> None:
        """Wait until it wants to read its settings."""
        self._handle = os.open(self._file, os.O_WRONLY)

    def ended(self) -> bool:
        """Wait until nobody wants to read its settings any more."""
        poll = select.poll()
        poll.register(self._handle, 0)
        return bool(poll.poll(LIMIT_S * 1000))

    async def go_on(self, pause_s: float) -> None:
        """Let it go on; a launcher that waits calls this for its first pause."""
        if not self.is_waited_for:
            self.is_waited_for = True
            self._file.unlink()
            os.close(self._handle)
        await anyio.sleep(pause_s)


@pytest.fixture
def begun(home: Home) -> Slow:
    """Give a broker that a session began to start before it was killed."""
    slow = Slow(home)
    with launching(home) as session:
        slow.await_start()
        os.killpg(session.pid, signal.SIGKILL)
    return slow


async def test_stopping_waits_for_a_broker_that_a_dead_session_began_to_start(
    home: Home, begun: Slow
) -> None:
    launcher = Launcher(home, clock=Clock(sleep=begun.go_on))
    with anyio.fail_after(LIMIT_S):
        assert await launcher.stop(LIMIT_S)
    assert begun.is_waited_for
    with file_lock(home.run / "start.lock", 0), file_lock(home.broker / "lock", 0):
        assert Launcher(home).find() is None


async def test_the_next_session_gets_the_broker_that_a_dead_one_began_to_start(
    home: Home, begun: Slow
) -> None:
    launcher = Launcher(home, ["/nowhere/claudemesh"], Clock(sleep=begun.go_on))
    with anyio.fail_after(LIMIT_S):
        assert (await launcher.ensure()).version == VERSION


async def test_a_start_that_comes_to_no_end_is_ended_by_force(home: Home, begun: Slow) -> None:
    with anyio.fail_after(LIMIT_S):
        assert await Launcher(home).stop(0, force=True)
    assert begun.ended()
    assert not begun.is_waited_for


async def test_a_corrupted_database_is_refused_and_left_alone(home: Home) -> None:
    await ensured(home)
    await stopped(home)
    database = home.broker / "broker.sqlite3"
    damaged = b"no database" * 1000
    database.write_bytes(damaged)
    assert (await refusal(home)).code == "data_corrupt"
    assert database.read_bytes() == damaged


async def test_a_newer_database_is_refused_and_left_alone(home: Home) -> None:
    await ensured(home)
    await stopped(home)
    database = home.broker / "broker.sqlite3"
    with sqlite3.connect(database) as connection:
        connection.execute(f"PRAGMA user_version = {DATA_VERSION + 1}")
    connection.close()
    before = database.read_bytes()
    assert (await refusal(home)).code == "data_newer"
    assert database.read_bytes() == before


async def test_a_port_that_is_taken_is_told(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        atomic_write(home.broker / "broker.toml", f"port = {port}\n".encode())
        assert (await refusal(home)).code == "port_in_use"
    assert (await ensured(home)).port == port


async def test_a_broken_config_file_of_the_broker_is_told(home: Home) -> None:
    atomic_write(home.broker / "broker.toml", b"prot = 1\n")
    error = await refusal(home)
    assert "broker.toml" in error.reason
    assert "port" in error.reason + error.hint


async def test_a_broker_in_the_foreground_is_found_by_sessions(home: Home) -> None:
    command = [sys.executable, "-m", "claudemesh_broker", "run", "--port", "0"]
    folders = ["--data", str(home.broker), "--run", str(home.run)]
    async with await anyio.open_process([*command, *folders], env=broker_environment()) as broker:
        assert broker.stdout is not None
        with anyio.fail_after(LIMIT_S):
            await broker.stdout.receive()
        assert (await ensured(home)).pid == broker.pid
        await stopped(home)
