"""Says how a broker is set up: flag, ``CLAUDEMESH_BROKER_*``, ``broker.toml``, else the default.

``__main__.py`` loads the settings once and hands the frozen result to ``server.py``. No other
module of the broker reads the environment. Every field below is a setting of that name.
"""

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import platformdirs

from claudemesh_broker.binding import (
    LOOPBACK,
    Binding,
    Tls,
    as_address,
    as_file,
    as_public_url,
    as_tls,
    as_trusted,
)
from claudemesh_broker.limits import Allowance
from claudemesh_broker.values import (
    DAY_S,
    Read,
    folder,
    level,
    other,
    rate,
    seconds,
    switch,
    whole,
)
from claudemesh_wire.errors import Invalid
from claudemesh_wire.frame import MAX_FRAME_BYTES
from claudemesh_wire.message import Rate

FILE_NAME: Final = "broker.toml"
PREFIX: Final = "CLAUDEMESH_BROKER_"
DEFAULT_PORT: Final = 7467
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class BrokerSettings:
    """How this broker was told to be; units are in the names."""

    data: Path = field(metadata={"read": folder, "says": "The folder of its database and key."})
    run: Path = field(metadata={"read": folder, "says": "Where it says how to reach it."})
    embedded: bool = other(switch, "Started by a session; ends by itself.", default=False)
    bind: str = other(as_address, "The address it listens on.", default="127.0.0.1")
    port: int = whole(DEFAULT_PORT, "The port it listens on; 0 takes a free one.", 0, 65_535)
    tls: Tls = field(
        default=Tls.OFF,
        metadata={"read": as_tls, "says": "What encrypts: off, auto, own (files), proxy."},
    )
    tls_cert: Path | None = field(
        default=None, metadata={"read": as_file, "says": "A certificate of one's own, PEM."}
    )
    tls_key: Path | None = field(
        default=None, metadata={"read": as_file, "says": "The key of that certificate, PEM."}
    )
    public_url: str = other(as_public_url, "How others reach it: https://HOST:PORT.", default="")
    proxies: tuple[str, ...] = other(
        as_trusted, "Whose word about a client's address counts.", default=LOOPBACK
    )
    log_level: str = other(level, "Least level that is logged.", default="info")

    lease_s: float = seconds(90, "How long a peer counts as here after its socket is gone.")
    idle_exit_s: float = seconds(1800, "After so long without a session an embedded one ends.")
    present_window_s: float = seconds(DAY_S, "Who was seen so lately is reached by @all.")
    resolve_valid_s: float = seconds(60, "How long the answer to a resolve may be sealed to.")
    queue_ttl_s: float = seconds(7 * DAY_S, "How long a message waits.", 7 * DAY_S)
    queue_messages: int = whole(10_000, "Messages that may wait for one recipient.")
    queue_bytes: int = whole(64 * _MIB, "Bytes that may wait for one recipient.", most=2**40)

    window_messages: int = whole(256, "Messages a connection is given before it must ack.")
    window_bytes: int = whole(4 * _MIB, "Bytes a connection is given before it must ack.")
    in_flight: int = whole(64, "Requests of one connection that may be unanswered.", most=10_000)
    send_deadline_s: float = seconds(15, "How long a reader may take for one frame.")
    auth_timeout_s: float = seconds(10, "How long a connection may take to say who it is.")
    ping_interval_s: float = seconds(20, "How often a connection is asked whether it lives.")
    frame_bytes: int = whole(MAX_FRAME_BYTES, "The largest frame.", 4096, MAX_FRAME_BYTES)
    connections: int = whole(2000, "Connections at once.", most=100_000)
    connections_per_address: int = whole(
        250, "Sessions at once from one other machine (of IPv6, 64 bits).", most=100_000
    )
    backlog_changes: int = whole(20_000, "Changes that may wait for the disk.")

    chat_per_s: float = rate(50, "Messages a second from one member.")
    chat_burst: int = whole(200, "Messages at once from one member.")
    rpc_per_s: float = rate(100, "Other requests a second from one member.")
    rpc_burst: int = whole(400, "Other requests at once from one member.")
    sim_per_s: float = rate(200, "Requests of simulations a second from one member.")
    sim_burst: int = whole(800, "Requests of simulations at once from one member.")
    tunnel_per_s: float = rate(500, "Pieces of calls and results a second from one peer.")
    tunnel_burst: int = whole(2000, "Pieces of calls and results at once from one peer.")
    auth_per_s: float = rate(5, "Hellos a second from one address.")
    auth_burst: int = whole(40, "Hellos at once from one address.")

    def __post_init__(self) -> None:
        """Read every value, wherever it came from, and refuse what makes no sense."""
        for name, read in _readers().items():
            object.__setattr__(self, name, _read(read, getattr(self, name), f"the setting {name}"))
        if self.tls is Tls.OFF and (self.tls_cert or self.tls_key):
            object.__setattr__(self, "tls", Tls.OWN)
        self.binding.check()

    @classmethod
    def load(
        cls,
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> Self:
        """Read the settings of this process.

        Args:
            flags: What the command line gave, by field; ``None`` means that it was not given.
            environ: The environment.

        Raises:
            Invalid: ``config_invalid``: a flag, a variable or the file makes no sense;
                whatever ``Binding.check`` refuses.
        """
        values = _default_folders(environ) | _from_environment(environ)
        for name, value in (flags or {}).items():
            if value is not None:
                reader = _readers().get(name)
                if reader is None:
                    raise _unknown(name, "the command line")
                values[name] = _read(reader, value, f"the flag --{name.replace('_', '-')}")
        values = _from_file(values["data"] / FILE_NAME) | values
        if values.get("embedded"):
            values.setdefault("port", 0)
        return cls(**values)

    @property
    def binding(self) -> Binding:
        """Where it listens, for whom, and what vouches for it there."""
        files = (self.tls_cert, self.tls_key)
        return Binding(
            self.bind, self.tls, files, self.public_url, self.proxies, is_embedded=self.embedded
        )

    @property
    def lease_ms(self) -> int:
        """The lease in milliseconds."""
        return round(self.lease_s * 1000)

    @property
    def idle_exit_ms(self) -> int:
        """The idle time in milliseconds."""
        return round(self.idle_exit_s * 1000)

    @property
    def present_window_ms(self) -> int:
        """The window of who counts as present, in milliseconds."""
        return round(self.present_window_s * 1000)

    @property
    def queue_ttl_ms(self) -> int:
        """How long a message waits, in milliseconds."""
        return round(self.queue_ttl_s * 1000)

    @property
    def resolve_valid_ms(self) -> int:
        """How long a resolve is valid, in milliseconds."""
        return round(self.resolve_valid_s * 1000)

    def allowances(self) -> dict[Rate, Allowance]:
        """What each rate class allows."""
        return {
            Rate.CHAT: Allowance(self.chat_per_s, self.chat_burst),
            Rate.RPC: Allowance(self.rpc_per_s, self.rpc_burst),
            Rate.SIM: Allowance(self.sim_per_s, self.sim_burst),
            Rate.TUNNEL: Allowance(self.tunnel_per_s, self.tunnel_burst),
            Rate.AUTH: Allowance(self.auth_per_s, self.auth_burst),
        }


def described() -> list[tuple[str, str, object]]:
    """Give name, sentence and default of every setting, for help and documentation."""
    return [
        (one.name, one.metadata["says"], None if one.default is MISSING else one.default)
        for one in dataclasses.fields(BrokerSettings)
    ]


def _readers() -> dict[str, Read]:
    return {one.name: one.metadata["read"] for one in dataclasses.fields(BrokerSettings)}


def _read(read: Read, value: object, origin: str) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise Invalid(
            f"{origin[0].upper()}{origin[1:]} must be {error}.",
            "Correct it, or leave it out for the default.",
            code="config_invalid",
        ) from error


def _default_folders(environ: Mapping[str, str]) -> dict[str, Any]:
    home = environ.get("CLAUDEMESH_HOME")
    if home:
        root = _read(folder, home, "the variable CLAUDEMESH_HOME")
    else:
        root = platformdirs.user_data_path("claudemesh", appauthor=False)
    return {"data": root / "broker", "run": root / "run"}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, read in _readers().items():
        variable = PREFIX + name.upper()
        # An empty variable is how a wrapper says "not set".
        if environ.get(variable):
            values[name] = _read(read, environ[variable], f"the variable {variable}")
    return values


def _from_file(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise Invalid(
            f"{file} can't be read: {error}.",
            "Correct the file, or move it away for the defaults.",
            code="config_invalid",
        ) from error
    readers = _readers()
    values: dict[str, Any] = {}
    for name, value in table.items():
        # The folder that the file lies in can't be named by it.
        if name not in readers or name == "data":
            raise _unknown(name, str(file))
        values[name] = _read(readers[name], value, f"{name} in {file}")
    return values


def _unknown(name: str, where: str) -> Invalid:
    near = difflib.get_close_matches(name, _readers(), n=1, cutoff=0.5)
    return Invalid(
        f"There is no setting {name[:60]!a} for {where}.",
        f"Did you mean {near[0]}?" if near else "broker/README.md lists the settings.",
        code="config_invalid",
    )
