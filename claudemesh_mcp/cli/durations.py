"""Spans of time as people write them on the command line: ``90s``, ``30m``, ``2h``, ``7d``."""

import re
from typing import Final

from claudemesh_wire.errors import Invalid

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_SPAN: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])", re.ASCII)


def milliseconds(text: str) -> int:
    """Read a span of time.

    Raises:
        Invalid: ``bad_duration``.
    """
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise Invalid(
            f"{text[:40]!a} is not a span of time.",
            "Write a number and s, m, h or d, as 30m, 2h or 7d.",
            code="bad_duration",
        )
    return int(match[1]) * _UNITS[match[2]] * 1000
