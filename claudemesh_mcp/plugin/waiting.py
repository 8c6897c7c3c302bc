"""What the plugin's client is served with while the libraries are being installed.

``start.py`` opens it. It answers `initialize` at once, and offers one tool, ``setup_status``. Once
the environment is whole it gives back what the client said, so that the server, which this process
then becomes, can go on where it stopped.
"""

import json
import os
import select
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from claudemesh_mcp import jsonrpc
from claudemesh_mcp.handover import write
from claudemesh_mcp.jsonrpc import Fault, Id, Json, Line, Notification, Request
from claudemesh_mcp.offer import LIST_CHANGED, NEWEST, PROTOCOL_VERSIONS, Offer
from claudemesh_mcp.plugin.environment import Environment, Progress
from claudemesh_mcp.routes.places import environment
from claudemesh_wire.errors import Conflict, Invalid, NotFound

if TYPE_CHECKING:
    import subprocess

TOOL: Final = "setup_status"
_OFF: Final = frozenset({"off", "false", "no", "0"})
_LOOK_S: Final = 0.25
_CHUNK: Final = 65_536
_LONGEST_WAIT_S: Final = 60
_STDIN, _STDOUT = 0, 1
_INITIALIZED: Final = Notification("notifications/initialized", {})

DEFINITION: Final[Json] = {
    "name": TOOL,
    "title": "How far the setting up of claudemesh is",
    "description": (
        "Say how far the setting up of claudemesh has come. It runs once, in the background, and"
        " fetches the libraries that claudemesh needs; the tools of the mesh appear by themselves"
        " when it is done. If `state` is failed, `error` has a hint for the user; `retry` begins"
        " again."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {
            "retry": {"type": "boolean", "description": "Begin again after a failure."},
            "wait_s": {
                "type": "number",
                "minimum": 0,
                "maximum": _LONGEST_WAIT_S,
                "description": "Wait so long for the end before answering.",
            },
        },
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": False, "destructiveHint": False, "openWorldHint": True},
    "_meta": {"anthropic/alwaysLoad": True},
}


@dataclass(frozen=True)
class _Waiting:
    """A call that waits for the end of the setting up."""

    id: Id
    until: float


class Front:
    """The server of a client until the real one can run.

    Args:
        environment: What is missing.
        source: The descriptor that the client writes to.
        sink: The one it reads.
    """

    def __init__(self, environment: Environment, source: int = _STDIN, sink: int = _STDOUT) -> None:
        self._environment = environment
        self._source = source
        self._sink = sink
        self._lines = jsonrpc.Lines()
        self._unread = b""
        self._said: list[bytes] = []
        self._waiting: list[_Waiting] = []
        self._maker: subprocess.Popen[bytes] | None = None
        self._refused: Progress | None = None

    def serve(self) -> Path | None:
        """Serve until the environment is whole, or the client gone.

        Returns:
            The file with what the client said that the server has to know; ``None`` when the client
            is gone.
        """
        try:
            return self._serve()
        except (BrokenPipeError, KeyboardInterrupt):
            return None

    def _serve(self) -> Path | None:
        self._begin()
        while not self._environment.is_ready:
            if not self._listen():
                return None
            self._answer_waiting()
        self._answer_waiting()
        if self._said:
            # Its list is asked for only when the server is there: until then nobody reads.
            self._say(jsonrpc.notification(LIST_CHANGED, {}))
        return self._note()

    def _begin(self) -> None:
        try:
            self._maker = self._environment.begin() or self._maker
            self._refused = None
        except OSError as error:
            hint = f"Make {self._environment.data} writable; then call setup_status with retry."
            message = f"Nothing can be written to the plugin's data folder: {error}."
            self._refused = Progress("failed", code="storage_failed", message=message, hint=hint)

    def _listen(self) -> bool:
        """Take what the client says within a moment; tell whether it is still there."""
        readable, _, _ = select.select([self._source], [], [], _LOOK_S)
        if self._maker is not None:
            self._maker.poll()  # It must not stay in the table of processes as a zombie.
        if not readable:
            return True
        chunk = os.read(self._source, _CHUNK)
        self._unread = (self._unread + chunk).rpartition(b"\n")[2]
        for line in self._lines.feed(chunk):
            self._take(line)
        return bool(chunk)

    def _take(self, line: Line) -> None:
        message = jsonrpc.read(line)
        for one in message if isinstance(message, list) else [message]:
            if isinstance(one, Fault):
                self._say(one.response())
            elif isinstance(one, Request):
                self._answer(one, line)
            elif one == _INITIALIZED and self._said:
                self._said.append(line.data)

    def _answer(self, request: Request, line: Line) -> None:
        answer = self._result(request, line)
        if isinstance(answer, Fault):
            self._say(Fault(answer.code, answer.error, request.id).response())
        elif answer is not None:
            self._say(jsonrpc.success(request.id, answer))

    def _result(self, request: Request, line: Line) -> Json | Fault | None:
        match request.method:
            case "initialize" if self._said:
                error = Conflict(
                    "`initialize` was answered before.",
                    "Go on without it.",
                    code="already_initialized",
                )
                return Fault(jsonrpc.INVALID_REQUEST, error)
            case "initialize":
                self._said.append(line.data)
                return _greeting(request.params.get("protocolVersion"))
            case "ping":
                return {}
            case "logging/setLevel":
                return {}
            case "tools/list":
                return {"tools": [DEFINITION]}
            case "tools/call":
                return self._call(request)
            case _:
                error = NotFound(
                    f"There is no method {request.method[:80]}.",
                    "Use those for tools: no others are served.",
                    code="unknown_method",
                )
                return Fault(jsonrpc.METHOD_NOT_FOUND, error)

    def _call(self, request: Request) -> Json | Fault | None:
        if request.params.get("name") != TOOL:
            hint = f"claudemesh is being set up; its tools come by themselves. {TOOL} says how far."
            return Fault(jsonrpc.INVALID_PARAMS, NotFound("This tool is not there yet.", hint))
        given = cast("Json", request.params.get("arguments") or {})
        wait_s = given.get("wait_s", 0)
        if not isinstance(wait_s, int | float) or not 0 <= wait_s <= _LONGEST_WAIT_S:
            wrong = Invalid(f"`wait_s` is not a number up to {_LONGEST_WAIT_S}.", "Leave it out.")
            return Fault(jsonrpc.INVALID_PARAMS, wrong)
        if given.get("retry") is True and self._progress().state == "failed":
            self._begin()
        self._waiting.append(_Waiting(request.id, time.monotonic() + wait_s))
        return None

    def _progress(self) -> Progress:
        return self._refused or self._environment.progress()

    def _answer_waiting(self) -> None:
        """Answer those whose time is over, and all once there is something to say."""
        if not self._waiting:
            return
        told, now = self._progress(), time.monotonic()
        for one in list(self._waiting):
            if told.state != "building" or now >= one.until:
                self._waiting.remove(one)
                self._say(jsonrpc.success(one.id, _shown(told, self._environment)))

    def _say(self, message: Json) -> None:
        rest = memoryview(jsonrpc.encode(message))
        while rest:
            rest = rest[os.write(self._sink, rest) :]

    def _note(self) -> Path:
        """Keep what the client said that the server has to know, until that has read it."""
        file = self._environment.data / f"handover.{os.getpid()}"
        write(file, self._said, self._unread)
        return file


def _greeting(wanted: object) -> Json:
    """Answer as the server will."""
    version = wanted if isinstance(wanted, str) and wanted in PROTOCOL_VERSIONS else NEWEST
    # What the user's file says can't be read yet; a channel that stays unused disturbs nobody.
    silent = environment().get("CLAUDEMESH_CHANNEL", "").lower() in _OFF
    return Offer(channel=not silent).greeting(version)


def _shown(told: Progress, environment: Environment) -> Json:
    content: Json = {"state": told.state, "log": str(environment.log)}
    if told.state == "building":
        content |= {"step": told.step, "done": told.done, "total": told.total}
        content["hint"] = "The tools of the mesh appear by themselves when it is done."
    if told.state == "ready":
        content["hint"] = "The tools of the mesh are there now: look for send, inbox, search_peers."
    if told.code:
        error = {key: asdict(told)[key] for key in ("code", "message", "hint")}
        content["error"] = error
    text = json.dumps(content)
    return {"content": [{"type": "text", "text": text}], "structuredContent": content}
