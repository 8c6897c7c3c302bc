"""Serves a broker: takes its data and its port, says where it is, and ends in good order.

``__main__.py`` hands in the settings. Whatever keeps the broker from starting is raised before it
listens; from then on it ends by a signal, by being idle, or because a part of it has died.
"""

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Final

import anyio
import uvicorn

from claudemesh_broker import embedded
from claudemesh_broker.app import Broker, Opening, announcement, open_broker
from claudemesh_broker.binding import Tls
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.folders import FolderLock, private_folder
from claudemesh_broker.logs import LogLines
from claudemesh_broker.protocols import protocols
from claudemesh_broker.reach import Reach, address_for_others, https_url
from claudemesh_wire.errors import Unavailable
from claudemesh_wire.keys import SigningKey

if TYPE_CHECKING:
    from claudemesh_broker.tls import Shown

LOG_FILE: Final = "broker.log"
_COLLECT_AFTER: Final = (10_000, 20, 20)
BACKLOG: Final = 512
GRACE_S: Final = 5

logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Place:
    """Where a broker listens, and what it proves to be itself by.

    Args:
        listener: Its socket.
        key: Its signing key.
        shown: The certificate that it shows there, if it speaks TLS.
        reach: How other machines reach it, if they do.
        admin_secret: What those have to know who make meshes from another home.
    """

    listener: socket.socket
    key: SigningKey
    shown: "Shown | None"
    reach: Reach | None
    admin_secret: bytes | None

    def url(self, *, for_home: bool) -> str:
        """Give the address that it listens on, or by which the sessions of this home reach it."""
        host, port = map(str, self.listener.getsockname()[:2])
        if for_home:
            # Whoever listens everywhere listens on loopback too.
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is read
        url = https_url(host, int(port))
        return url if self.shown else url.replace("https", "http", 1)


def run(settings: BrokerSettings, start_lock: int | None = None) -> int:
    """Serve until it is told to end; gives the exit status.

    Args:
        settings: How to serve.
        start_lock: The descriptor of the lock under which a session started it, if one did.

    Raises:
        MeshError: it can't start; what is there was not touched.
    """
    # Whatever is written from here on, the log too, is for this user alone.
    os.umask(0o077)
    with FolderLock.take(private_folder(settings.data)):
        if start_lock is not None:
            # Not before: whoever ends the home's broker must find one of the two locks taken.
            os.close(start_lock)
        _log(settings)
        key = embedded.load_signing_key(settings.data)
        shown = _certificate(settings)
        with listen(settings.bind, settings.port) as listener:
            place = _place(settings, listener, key, shown)
            is_uvloop = sys.platform != "win32"
            # What is here by now stays: the collector of cycles need not look at it again, nor at
            # the rest every few requests.
            gc.freeze()
            gc.set_threshold(*_COLLECT_AFTER)
            return anyio.run(
                partial(_serve, settings, place), backend_options={"use_uvloop": is_uvloop}
            )


def _certificate(settings: BrokerSettings) -> "Shown | None":
    if not settings.tls.is_served:
        return None
    # Only here: reading certificates takes a plain broker's start 50 ms for nothing.
    from claudemesh_broker.tls import certificate_of  # noqa: PLC0415 - see above

    return certificate_of(settings.data, settings.binding)


def _place(
    settings: BrokerSettings, listener: socket.socket, key: SigningKey, shown: "Shown | None"
) -> _Place:
    if not settings.binding.is_public:
        return _Place(listener, key, shown, None, None)
    url = settings.public_url
    if not url:
        # A certificate of the user's own says by which name it is to be reached.
        own = shown.names if shown and settings.tls is Tls.OWN else ()
        named = next((name for name in own if "*" not in name), None)
        host = named or address_for_others(settings.bind)
        url = https_url(host, listener.getsockname()[1])
    pin = shown.pin if shown and shown.is_self_made else b""
    secret = embedded.load_admin_secret(settings.data)
    return _Place(listener, key, shown, Reach(url, pin), secret)


def _log(settings: BrokerSettings) -> None:
    """Log to a file beside the data, and to stderr; there only what is bad, if embedded.

    An embedded broker's stderr is a file that its launcher opened, which nobody rolls over.
    """
    stderr_level = logging.WARNING if settings.embedded else logging.NOTSET
    lines = LogLines(settings.data / LOG_FILE, stderr_level)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[lines], force=True)
    # As the library's own guide says: what no line shows is not looked up for each.
    logging._srcfile = None  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def listen(host: str, port: int) -> Generator[socket.socket]:
    """Take the port; it answers from now on.

    Raises:
        Unavailable: ``port_in_use``, or ``port_unavailable`` for any other reason.
    """
    try:
        listener = _listener(host, port)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    with listener:
        yield listener


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if host == "::":
            # Some systems would leave out everybody who speaks the older version.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if sys.platform == "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)  # noqa: FBT003 - the library's shape
    except BaseException:
        listener.close()
        raise
    return listener


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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; unlike the original, give TLS no more time than a hello."""
        config = self.config
        await self.lifespan.startup()
        accepted = partial(
            config.http_protocol_class,
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        # Without TLS there is no such limit to be set.
        limit_s = self._broker.parts.settings.auth_timeout_s if config.ssl else None
        self.servers = [
            await self._loop.create_server(
                accepted,
                sock=listener,
                ssl=config.ssl,
                ssl_handshake_timeout=limit_s,
                backlog=config.backlog,
            )
            for listener in sockets or ()
        ]
        self.started = True

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


async def _serve(settings: BrokerSettings, place: _Place) -> int:
    failures: list[BaseException] = []
    servers: list[_Server] = []

    def on_fatal(error: BaseException) -> None:
        logger.critical("the store has died, ending", exc_info=error)
        failures.append(error)
        for server in servers:
            server.stop()

    token = embedded.new_token()
    opening = Opening(settings, place.key, token, on_fatal, place.reach, place.admin_secret)
    async with open_broker(opening) as broker:
        server = _Server(_config(settings, broker, place.shown), broker)
        servers.append(server)
        pin = place.shown.pin if place.shown else b""
        said = announcement(broker, place.url(for_home=True), pin)
        # From the moment that others can find it, it ends in good order.
        with server.capture_signals():
            embedded.announce(settings.run, said)
            try:
                await _attend(settings, broker, server, place)
            finally:
                embedded.withdraw(settings.run, said)
    return 1 if failures else 0


async def _attend(settings: BrokerSettings, broker: Broker, server: _Server, place: _Place) -> None:
    """Serve until the server ends; whatever runs beside it and fails ends it too."""
    if not settings.embedded:
        for line in _introduction(settings, place):
            print(line, flush=True)  # noqa: T201 - its answer
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(broker.parts.scheduler.run)
            if settings.embedded:
                tasks.start_soon(_end_when_idle, broker, server)
            await server.serve([place.listener])
            tasks.cancel_scope.cancel()
    except Exception:
        logger.critical("a part of the broker has died, ending", exc_info=True)
        raise


def _introduction(settings: BrokerSettings, place: _Place) -> Iterator[str]:
    url = place.url(for_home=False)
    # What it is for others is no address to give to anybody: it may well be 0.0.0.0.
    yield f"claudemesh broker listens on {url.partition('//')[2] if place.reach else url}"
    if place.reach:
        guessed = "" if settings.public_url else " (--public-url names another address)"
        yield f"others reach it at {place.reach.told}{guessed}"
    if place.shown:
        ends = f"{place.shown.ends:%Y-%m-%d}"
        yield f"its certificate, good until {ends}, has SHA-256 {place.shown.pin.hex()}"
    if place.admin_secret:
        path = settings.data / embedded.ADMIN_SECRET_FILE
        yield f"the secret for making meshes from any other home is in {path}"


async def _end_when_idle(broker: Broker, server: _Server) -> None:
    await broker.rest()
    server.stop()


def _config(settings: BrokerSettings, broker: Broker, shown: "Shown | None") -> uvicorn.Config:
    http, websocket = protocols(settings, broker.guard)
    config = uvicorn.Config(
        broker.application(),
        http=http,
        ws=websocket,
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
        ssl_certfile=shown.certificate if shown else None,
        ssl_keyfile=shown.key if shown else None,
    )
    config.load()
    if config.ssl:
        # Said here, because the system's own settings may allow less.
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config
