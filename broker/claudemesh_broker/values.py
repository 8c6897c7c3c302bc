"""Reads one value of a setting, from whichever text or type it was written in.

``config.py`` declares every setting by one of these. A reader raises ``ValueError`` with what it
wanted, as the end of the sentence "it must be …".
"""

from collections.abc import Callable
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any, Final

DAY_S: Final = 24 * 3600
_YES: Final = frozenset({"on", "true", "yes", "1"})
_NO: Final = frozenset({"off", "false", "no", "0"})
_LEVELS: Final = ("debug", "info", "warning", "error")
Read = Callable[[object], Any]


def number(value: object, kind: type[int] | type[float], least: float, most: float) -> float:
    """Read a number within its bounds."""
    wanted = f"a {'whole number' if kind is int else 'number'} from {least:g} to {most:g}"
    given = value if isinstance(value, (str, int, float)) else ""
    try:
        found = kind("" if isinstance(given, bool) else given)
    except (ValueError, OverflowError) as error:
        raise ValueError(wanted) from error
    # A comparison that is false for NaN too.
    if not least <= found <= most or (not isinstance(value, str) and found != value):
        raise ValueError(wanted)
    return found


def switch(value: object) -> bool:
    """Read a switch."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _YES | _NO:
        return value.lower() in _YES
    raise ValueError('"on" or "off"')


def folder(value: object) -> Path:
    """Read the path of a folder."""
    if isinstance(value, (str, Path)) and str(value).strip() and "\0" not in str(value):
        try:
            return Path(value).expanduser().absolute()
        except RuntimeError as error:  # `~nobody` names no user of this machine
            raise ValueError("the path of a folder") from error
    raise ValueError("the path of a folder")


def level(value: object) -> str:
    """Read a level of logging."""
    if isinstance(value, str) and value.lower() in _LEVELS:
        return value.lower()
    raise ValueError("one of " + ", ".join(_LEVELS))


def whole(default: int, says: str, least: int = 1, most: int = 10**9) -> Any:
    """Declare a setting that is a whole number."""
    read = partial(number, kind=int, least=least, most=most)
    return field(default=default, metadata={"read": read, "says": says})


def seconds(default: float, says: str, most: float = 30 * DAY_S) -> Any:
    """Declare a setting that is a time in seconds."""
    read = partial(number, kind=float, least=0.01, most=most)
    return field(default=default, metadata={"read": read, "says": says})


def rate(default: float, says: str) -> Any:
    """Declare a setting that is a number per second."""
    read = partial(number, kind=float, least=0.01, most=1e6)
    return field(default=default, metadata={"read": read, "says": says})


def other(read: Read, says: str, default: object) -> Any:
    """Declare a setting of another type."""
    return field(default=default, metadata={"read": read, "says": says})
