"""What is said on a line between who calls a tool and who hosts it: JSON objects, by their keys.

``toolcalls.py`` says the caller's and ``hosting/serving.py`` the host's; both read with these.
"""

from typing import Any, Final, cast

from claudemesh_mcp.cleaning import clean_line
from claudemesh_wire.errors import CLASSES, MeshError, ProtocolError

Words = dict[str, Any]

CALL: Final = "call"
"""``{call: n, server, method, params, hops, pin?}``: run this, once."""
CANCEL: Final = "cancel"
"""``{cancel: n, reason}``: nobody waits for it any more."""
DONE: Final = "done"
"""``{done: n, result | error | refused}``: what came of it; ``error`` is a JSON-RPC error."""
PROGRESS: Final = "progress"
"""``{progress: n, params}``: as the server notified it."""
LOG: Final = "log"
"""``{log: n, params}``: as the server notified it."""
ASK: Final = "ask"
"""``{ask: q, call: n, method, params}``: the server asks who called."""
ANSWERED: Final = "answered"
"""``{answered: q, result | error}``: what they answered."""
CHANGED: Final = "changed"
"""``{changed: server, tool}``: its definition is another than was approved; it is not called."""


def number(words: Words, key: str) -> int | None:
    """Give the number that stands under a key; ``None`` if there is no such key.

    Raises:
        ProtocolError: ``malformed``: what stands there is no number.
    """
    if key not in words:
        return None
    value = words[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolError(
            f"What is said under {key} is no number.",
            "The other session has to be of a version that speaks as this one does.",
            code="malformed",
        )
    return value


def part(words: Words, key: str) -> Words:
    """Give the object that stands under a key, an empty one if none does."""
    value = words.get(key)
    return cast("Words", value) if isinstance(value, dict) else {}


def refused(error: MeshError) -> Words:
    """Write a refusal."""
    return {**error.as_dict(), "category": error.category}


def refusal(told: Words) -> MeshError:
    """Read a refusal of the other end."""
    kind = CLASSES.get(str(told.get("category")), ProtocolError)
    details, retry = told.get("details"), told.get("retry_after_s")
    return kind(
        clean_line(str(told.get("message", "The other session refused."))[:2000]).text,
        clean_line(str(told.get("hint", ""))[:2000]).text,
        code=str(told.get("code", "refused"))[:60],
        details=cast("Words", details) if isinstance(details, dict) else None,
        retry_after_s=float(retry) if isinstance(retry, int | float) else None,
    )
