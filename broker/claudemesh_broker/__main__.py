"""``python -m claudemesh_broker run``: listens, says where, serves, and ends in good order.

``claudemesh broker run`` and the sessions' launcher start it. Whatever keeps it from starting is
one sentence on stderr and, for the sessions of its home, a file; then the exit status is 1.
"""

import argparse
import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

import anyio
import uvicorn

from claudemesh_broker import embedded
from claudemesh_broker.app import Broker, Opening, announcement, open_broker
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.folders import FolderLock, private_folder
from claudemesh_broker.logs import LogLines
from claudemesh_wire.errors import MeshError, Unavailable
from claudemesh_wire.keys import SigningKey

LOG_FILE: Final = "broker.log"
_COLLECT_AFTER: Final = (10_000, 20, 20)
BACKLOG: Final = 512
GRACE_S: Final = 5
logger: Final = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a broker until it is told to end; gives the exit status."""
    flags = vars(_parser().parse_args(arguments))
    flags.pop("command")
    run = Path(flags["run"]) if flags["run"] and flags["embedded"] else None
    try:
        settings = BrokerSettings.load(flags)
        run = settings.run if settings.embedded else None
        return _run(settings)
    except MeshError as error:
        print(f"claudemesh broker: {error}", file=sys.stderr)  # noqa: T201 - its one sentence
        if run is not None:
            with suppress(MeshError):
                embedded.report_failure(run, error)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="claudemesh_broker")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a broker in the foreground")
    run.add_argument("--host", help="the loopback address to listen on")
    run.add_argument("--port", type=int, help="the port; 0 takes a free one")
    run.add_argument("--data", help="the folder of its database and key")
    run.add_argument("--run", help="the folder in which it says where it listens")
    run.add_argument("--log-level", help="debug, info, warning or error")
    run.add_argument(
        "--embedded",
        action="store_true",
        default=None,
        help="started by a session: ends by itself when it is idle",
    )
    return parser


def _run(settings: BrokerSettings) -> int:
    # Whatever is written from here on, the log too, is for this user alone.
    os.umask(0o077)
    with FolderLock.take(private_folder(settings.data)):
        _log(settings)
        key = embedded.load_signing_key(settings.data)
        with listen(settings.host, settings.port) as listener:
            is_uvloop = sys.platform != "win32"
            # What is here by now stays: the collector of cycles need not look at it again, nor at
            # the rest every few requests.
            gc.freeze()
            gc.set_threshold(*_COLLECT_AFTER)
            return anyio.run(
                partial(_serve, settings, key, listener),
                backend_options={"use_uvloop": is_uvloop},
            )


def _log(settings: BrokerSettings) -> None:
    """Log to a file beside the data, and to stderr; there only what is bad, if embedded.

    An embedded broker's stderr is a file that its launcher opened, which nobody rolls over.
    """
    stderr_level = logging.WARNING if settings.embedded else logging.NOTSET
    lines = LogLines(settings.data / LOG_FILE, stderr_level)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[lines], force=True)
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def listen(host: str, port: int) -> Generator[socket.socket]:
    """Take the port; it answers from now on.

    Raises:
        Unavailable: ``port_in_use``, or ``port_unavailable`` for any other reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise _cannot_listen(host, port, error) from error
        listener.setblocking(False)  # noqa: FBT003 - the library's shape
        yield listener


def _cannot_listen(host: str, port: int, error: OSError) -> Unavailable:
    if error.errno == errno.EADDRINUSE:
        return Unavailable(
            f"Port {port} is in use by another program.",
            "Name another by --port; 0 takes a free one.",
            code="port_in_use",
        )
    return Unavailable(
        f"The broker can't listen on {host} port {port}: {error.strerror}.",
        "Name another port by --port; 0 takes a free one.",
        code="port_unavailable",
    )


class _Server(uvicorn.Server):
    """The server, made to drain the broker before it closes sockets, and to die of no signal."""

    def __init__(self, config: uvicorn.Config, broker: Broker) -> None:
        super().__init__(config)
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()

    def stop(self) -> None:
        """End in good order."""
        self.should_exit = True
        self._told.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in good order, told by a signal."""
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._told.set)

    async def main_loop(self) -> None:
        """Wait to be told; the original looks ten times a second, also on an idle machine."""
        await self.on_tick(0)
        await self._told.wait()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Drain on SIGTERM and SIGINT; unlike the original, don't raise them again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, let every session end in good order, then close what is left."""
        for server in self.servers:
            server.close()
        await self._broker.drain()
        await super().shutdown(sockets)


async def _serve(settings: BrokerSettings, key: SigningKey, listener: socket.socket) -> int:
    failures: list[BaseException] = []
    servers: list[_Server] = []

    def on_fatal(error: BaseException) -> None:
        logger.critical("the store has died, ending", exc_info=error)
        failures.append(error)
        for server in servers:
            server.stop()

    opening = Opening(settings, key, embedded.new_token(), on_fatal)
    async with open_broker(opening) as broker:
        server = _Server(_config(settings, broker), broker)
        servers.append(server)
        said = announcement(broker, _url(*listener.getsockname()[:2]))
        # From the moment that others can find it, it ends in good order.
        with server.capture_signals():
            embedded.announce(settings.run, said)
            try:
                await _attend(settings, broker, server, listener)
            finally:
                embedded.withdraw(settings.run, said)
    return 1 if failures else 0


async def _attend(
    settings: BrokerSettings, broker: Broker, server: _Server, listener: socket.socket
) -> None:
    """Serve until the server ends; whatever runs beside it and fails ends it too."""
    if not settings.embedded:
        url = _url(*listener.getsockname()[:2])
        print(f"claudemesh broker listens on {url}", flush=True)  # noqa: T201 - its answer
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broker.parts.scheduler.run)
            if settings.embedded:
                tasks.start_soon(_end_when_idle, broker, server)
            await server.serve([listener])
            tasks.cancel_scope.cancel()
    except Exception:
        logger.critical("a part of the broker has died, ending", exc_info=True)
        raise


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _end_when_idle(broker: Broker, server: _Server) -> None:
    await broker.rest()
    server.stop()


def _config(settings: BrokerSettings, broker: Broker) -> uvicorn.Config:
    return uvicorn.Config(
        broker.application(),
        http="h11",
        ws="websockets-sansio",
        ws_max_size=settings.frame_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=settings.ping_interval_s,
        # Stale at two and a half intervals.
        ws_ping_timeout=settings.ping_interval_s * 1.5,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=BACKLOG,
    )


if __name__ == "__main__":
    sys.exit(main())
