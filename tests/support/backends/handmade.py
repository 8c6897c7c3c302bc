"""A small MCP server by hand, of either era, with fields in it that no SDK knows.

``python handmade.py handshake|stateless [OPTION...]``; ``test_backend.py`` hosts it, and asks it
the same without us in between. It imports the standard library only, so that it starts at once.
"""

import base64
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ERA, OPTIONS = sys.argv[1], sys.argv[2:]
IMAGE = base64.b64encode(bytes(range(256))).decode()
STRANGE = {"x-unknown": [1, {"deep": None}], "ünïcode": "☃", "big": 2**70, "small": 1.5e-7}
PREFIX = "io.modelcontextprotocol/"
CAPABILITIES = {
    "tools": {"listChanged": True, "x": 1},
    "resources": {},
    "prompts": {"listChanged": False},
    "logging": {},
}
WRITING = threading.Lock()
STOPS: dict[Any, threading.Event] = {}
ANSWERS: dict[Any, Any] = {}
ANSWERED = threading.Condition()
SUBSCRIPTION: list[Any] = []


def say(words: dict[str, Any]) -> None:
    """Write one message."""
    with WRITING:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **words}) + "\n")
        sys.stdout.flush()


def note(name: str, params: dict[str, Any]) -> None:
    """Send a notification."""
    say({"method": f"notifications/{name}", "params": params})


def write(text: str) -> None:
    """Append a line to the file of the first option, for the test to read."""
    with Path(OPTIONS[0]).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def text(words: str) -> dict[str, Any]:
    """Give a result of one text."""
    return {"content": [{"type": "text", "text": words}]}


def ask(method: str, params: dict[str, Any]) -> Any:
    """Ask the client, and give its whole answer."""
    number = f"q{len(ANSWERS)}-{threading.get_ident()}"
    say({"id": number, "method": method, "params": params})
    with ANSWERED:
        ANSWERED.wait_for(lambda: number in ANSWERS)
    return ANSWERS[number]


def rich(_: Any, params: dict[str, Any]) -> dict[str, Any]:
    link = {"type": "resource_link", "uri": "file:///a", "name": "a", "annotations": {"x": 0.1}}
    image = {"type": "image", "data": IMAGE, "mimeType": "image/png", "annotations": STRANGE}
    content = [image, link, {"type": "hologram", "data": STRANGE}]
    structured = {"given": params.get("arguments"), **STRANGE}
    meta = {"own/key": STRANGE, f"{PREFIX}related-task": {"taskId": "7"}}
    return {"content": content, "structuredContent": structured, "_meta": meta, "extra": STRANGE}


def seen(_: Any, params: dict[str, Any]) -> dict[str, Any]:
    return {**text("seen"), "structuredContent": params}


def failing(_: Any, params: dict[str, Any]) -> dict[str, Any]:
    return {**text("it went wrong"), "isError": True, "extra": params["arguments"]}


def refusing(_: Any, __: Any) -> dict[str, Any]:
    return {"error": {"code": -32042, "message": "no", "data": {"why": [STRANGE]}}}


def steps(_: Any, params: dict[str, Any]) -> dict[str, Any]:
    token = params.get("_meta", {}).get("progressToken")
    if token is not None:
        for done in (1, 2):
            note("progress", {"progressToken": token, "progress": done, "total": 2, "x": STRANGE})
    note("message", {"level": "info", "data": {"said": STRANGE}, "logger": "steps"})
    note("something/unheard", {"of": 1})
    return text("done")


def waiting(number: Any, _: Any) -> dict[str, Any]:
    write("waits")
    STOPS[number].wait()
    return text("stopped")


def asking(_: Any, params: dict[str, Any]) -> dict[str, Any]:
    wanted = {"message": "your name?", "requestedSchema": {"type": "object"}, "x": STRANGE}
    if ERA == "handshake":
        answer = ask("elicitation/create", wanted)
        if OPTIONS:
            write(json.dumps(answer.get("error", {})))
        return {**text("asked"), "structuredContent": answer}
    if "inputResponses" in params:
        state, given = params["requestState"], params["inputResponses"]
        return {**text("asked"), "structuredContent": {"state": state, "given": given}}
    request = {"method": "elicitation/create", "params": wanted}
    return {"resultType": "input_required", "inputRequests": {"a": request}, "requestState": "s1"}


def prying(_: Any, params: dict[str, Any]) -> dict[str, Any]:
    return {**text("asked"), "structuredContent": ask(params["arguments"]["method"], {})}


def changing(_: Any, __: Any) -> dict[str, Any]:
    meta = {"_meta": {f"{PREFIX}subscriptionId": SUBSCRIPTION[0]}} if SUBSCRIPTION else {}
    note("tools/list_changed", meta)
    return text("changed")


def turning(_: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Have from now on the tools that are given, by name, and tell so."""
    names = params["arguments"]["names"]
    for name in [name for name in TOOLS if name not in names]:
        del TOOLS[name]
    TOOLS.update({name: seen for name in names if name not in TOOLS})
    note("tools/list_changed", {})
    return text("turned")


def crashing(_: Any, __: Any) -> dict[str, Any]:
    write("run")
    sys.stderr.write("these are my last words\n")
    sys.stderr.flush()
    os._exit(3)


def large(_: Any, __: Any) -> dict[str, Any]:
    return text("0123456789" * 500_000)


def half(_: Any, __: Any) -> dict[str, Any]:
    return text("cut in the middle: \ud83d")


def odd(_: Any, __: Any) -> Any:
    return ["no", "object"]


def raw(number: Any, params: dict[str, Any]) -> None:
    """Write lines as they are given, in base16, with the number of the call in them."""
    for line in params["arguments"]["lines"]:
        written = bytes.fromhex(line).replace(b"NUMBER", str(number).encode())
        with WRITING:
            sys.stdout.buffer.write(written)
            sys.stdout.flush()


def endless(_: Any, __: Any) -> None:
    """Write a line without an end, as long as somebody reads it."""
    with WRITING:
        while True:
            sys.stdout.write("x" * 1_000_000)


TOOLS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    tool.__name__: tool
    for tool in (
        rich,
        seen,
        failing,
        refusing,
        steps,
        waiting,
        asking,
        prying,
        changing,
        turning,
        crashing,
        large,
        half,
        odd,
        raw,
        endless,
    )
}


def definition(name: str) -> dict[str, Any]:
    """Describe a tool, with more than is known."""
    schema = {"type": "object", "x-own": STRANGE}
    return {"name": name, "inputSchema": schema, "annotations": STRANGE, "novelty": [name]}


def pages(params: dict[str, Any]) -> dict[str, Any]:
    """List the tools on several pages."""
    start, names = int(params.get("cursor", "0")), list(TOOLS)
    result: dict[str, Any] = {"tools": [definition(name) for name in names[start : start + 5]]}
    return result | ({"nextCursor": str(start + 5)} if start + 5 < len(names) else {})


def listed(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Answer what lists and reads."""
    match method:
        case "tools/list":
            return pages(params)
        case "resources/list":
            return {"resources": [{"uri": "own://a", "name": "a", **STRANGE}]}
        case "prompts/list":
            return {"prompts": [{"name": "p", "arguments": [STRANGE]}]}
        case "resources/read":
            return {"contents": [{"uri": params["uri"], "text": "☃", "x": STRANGE}]}
        case "prompts/get":
            return {"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}]}
        case _:
            return {"error": {"code": -32601, "message": f"no {method}"}}


def greeted(method: str) -> dict[str, Any] | None:
    """Answer what finds out the era."""
    me = {"name": "handmade", "version": "1"}
    if method == "initialize" and ERA == "handshake":
        told = {"serverInfo": me, "instructions": "Be kind."}
        return {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, **told}
    if method == "server/discover" and ERA == "stateless":
        told = {"instructions": "Be kind.", "_meta": {f"{PREFIX}serverInfo": me}}
        return {"supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES, **told}
    return None


def starts_badly(number: Any, method: str) -> bool:
    """Do at the first questions what the options say; tell whether that was all."""
    if method == "server/discover" and "hasty" in OPTIONS:
        sys.stderr.write("initialize was expected\n")
        os._exit(1)
    if method == "initialize" and "late" in OPTIONS:
        say({"id": number, "error": {"code": -32022, "message": "not this version"}})
        return True
    is_unheard = "deaf" in OPTIONS or ("late" in OPTIONS and number == 1)
    return method == "server/discover" and is_unheard


def serve(number: Any, method: str, params: dict[str, Any]) -> None:
    """Answer one request."""
    if starts_badly(number, method):
        return
    if method == "subscriptions/listen":
        SUBSCRIPTION.append(number)
        honored = {"notifications": params["notifications"]}
        note(
            "subscriptions/acknowledged", {**honored, "_meta": {f"{PREFIX}subscriptionId": number}}
        )
        return
    result = greeted(method)
    if result is None and method == "tools/call":
        result = TOOLS[params["name"]](number, params)
    elif result is None:
        result = listed(method, params)
    if result is None:
        return
    if isinstance(result, dict) and "error" in result:
        say({"id": number, **result})
    else:
        if ERA == "stateless" and isinstance(result, dict):
            own = result.get("_meta", {})
            result["_meta"] = {**own, f"{PREFIX}serverInfo": {"name": "handmade", "version": "1"}}
        say({"id": number, "result": result, "x-outside": STRANGE})


def main() -> None:
    """Read requests, and answer each in a thread of its own."""
    if "unfit" in OPTIONS:
        TOOLS.update(dict.fromkeys(("o\ud83d", "x\u202ey", "n" * 201, "line\nend"), seen))
    for line in sys.stdin:
        words = json.loads(line)
        if "method" not in words:
            with ANSWERED:
                ANSWERS[words["id"]] = {key: words[key] for key in words if key != "jsonrpc"}
                ANSWERED.notify_all()
        elif words["method"] == "notifications/cancelled":
            write(f"cancelled: {words['params']['reason']}")
            STOPS[words["params"]["requestId"]].set()
        elif "id" in words:
            STOPS[words["id"]] = threading.Event()
            told = (words["id"], words["method"], words.get("params", {}))
            threading.Thread(target=serve, args=told, daemon=True).start()
    if "orderly" in OPTIONS:
        sys.stderr.write("closed in order\n")


if __name__ == "__main__":
    main()
