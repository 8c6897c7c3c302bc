"""Says how a broker is set up: flag, ``CLAUDEMESH_BROKER_*``, ``broker.toml``, else the default.

``__main__.py`` loads the settings once and hands the frozen result to ``app.py``. No other module
of the broker reads the environment. Every field below is a setting of that name.
"""

import dataclasses
import difflib
import ipaddress
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import platformdirs

from claudemesh_broker.limits import Allowance
from claudemesh_wire.errors import Invalid
from claudemesh_wire.frame import MAX_FRAME_BYTES
from claudemesh_wire.message import Rate

FILE_NAME: Final = "broker.toml"
PREFIX: Final = "CLAUDEMESH_BROKER_"
DEFAULT_PORT: Final = 7467
_DAY_S: Final = 24 * 3600
_MIB: Final = 1024 * 1024
_YES: Final = frozenset({"on", "true", "yes", "1"})
_NO: Final = frozenset({"off", "false", "no", "0"})
_LEVELS: Final = ("debug", "info", "warning", "error")
Read = Callable[[object], Any]


def _number(value: object, kind: type[int] | type[float], least: float, most: float) -> float:
    wanted = f"a {'whole number' if kind is int else 'number'} from {least:g} to {most:g}"
    given = value if isinstance(value, (str, int, float)) else ""
    try:
        number = kind("" if isinstance(given, bool) else given)
    except (ValueError, OverflowError) as error:
        raise ValueError(wanted) from error
    # A comparison that is false for NaN too.
    if not least <= number <= most or (not isinstance(value, str) and number != value):
        raise ValueError(wanted)
    return number


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _YES | _NO:
        return value.lower() in _YES
    raise ValueError('"on" or "off"')


def _folder(value: object) -> Path:
    if isinstance(value, (str, Path)) and str(value).strip() and "\0" not in str(value):
        try:
            return Path(value).expanduser().absolute()
        except RuntimeError as error:  # `~nobody` names no user of this machine
            raise ValueError("the path of a folder") from error
    raise ValueError("the path of a folder")


def _level(value: object) -> str:
    if isinstance(value, str) and value.lower() in _LEVELS:
        return value.lower()
    raise ValueError("one of " + ", ".join(_LEVELS))


def _host(value: object) -> str:
    if value == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(str(value))
    except ValueError as error:
        raise ValueError("a loopback address, as 127.0.0.1 or ::1") from error
    if not address.is_loopback:
        raise Invalid(
            f"The broker listens on this machine only, not on {address}.",
            "Leave the host out; a broker for other machines needs TLS, which this release"
            " does not have yet.",
            code="not_loopback",
        )
    return str(address)


def _whole(default: int, says: str, least: int = 1, most: int = 10**9) -> Any:
    """Declare a setting that is a whole number."""
    read = partial(_number, kind=int, least=least, most=most)
    return field(default=default, metadata={"read": read, "says": says})


def _seconds(default: float, says: str, most: float = 30 * _DAY_S) -> Any:
    """Declare a setting that is a time in seconds."""
    read = partial(_number, kind=float, least=0.01, most=most)
    return field(default=default, metadata={"read": read, "says": says})


def _rate(default: float, says: str) -> Any:
    """Declare a setting that is a number per second."""
    read = partial(_number, kind=float, least=0.01, most=1e6)
    return field(default=default, metadata={"read": read, "says": says})


def _other(read: Read, says: str, default: object) -> Any:
    """Declare a setting of another type."""
    return field(default=default, metadata={"read": read, "says": says})


@dataclass(frozen=True, kw_only=True)
class BrokerSettings:
    """How this broker was told to be; units are in the names."""

    data: Path = field(metadata={"read": _folder, "says": "The folder of its database and key."})
    run: Path = field(metadata={"read": _folder, "says": "Where it says how to reach it."})
    embedded: bool = _other(_switch, "Started by a session; ends by itself.", default=False)
    host: str = _other(_host, "The loopback address it listens on.", default="127.0.0.1")
    port: int = _whole(DEFAULT_PORT, "The port it listens on; 0 takes a free one.", 0, 65_535)
    log_level: str = _other(_level, "Least level that is logged.", default="info")

    lease_s: float = _seconds(90, "How long a peer counts as here after its socket is gone.")
    idle_exit_s: float = _seconds(1800, "After so long without a session an embedded one ends.")
    present_window_s: float = _seconds(_DAY_S, "Who was seen so lately is reached by @all.")
    resolve_valid_s: float = _seconds(60, "How long the answer to a resolve may be sealed to.")
    queue_ttl_s: float = _seconds(7 * _DAY_S, "How long a message waits.", 7 * _DAY_S)
    queue_messages: int = _whole(10_000, "Messages that may wait for one recipient.")
    queue_bytes: int = _whole(64 * _MIB, "Bytes that may wait for one recipient.", most=2**40)

    window_messages: int = _whole(256, "Messages a connection is given before it must ack.")
    window_bytes: int = _whole(4 * _MIB, "Bytes a connection is given before it must ack.")
    in_flight: int = _whole(64, "Requests of one connection that may be unanswered.", most=10_000)
    send_deadline_s: float = _seconds(15, "How long a reader may take for one frame.")
    auth_timeout_s: float = _seconds(10, "How long a connection may take to say who it is.")
    ping_interval_s: float = _seconds(20, "How often a connection is asked whether it lives.")
    frame_bytes: int = _whole(MAX_FRAME_BYTES, "The largest frame.", 4096, MAX_FRAME_BYTES)
    connections: int = _whole(2000, "Connections at once.", most=100_000)
    backlog_changes: int = _whole(20_000, "Changes that may wait for the disk.")

    chat_per_s: float = _rate(50, "Messages a second from one member.")
    chat_burst: int = _whole(200, "Messages at once from one member.")
    rpc_per_s: float = _rate(100, "Other requests a second from one member.")
    rpc_burst: int = _whole(400, "Other requests at once from one member.")
    sim_per_s: float = _rate(200, "Requests of simulations a second from one member.")
    sim_burst: int = _whole(800, "Requests of simulations at once from one member.")
    auth_per_s: float = _rate(5, "Hellos a second from one address.")
    auth_burst: int = _whole(40, "Hellos at once from one address.")

    def __post_init__(self) -> None:
        """Read every value, wherever it came from, and refuse what makes no sense."""
        for name, read in _readers().items():
            object.__setattr__(self, name, _read(read, getattr(self, name), f"the setting {name}"))

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
                ``not_loopback``: the host is not this machine.
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
        root = _read(_folder, home, "the variable CLAUDEMESH_HOME")
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
