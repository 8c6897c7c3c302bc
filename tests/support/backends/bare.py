"""Asks a server without us in between: lines out, lines in, and nothing is understood.

What ``test_backend.py`` compares with: the result of the same request, as it was on the line.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from claudemesh_mcp.hosting.launch import Launch
from tests.support.backends.found import environment

PREFIX = "io.modelcontextprotocol/"
CLIENT = {"name": "bare", "version": "0"}
CAPABILITIES = {"elicitation": {"form": {}, "url": {}}}
ELICIT = "elicitation/create"
ANSWER = {"action": "accept", "content": {"name": "Ada", "integer": 42}}
STAMP = {
    f"{PREFIX}protocolVersion": "2026-07-28",
    f"{PREFIX}clientInfo": CLIENT,
    f"{PREFIX}clientCapabilities": CAPABILITIES,
}


class Bare:
    """A server's two pipes.

    Args:
        process: The server.
        is_stateless: Whether its requests are stamped.
    """

    def __init__(self, process: "subprocess.Popen[str]", *, is_stateless: bool) -> None:
        self._process, self._is_stateless, self._last = process, is_stateless, 0

    def _say(self, words: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **words}) + "\n")
        self._process.stdin.flush()

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Give the result or error of a request; a question before it gets ``ANSWER``."""
        self._last += 1
        if self._is_stateless:
            params = {**params, "_meta": {**params.get("_meta", {}), **STAMP}}
        self._say({"id": self._last, "method": method, "params": params})
        assert self._process.stdout
        for line in self._process.stdout:
            words = json.loads(line)
            if words.get("method") == ELICIT:
                self._say({"id": words["id"], "result": ANSWER})
            if words.get("id") == self._last and "method" not in words:
                return {key: words[key] for key in ("result", "error") if key in words}
        raise EOFError

    def greet(self) -> None:
        """Do what the handshake era begins with."""
        asked = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES}
        self.ask("initialize", {**asked, "clientInfo": CLIENT})
        self._say({"method": "notifications/initialized"})


@contextmanager
def bare(launch: Launch, *, is_stateless: bool) -> Iterator[Bare]:
    """Start a server, and stop it at the end."""
    with subprocess.Popen(
        [launch.command, *launch.args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**environment(), **launch.env},
        cwd=launch.cwd or None,
        text=True,
        encoding="utf-8",
    ) as process:
        asking = Bare(process, is_stateless=is_stateless)
        try:
            if not is_stateless:
                asking.greet()
            yield asking
        finally:
            process.kill()


def without_stamp(answer: dict[str, Any]) -> dict[str, Any]:
    """Take out what a server of the stateless era says of itself to its neighbour."""
    result = answer.get("result")
    if not isinstance(result, dict) or "_meta" not in result:
        return answer
    meta = {key: one for key, one in result["_meta"].items() if key != f"{PREFIX}serverInfo"}
    rest = {key: one for key, one in result.items() if key != "_meta"}
    return {"result": {**rest, **({"_meta": meta} if meta else {})}}
