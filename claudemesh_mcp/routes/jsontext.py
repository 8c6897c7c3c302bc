"""Reads and writes JSON as `json` does, by the part of it that is written in C.

``looking.py``, ``records.py`` and ``transcript.py`` use it. Importing `json` takes a quarter of a
hook's time: it compiles patterns, for which it needs `re`. Whatever the part alone can't do is left
to all of it: a text that is no JSON, an interpreter that has no such part or another one.
"""

from __future__ import annotations

from claudemesh_mcp.plain import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

_WHITE: Final = " \t\n\r"


class _Usual:
    """What `json.loads` asks of its reader, if nothing else is asked of it."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float = parse_constant = float
    parse_int = int


def read(data: bytes) -> Any:
    """Read a JSON text.

    Raises:
        ValueError: it is none.
    """
    try:
        from _json import make_scanner

        text = data.decode("utf-8", "surrogatepass").strip(_WHITE)
        usual: Any = _Usual
        value, end = make_scanner(usual)(text, 0)
        if end == len(text):
            return value
    except (ImportError, AttributeError, TypeError, ValueError, StopIteration, SystemError):
        pass  # The last where a text breaks off, as long as nobody has imported `json`.
    import json

    return json.loads(data)


def write(told: str | Mapping[str, Any]) -> str:
    """Write a text, or an object of texts, truths and objects."""
    try:
        from _json import encode_basestring_ascii as quoted
    except ImportError:
        from json import dumps as quoted
    if isinstance(told, str):
        return quoted(told)
    words = {
        name: ("false", "true")[one] if isinstance(one, bool) else write(one)
        for name, one in told.items()
    }
    return "{" + ", ".join(f"{quoted(name)}: {word}" for name, word in words.items()) + "}"
