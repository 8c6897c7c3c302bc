"""Finds the embedded broker of a home, starts it when there is none, stops and replaces it.

``client.py`` asks for it before every connect and ``cli/`` for ``up``, ``down`` and ``status``.
The broker itself says where it is in ``run/broker.json``, or in ``run/broker-error.json`` why it
could not start, and holds a lock on its data for as long as it lives. Until it has that one, it
holds the lock on starting that its launcher took, which may be gone by then.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from claudemesh_mcp.brokerinfo import BrokerInfo, is_newer, read_info
from claudemesh_mcp.config import broker_environment
from claudemesh_mcp.home import FILE_MODE, FileLock, Home, read_private, remove, try_lock
from claudemesh_wire.errors import CLASSES, MeshError, Unavailable

__all__ = ["BrokerInfo", "Clock", "Launcher", "is_newer"]

START_S: Final = 30.0
TAKE_OVER_S: Final = 20.0
_CONNECT_S: Final = 2.0
_KILL_S: Final = 5.0
_LOG_BYTES: Final = 4 * 1024 * 1024
_QUOTED: Final = 400

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clock:
    """How the launcher waits; tests pass one that runs by itself.

    Args:
        now: A clock in seconds that never goes back.
        sleep: Waits for some seconds of it.
    """

    now: Callable[[], float] = anyio.current_time
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep


class Launcher:
    """The embedded broker of one home, from outside.

    Args:
        home: The home.
        command: What starts a broker; this installation's own if not given.
        clock: How to wait.
    """

    def __init__(
        self, home: Home, command: Sequence[str] | None = None, clock: Clock | None = None
    ) -> None:
        self._home = home
        self._clock = clock or Clock()
        self._info_file = home.run / "broker.json"
        self._error_file = home.run / "broker-error.json"
        self._start_lock = home.run / "start.lock"
        self._data_lock = home.broker / "lock"
        self.log_file = home.logs / "broker.log"
        self._log_began = 0
        self._senseless = b""
        own = [sys.executable, "-m", "claudemesh_broker", "run", "--embedded"]
        folders = ["--data", str(home.broker), "--run", str(home.run)]
        self._command = [*own, *folders] if command is None else list(command)

    def find(self) -> BrokerInfo | None:
        """Look for a running broker; quick, and nothing is started.

        Returns:
            What it says about itself, or ``None`` when none runs: a file that a killed broker
            left behind is ignored.

        Raises:
            Forbidden: The file is not private (``wrong_owner``, ``wrong_mode``, ``not_a_file``).
        """
        data = read_private(self._info_file)
        info = None if data is None else read_info(data)
        if data is not None and info is None and data != self._senseless:
            # Who waits for a broker looks many times a second.
            self._senseless = data
            _log.warning("%s makes no sense", self._info_file)
        return info if info is not None and self._holder() == info.pid else None

    def find_silent(self) -> int | None:
        """Look for a broker that runs and that ``find`` does not find; nothing is started.

        Returns:
            Its process: it holds the data, and ``run/broker.json`` does not say where it listens.
            That is so for a moment while it starts, and when somebody has damaged that file.

        Raises:
            Forbidden: As for ``find``.
        """
        return self._holder() if self.find() is None else None

    async def ensure(self) -> BrokerInfo:
        """Find the broker, or start it; of many that ask at once one starts it.

        Returns:
            A broker that accepts connections.

        Raises:
            Unavailable: It did not come up (``broker_start_failed``, ``broker_start_timeout``)
                or an old one does not end (``broker_stuck``).
            MeshError: Why it could not start, in the broker's own words and code.
        """
        wait = self._wait(2 * START_S)
        while (info := await self._answering()) is None:
            # Taken here and not in a thread: it never waits, and a cancelled task would leave
            # a thread behind that takes it later and keeps it.
            lock = self._take_turn()
            if lock is not None:
                try:
                    return await self._start(lock)
                finally:
                    lock.release()
            await wait.more(self._locked())
        return info

    async def stop(self, timeout_s: float, *, force: bool = False) -> bool:
        """Ask the broker to drain and end, and wait until it has let go of its data.

        One that is only starting is waited for, though nobody may be left who began it: it would
        else come up after this has said that there is none.

        Args:
            timeout_s: How long to wait for that.
            force: Kill it when the time is over; what it acknowledged is on disk.

        Returns:
            Whether no broker is left.

        Raises:
            Unavailable: ``locked``: one is starting, and does not come to an end with that.
        """
        async with self._turn(timeout_s if force else 2 * START_S, force=force):
            return await self._stop(timeout_s, force=force)

    async def take_over(self, mine: str) -> BrokerInfo:
        """Replace a broker that is older than this session by one of this installation, once.

        Args:
            mine: The version of this session.

        Returns:
            The broker to use: the running one when it is not older.

        Raises:
            MeshError: As for ``ensure``.
        """
        info = await self.ensure()
        if not is_newer(mine, info.version):
            return info
        async with self._turn() as lock:
            # Another session may have replaced it while this one waited for its turn.
            again = await self._answering()
            if again is not None and not is_newer(mine, again.version):
                return again
            _log.info("replacing broker %s by %s", info.version, mine)
            await self._stop(TAKE_OVER_S, force=True)
            return await self._start(lock)

    async def _answering(self) -> BrokerInfo | None:
        info = await anyio.to_thread.run_sync(self.find)
        return info if info is not None and await _connects(info) else None

    async def _start(self, lock: FileLock) -> BrokerInfo:
        wait = self._wait(START_S)
        # One that drains, or that another launcher has just started, still holds the data.
        while await anyio.to_thread.run_sync(self._holder) is not None:
            if (info := await self._answering()) is not None:
                return info
            await wait.more(self._stuck())
        process = await anyio.to_thread.run_sync(self._spawn, lock)
        while (info := await self._answering()) is None:
            if process.poll() is None:
                await wait.more(self._too_slow())
            elif await anyio.to_thread.run_sync(self._holder) is not None:
                # It ended because another broker was quicker; that one is awaited instead.
                await wait.more(self._failure(process.returncode))
            else:
                raise self._failure(process.returncode)
        return info

    def _spawn(self, lock: FileLock) -> subprocess.Popen[bytes]:
        # With them gone, whatever is found from here on was written by the new broker.
        remove(self._info_file)
        remove(self._error_file)
        log = self._open_log()
        # Windows lets no other process inherit a lock.
        passed = [] if sys.platform == "win32" else [lock.handle]
        words = [word for handle in passed for word in ("--start-lock", str(handle))]
        try:
            process = subprocess.Popen(
                [*self._command, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=broker_environment(),
                start_new_session=True,
                pass_fds=passed,
            )
        except OSError as error:
            raise Unavailable(
                f"The broker's program can't be started: {error.strerror}.",
                f"Install claudemesh again; it was to run {self._command[0]}.",
                code="broker_start_failed",
            ) from error
        finally:
            os.close(log)
        # Only who ends it by force reads this; a disk that is full is no reason to do without it.
        with suppress(OSError):
            os.lseek(lock.handle, 0, os.SEEK_SET)
            os.write(lock.handle, f"{process.pid}\n".encode())
        # A broker that ends before this session must not stay in the table as a zombie.
        threading.Thread(target=process.wait, name="broker-reaper", daemon=True).start()
        return process

    def _open_log(self) -> int:
        with suppress(FileNotFoundError):
            if self.log_file.stat().st_size > _LOG_BYTES:
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(self.log_file, flags, FILE_MODE)
        self._log_began = os.fstat(handle).st_size
        return handle

    async def _stop(self, timeout_s: float, *, force: bool) -> bool:
        pid = await anyio.to_thread.run_sync(self._holder)
        for number, limit_s in _signals(timeout_s, force=force):
            if pid is None:
                return True
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            wait = self._wait(limit_s)
            with suppress(TimeoutError):
                while (pid := await anyio.to_thread.run_sync(self._holder)) is not None:
                    await wait.more(TimeoutError())
        return pid is None

    def _holder(self) -> int | None:
        """Give the pid of the broker that holds the data, if one does."""
        pid = _pid_in(self._data_lock)
        # Only a live process is worth the look at the lock: for that moment a broker that is
        # just starting would find it taken.
        if not _is_alive(pid) or (lock := try_lock(self._data_lock)) is None:
            return pid if _is_alive(pid) else None
        lock.release()
        return None

    @asynccontextmanager
    async def _turn(
        self, limit_s: float = 2 * START_S, *, force: bool = False
    ) -> AsyncGenerator[FileLock]:
        """Hold the lock on starting; by force, kill what is starting when the time is over."""
        wait = self._wait(limit_s + (_KILL_S if force else 0))
        forced_from = self._clock.now() + limit_s
        while (lock := self._take_turn()) is None:
            if force and self._clock.now() >= forced_from:
                await anyio.to_thread.run_sync(self._kill_starting)
            await wait.more(self._locked())
        try:
            yield lock
        finally:
            lock.release()

    def _take_turn(self) -> FileLock | None:
        if (lock := try_lock(self._start_lock)) is not None:
            # Whom an earlier holder started is nobody's business any more.
            os.ftruncate(lock.handle, 0)
        return lock

    def _kill_starting(self) -> None:
        if (pid := _pid_in(self._start_lock)) and _is_alive(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    def _wait(self, limit_s: float) -> "_Wait":
        return _Wait(self._clock, limit_s)

    def _failure(self, status: int | None) -> MeshError:
        try:
            error: dict[str, Any] = json.loads(read_private(self._error_file) or b"")["error"]
            kind = CLASSES.get(error.get("category", ""), Unavailable)
            hint = f"{error.get('hint', '')} The broker's log: {self.log_file}".strip()
            return kind(error["message"], hint, code=error["code"])
        except (ValueError, LookupError, TypeError):
            return Unavailable(
                f"The broker ended with status {status} before it listened{self._last_words()}",
                f"More may be in its log: {self.log_file}",
                code="broker_start_failed",
                details={"log": str(self.log_file)},
            )

    def _last_words(self) -> str:
        with suppress(OSError), self.log_file.open("rb") as file:
            # What earlier brokers wrote explains nothing.
            file.seek(self._log_began)
            lines = file.read(_LOG_BYTES).decode("utf-8", "replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            return f": {last[:_QUOTED]}" if last else "."
        return "."

    def _too_slow(self) -> MeshError:
        return Unavailable(
            f"The broker was started and does not answer after {START_S:g} s.",
            f"Try again in a moment; what it does is in {self.log_file}",
            code="broker_start_timeout",
        )

    def _stuck(self) -> MeshError:
        return Unavailable(
            f"A broker holds {self._home.broker} and does not answer.",
            f"End it with `claudemesh down --force`; what it does is in {self.log_file}",
            code="broker_stuck",
        )

    def _locked(self) -> MeshError:
        return Unavailable(
            "Another session has been starting the broker for long, and it is not up.",
            "Try again in a moment, or end it with `claudemesh down --force`; what the broker does"
            f" is in {self.log_file}",
            code="locked",
        )


class _Wait:
    """Asks again after longer and longer pauses, up to a limit."""

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._until = clock.now() + limit_s
        self._pause_s = 0.02

    async def more(self, otherwise: Exception) -> None:
        """Pause, or raise when the time is over."""
        if self._clock.now() >= self._until:
            raise otherwise
        await self._clock.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 1.5, 0.25)


def _signals(timeout_s: float, *, force: bool) -> list[tuple[signal.Signals, float]]:
    asked = [(signal.SIGTERM, timeout_s)]
    # Windows knows no other signal than the one that ends a process at once.
    return [*asked, (getattr(signal, "SIGKILL", signal.SIGTERM), _KILL_S)] if force else asked


def _pid_in(lock_file: Path) -> int:
    """Give the process that noted itself, or was noted, in a lock file; 0 for none."""
    noted = read_private(lock_file, max_bytes=64)
    return int(noted) if noted and noted.strip().isdigit() else 0


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # there, os.kill ends the process whatever the signal
        return pid > 0
    try:
        if pid > 0:
            os.kill(pid, 0)
    except OSError:
        return False
    return pid > 0


async def _connects(info: BrokerInfo) -> bool:
    with anyio.move_on_after(_CONNECT_S), suppress(OSError):
        async with await anyio.connect_tcp(info.host, info.port):
            return True
    return False
