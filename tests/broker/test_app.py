"""The broker as a process: where it listens, whom it lets in, how it ends, why it won't start."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError

import anyio
import pytest
from anyio.lowlevel import checkpoint
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from claudemesh_broker import embedded
from claudemesh_broker.app import Opening, announcement, open_broker
from claudemesh_wire import DATA_VERSION, VERSION
from claudemesh_wire.errors import TooMuch
from claudemesh_wire.exchange import Exchange, Noticed
from claudemesh_wire.handshake import Challenge, Closing
from tests.support import warmstart
from tests.support.broker import (
    BROKER_KEY,
    LOCAL,
    TOKEN,
    MemoryLink,
    link_pair,
    settings,
)

LIMIT_S = 30


@dataclass
class Process:
    """A broker that runs."""

    popen: subprocess.Popen[str]
    run: Path
    url: str

    @property
    def announced(self) -> dict[str, Any]:
        """What it says about itself."""
        return json.loads((self.run / "broker.json").read_text())

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Signal it and wait; gives its status and what it said on stderr."""
        self.popen.send_signal(number)
        _, said = self.popen.communicate(timeout=LIMIT_S)
        return self.popen.returncode, said


def command(folder: Path, *more: str, python: str = "") -> list[str]:
    folders = ["--data", str(folder / "data"), "--run", str(folder / "run")]
    program = [python or warmstart.python(), "-m", "claudemesh_broker"]
    return [*program, "run", *folders, *more]


@contextmanager
def running(folder: Path, *more: str, python: str = "", **environment: str) -> Iterator[Process]:
    popen = subprocess.Popen(
        command(folder, "--port", "0", *more, python=python),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},  # noqa: TID251 - the child needs the interpreter's
    )
    assert popen.stdout is not None
    try:
        url = popen.stdout.readline().rsplit(" ", 1)[-1].strip()
        yield Process(popen, folder / "run", url)
    finally:
        popen.kill()
        popen.communicate()


def fails(folder: Path, *more: str, code: int = 1) -> tuple[str, dict[str, Any]]:
    """Start a broker that can't; gives its sentence and the error it left."""
    done = subprocess.run(
        command(folder, "--embedded", *more),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    left = folder / "run" / "broker-error.json"
    return done.stderr, json.loads(left.read_text())["error"] if left.exists() else {}


@asynccontextmanager
async def dialed(url: str, **more: Any) -> AsyncIterator[ClientConnection]:
    address = url.replace("http", "ws", 1) + "/ws"
    async with connect(address, proxy=None, compression=None, max_size=None, **more) as socket_:
        yield socket_


async def notice(link: ClientConnection) -> Any:
    with anyio.fail_after(LIMIT_S):
        event = Exchange().receive(cast("str", await link.recv()))
    assert isinstance(event, Noticed)
    return event.notice


def get(url: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    asked = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(asked, timeout=LIMIT_S) as answer:  # noqa: S310 - our own
            return answer.status, answer.read().decode(), dict(answer.headers)
    except HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


async def test_a_broker_says_where_it_is_and_lets_sessions_in(tmp_path: Path) -> None:
    with running(tmp_path, python=sys.executable) as broker:
        said = broker.announced
        assert (said["url"], said["pid"]) == (broker.url, broker.popen.pid)
        assert (said["version"], said["data_version"]) == (VERSION, DATA_VERSION)
        async with dialed(broker.url) as link:
            challenge = await notice(link)
            assert isinstance(challenge, Challenge)
            assert challenge.broker == said["id"]
        status, body, headers = get(f"{broker.url}/health")
        assert (status, json.loads(body)) == (200, {"status": "ok", "version": VERSION})
        assert not {"server", "date"} & {name.lower() for name in headers}
        assert get(f"{broker.url}/docs")[0] == 404


async def test_a_page_of_another_site_is_kept_out(tmp_path: Path) -> None:
    with running(tmp_path) as broker:
        for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            assert get(f"{broker.url}/health", **headers)[0] == 403
        with pytest.raises(InvalidStatus) as caught:
            async with dialed(broker.url, origin="https://evil.example"):
                pass
        assert caught.value.response.status_code == 403
        async with dialed(broker.url, origin="http://localhost:1234") as link:
            assert await notice(link)


async def test_only_text_is_spoken_and_no_frame_is_larger_than_a_mebibyte(tmp_path: Path) -> None:
    with running(tmp_path) as broker:
        for frame, code in ((b"bytes", 1003), ("x" * (1024 * 1024 + 1), 1009)):
            async with dialed(broker.url) as link:
                await notice(link)
                await link.send(frame)
                with pytest.raises(ConnectionClosed), anyio.fail_after(LIMIT_S):
                    await link.recv()
                assert link.close_code == code


async def test_more_connections_than_allowed_are_sent_away(tmp_path: Path) -> None:
    with running(tmp_path, CLAUDEMESH_BROKER_CONNECTIONS="1") as broker:
        async with dialed(broker.url) as first, dialed(broker.url) as second:
            assert await notice(first)
            with pytest.raises(ConnectionClosed), anyio.fail_after(LIMIT_S):
                await second.recv()
            assert second.close_code == 1013


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_broker_that_is_told_to_end_says_so_first(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path) as broker:
        async with dialed(broker.url) as link:
            assert await notice(link)
            broker.popen.send_signal(number)
            closing = await notice(link)
            assert isinstance(closing, Closing)
            assert closing.code == "draining"
            with pytest.raises(ConnectionClosed), anyio.fail_after(LIMIT_S):
                await link.recv()
            assert link.close_code == 1012
        _, said = broker.popen.communicate(timeout=LIMIT_S)
        assert broker.popen.returncode == 0
        assert "Traceback" not in said
        assert not (tmp_path / "run" / "broker.json").exists()
        assert [one.name for one in (tmp_path / "data").glob("*-wal")] == []


async def test_the_identity_outlives_a_restart_and_the_token_does_not(tmp_path: Path) -> None:
    with running(tmp_path) as broker:
        first = broker.announced
        broker.end(signal.SIGKILL)
    with running(tmp_path) as broker:
        second = broker.announced
        assert first["id"] == second["id"]
        assert first["token"] != second["token"]
        status, said = broker.end()
        assert (status, "Traceback" in said) == (0, False)


def test_an_embedded_broker_ends_when_it_is_idle(tmp_path: Path) -> None:
    with running(tmp_path, "--embedded", CLAUDEMESH_BROKER_IDLE_EXIT_S="0.05") as broker:
        assert broker.popen.wait(LIMIT_S) == 0
        assert not (tmp_path / "run" / "broker.json").exists()


async def test_an_embedded_broker_whose_home_is_gone_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudemesh_broker.app.REST_S", 0)
    deaths: list[BaseException] = []
    opening = Opening(settings(tmp_path, embedded=True), BROKER_KEY, TOKEN, deaths.append)
    async with open_broker(opening) as broker:
        with anyio.fail_after(LIMIT_S):
            await broker.rest()
    assert deaths == []


def test_a_foreground_broker_that_fails_leaves_no_word_for_sessions(tmp_path: Path) -> None:
    with running(tmp_path):
        done = subprocess.run(
            command(tmp_path, "--port", "0"), capture_output=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 1
        assert not (tmp_path / "run" / "broker-error.json").exists()


def test_everything_that_is_written_is_for_this_user_alone(tmp_path: Path) -> None:
    with running(tmp_path):
        for folder in ("data", "run"):
            for path in (tmp_path / folder).iterdir():
                assert path.stat().st_mode & 0o077 == 0, path


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said, error = fails(tmp_path, "--port", str(taken.getsockname()[1]))
    assert error["code"] == "port_in_use"
    assert error["message"] in said


def test_a_second_broker_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as broker:
        _, error = fails(tmp_path, "--port", "0")
        assert error["code"] == "data_in_use"
        assert get(f"{broker.url}/health")[0] == 200


def test_a_database_that_is_damaged_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    database = tmp_path / "data" / "broker.sqlite3"
    for path, content in (
        (database, b"no database" * 100),
        (database.with_name("broker.key"), bytes(32)),
    ):
        path.touch(0o600)
        path.write_bytes(content)
    _, error = fails(tmp_path, "--port", "0")
    assert error["code"] == "data_corrupt"
    assert database.read_bytes() == b"no database" * 100


@pytest.mark.parametrize("flags", [("--port", "70000"), ("--bind", "0.0.0.0")])  # noqa: S104 - refused
def test_a_setting_that_makes_no_sense_is_one_sentence(
    tmp_path: Path, flags: tuple[str, str]
) -> None:
    said, _ = fails(tmp_path, *flags, code=2)
    assert len(said.splitlines()) == 1


async def test_one_who_comes_while_it_drains_is_told_at_once(tmp_path: Path) -> None:
    opening = Opening(settings(tmp_path), BROKER_KEY, TOKEN, list[BaseException]().append)
    async with open_broker(opening) as broker, anyio.create_task_group() as tasks:
        early, late = link_pair(), link_pair()
        tasks.start_soon(broker.serve, early[0], LOCAL)
        assert isinstance(await heard(early[1]), Challenge)
        assert broker.connections == 1
        await broker.drain()
        assert isinstance(await heard(early[1]), Closing)
        tasks.start_soon(broker.serve, late[0], LOCAL)
        assert isinstance(await heard(late[1]), Closing)


async def heard(link: MemoryLink) -> Any:
    with anyio.fail_after(LIMIT_S):
        event = Exchange().receive(await link.receive())
    assert isinstance(event, Noticed)
    return event.notice


async def test_an_embedded_broker_with_a_session_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudemesh_broker.app.REST_S", 0)
    told = settings(tmp_path, embedded=True, idle_exit_s=0.01)
    opening = Opening(told, BROKER_KEY, TOKEN, list[BaseException]().append)
    async with open_broker(opening) as broker, anyio.create_task_group() as tasks:
        here, there = link_pair()
        tasks.start_soon(broker.serve, here, LOCAL)
        await heard(there)
        with anyio.move_on_after(0.1) as waiting:
            await broker.rest()
        assert waiting.cancelled_caught
        await there.close()
        with anyio.fail_after(LIMIT_S):
            await broker.rest()


async def test_an_embedded_broker_that_is_too_busy_to_look_does_not_end_by_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("claudemesh_broker.app.REST_S", 0)
    told = settings(tmp_path, embedded=True, idle_exit_s=0.01, backlog_changes=1)
    opening = Opening(told, BROKER_KEY, TOKEN, list[BaseException]().append)
    async with open_broker(opening) as broker, anyio.create_task_group() as tasks:
        embedded.announce(told.run, announcement(broker, "http://127.0.0.1:7467"))
        answers = threading.Event()
        asked = [broker.parts.store.read(lambda _: answers.wait(LIMIT_S))]
        with suppress(TooMuch):
            while True:
                asked.append(broker.parts.store.read(lambda _: True))
        rested = anyio.Event()

        async def rest() -> None:
            await broker.rest()
            rested.set()

        with anyio.fail_after(LIMIT_S):
            tasks.start_soon(rest)
            while "TooMuch" not in caplog.text:
                await checkpoint()
            answers.set()
            await asyncio.gather(*asked)
            await rested.wait()
