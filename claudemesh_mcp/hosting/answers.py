"""Reads what a server says, line by line: messages, and answers that can't be read as such.

``program.py`` and ``transport.py`` hand it what came, ``backend.py`` asks what may be sent. An
answer that is none, but names the call it is for, becomes an error of that call at once: nobody
else would ever answer it.
"""

import json
import logging
import re
from typing import Any, Final, cast

from claudemesh_mcp.jsonrpc import INTERNAL_ERROR, nests_deeper

logger: Final = logging.getLogger(__name__)

MOST_DEEP: Final = 200
"""As deep as the parsers of the other MCP clients go."""
_VERSION: Final = rb'(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?'
_NUMBER: Final = rb'"id"\s*:\s*(\d{1,15})\s*'
# Of a line that can't be parsed only the outermost object is meant, by how it begins and ends.
_NUMBER_FIRST: Final = re.compile(
    rb"\{\s*" + _VERSION + _NUMBER + rb",\s*" + _VERSION + rb'"(?:result|error)"'
)
_ANSWER_FIRST: Final = re.compile(rb"\{\s*" + _VERSION + rb'"(?:result|error)"')
_NUMBER_LAST: Final = re.compile(rb",\s*" + _NUMBER + rb'(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')
_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,15}")

Words = dict[str, Any]
"""One JSON-RPC message, without its version."""


def line_of(words: Words) -> bytes:
    """Write a message as a line, in ASCII: no server takes a character of it for the line's end."""
    return json.dumps({"jsonrpc": "2.0", **words}, separators=(",", ":")).encode() + b"\n"


def is_sendable(words: Words) -> bool:
    """Tell whether it can be sent: a number that is none or half an emoji would end the server."""
    try:
        json.dumps(words, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def sendable(answer: Words) -> Words:
    """Give an answer to a server, or that it can't be given."""
    if is_sendable(answer):
        return answer
    error = {"code": INTERNAL_ERROR, "message": "The answer is no JSON."}
    return {"id": answer["id"], "error": error}


def read(line: bytes) -> Words | None:
    """Read a line; ``None`` for one that is passed over, because it says nothing to anybody."""
    if not line.strip():
        return None
    try:
        # As other clients read it: what is no UTF-8 costs its characters, and not the answer.
        value = json.loads(line.decode(errors="replace"))
    except RecursionError:
        return _unread(line, f"it is nested deeper than {MOST_DEEP} levels")
    except ValueError:
        return _unread(line, "it is no JSON")
    if nests_deeper(line, value, MOST_DEEP):
        return _unread(line, f"it is nested deeper than {MOST_DEEP} levels")
    return heard(value)


def heard(value: Any) -> Words | None:
    """Take what was read for a message; ``None`` for what is none."""
    if not isinstance(value, dict):
        logger.warning("a server said what is no message")
        return None
    words = cast("Words", value)
    if "method" not in words and ("result" in words or "error" in words):
        number = _number(words.get("id"))
        if number is not None:
            # As the SDKs take it: some servers give an id back as a text.
            words = {**words, "id": number}
        if number is not None and words.get("jsonrpc") != "2.0":
            return _failed(number, 'it has no "jsonrpc": "2.0"')
    if words.get("jsonrpc") != "2.0":
        logger.warning("a server said what is no message of JSON-RPC 2.0")
        return None
    return {name: one for name, one in words.items() if name != "jsonrpc"}


def _number(given: Any) -> int | None:
    """Give the number that an id means, however it is written; ours are whole numbers."""
    if isinstance(given, str) and _WHOLE_NUMBER.fullmatch(given):
        return int(given)
    if isinstance(given, int | float) and not isinstance(given, bool) and given == given // 1:
        return int(given)
    return None


def _unread(line: bytes, why: str) -> Words | None:
    start = line.find(b"{")
    found = _NUMBER_FIRST.match(line, max(start, 0))
    if found is None and _ANSWER_FIRST.match(line, max(start, 0)):
        found = _NUMBER_LAST.search(line, max(0, len(line) - 200))
    if found is None:
        logger.warning("a line of a server was passed over: %s", why)
        return None
    return _failed(int(found[1]), why)


def _failed(number: int, why: str) -> Words:
    logger.warning("an answer of a server can't be read: %s", why)
    message = f"The server answered, but its answer can't be read: {why}. The call may have run."
    return {"id": number, "error": {"code": INTERNAL_ERROR, "message": message}}
