"""A small MCP server that appends a line to a file for each call it runs.

``python ledger.py FOLDER NAME``; ``tests/campaigns/providers.py`` kills it and who hosts it, and
tests hold it up. It writes ``lines`` in the folder, one ``id NAME tool`` for each run, synced;
``steps``, with what it has ``begun``, ``written`` and ``answered``; and ``NAME.pid``. While it
lives it has the pipe ``alive`` open, if there is one. It imports the standard library only, so that
it starts at once.

Both tools take an ``id``, and what to wait for ``before`` and ``after`` the line is written:
seconds, or the path of a pipe to read a byte from. ``again`` says that it may be repeated.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER, NAME = Path(sys.argv[1]), sys.argv[2]
FINISH_S = 1.0
"""So long it goes on with what it has begun when nobody hears it any more."""
WRITING = threading.Lock()
_WAIT = {"type": ["number", "string"]}
_SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "before": _WAIT, "after": _WAIT},
    "required": ["id"],
}
TOOLS = [
    {"name": "append", "inputSchema": _SCHEMA},
    {"name": "again", "inputSchema": _SCHEMA, "annotations": {"idempotentHint": True}},
]


def write(file: str, text: str, *, is_synced: bool = False) -> None:
    """Append a line to a file at once, also when others append to it."""
    handle = os.open(FOLDER / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, f"{text}\n".encode())
        if is_synced:
            os.fsync(handle)
    finally:
        os.close(handle)


def wait(what: float | str) -> None:
    """Wait so many seconds, or until a pipe gives a byte."""
    if isinstance(what, str):
        handle = os.open(what, os.O_RDONLY)
        os.read(handle, 1)
        os.close(handle)
    else:
        time.sleep(what)  # noqa: TID251 - it works that long


def say(number: Any, result: dict[str, Any]) -> None:
    """Answer a request, if anybody hears it."""
    with WRITING, suppress(BrokenPipeError):
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": number, **result}) + "\n")
        sys.stdout.flush()


def run(number: Any, params: dict[str, Any]) -> None:
    """Run a call: wait, write the line, wait, answer."""
    given, tool = params["arguments"], params["name"]
    name = given["id"]
    write("steps", f"begun {name} {NAME}")
    wait(given.get("before", 0))
    write("lines", f"{name} {NAME} {tool}", is_synced=True)
    write("steps", f"written {name} {NAME}")
    wait(given.get("after", 0))
    content = {"content": [{"type": "text", "text": name}], "structuredContent": {"id": name}}
    say(number, {"result": content})
    write("steps", f"answered {name} {NAME}")


def answer(words: dict[str, Any]) -> threading.Thread | None:
    """Answer what comes; gives what runs on."""
    number, method = words.get("id"), words.get("method")
    match method:
        case "tools/call":
            thread = threading.Thread(target=run, args=(number, words["params"]), daemon=True)
            thread.start()
            return thread
        case "initialize":
            me = {"name": "ledger", "version": "1"}
            told = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            say(number, {"result": {**told, "serverInfo": me}})
        case "tools/list":
            say(number, {"result": {"tools": TOOLS}})
        case _ if number is not None:
            say(number, {"error": {"code": -32601, "message": f"no {method}"}})
        case _:
            pass
    return None


def main() -> None:
    """Read requests until nobody asks any more."""
    if (FOLDER / "alive").exists():
        os.open(FOLDER / "alive", os.O_WRONLY)
    pid = FOLDER / f"{NAME}.pid.{os.getpid()}"
    pid.write_text(str(os.getpid()), "utf-8")
    pid.rename(FOLDER / f"{NAME}.pid")
    running = list[threading.Thread]()
    for line in sys.stdin:
        thread = answer(json.loads(line))
        running = [one for one in (*running, thread) if one is not None and one.is_alive()]
    until_s = time.monotonic() + FINISH_S
    for thread in running:
        thread.join(max(0.0, until_s - time.monotonic()))


if __name__ == "__main__":
    main()
