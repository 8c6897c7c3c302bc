"""One connection to a server, as a stream of JSON-RPC objects in each direction.

``backend.py`` opens it and decides what is said. A program is spoken to by ``program.py``; for a
URL the transport of ``mcp`` is below, which is imported with the first of them and not before: it
costs half a second.
"""

import json
import logging
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import anyio
from anyio.abc import TaskGroup

from claudemesh_mcp.hosting import answers, faults
from claudemesh_mcp.hosting.answers import Words
from claudemesh_mcp.hosting.errlog import ErrorLog
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.program import Gone, started

if TYPE_CHECKING:
    import httpx2
    from mcp.client._transport import ReadStream, WriteStream
    from mcp.shared.message import SessionMessage

MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""The transport's own limit is a megabyte, which an image in a result is above."""
_CONNECT_TIMEOUT_S: Final = 30.0
_SESSION_UNKNOWN: Final = re.compile(
    r"(?i)no valid session|session (not found|terminated)|server returned an error response"
)
# What the transport makes of an answer with a status of 400 or above that it can't read.
_OF_STATUS: Final = frozenset({"Not Found", "Server returned an error response"})


class Wire(Protocol):
    """A connection to a server that was started or reached."""

    async def send(self, words: Words, headers: Mapping[str, str]) -> None:
        """Send a message; the headers go along where the transport is HTTP.

        Raises:
            Gone: it was not sent.
        """
        ...

    def messages(self) -> AsyncIterator[Words]:
        """Give what the server says, until it ends.

        Raises:
            TooLong: it can't be listened to any more.
        """
        ...


class Remote:
    """A connection to a server by HTTP.

    Args:
        read: What comes from it.
        write: What goes to it.
        statuses: With which HTTP status it refused a request, by the request's id.
    """

    def __init__(
        self,
        read: "ReadStream[SessionMessage | Exception]",
        write: "WriteStream[SessionMessage]",
        statuses: dict[Any, int],
    ) -> None:
        self._read, self._write, self._statuses = read, write, statuses

    async def send(self, words: Words, headers: Mapping[str, str]) -> None:
        """Send a message; see ``Wire``."""
        from mcp.shared.message import ClientMessageMetadata, SessionMessage
        from mcp_types import jsonrpc_message_adapter

        message = jsonrpc_message_adapter.validate_python({"jsonrpc": "2.0", **words})
        metadata = ClientMessageMetadata(headers=dict(headers))
        try:
            await self._write.send(SessionMessage(message, metadata))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise Gone from error

    async def messages(self) -> AsyncIterator[Words]:
        """Give what the server says, until it ends."""
        async for item in self._read:
            words = recovered(item) if isinstance(item, Exception) else _raw(item)
            if words is not None:
                yield self._with_status(words)

    def _with_status(self, words: Words) -> Words:
        status = self._statuses.pop(words.get("id"), None)
        given = words.get("error")
        error = cast("Words", given) if isinstance(given, dict) else {}
        if status is None or error.get("message") not in _OF_STATUS:
            return words
        said = f"{error['message']}: HTTP status {_named(status)}"
        return {**words, "error": {**error, "message": said}}


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _raw(item: "SessionMessage") -> Words:
    words = item.message.model_dump(exclude_unset=True)
    del words["jsonrpc"]
    return words


def recovered(error: Exception) -> Words | None:
    """Give the message that the transport would not read, if it was one.

    A text cut in the middle of an emoji is no Unicode, but JSON; many servers cut texts. A result
    that is no object, or is nested too deeply, has still to end its call.
    """
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return None
    for detail in error.errors(include_url=False, include_context=False):
        given = detail["input"]
        if detail["type"] == "json_invalid" and isinstance(given, str | bytes):
            text = given.encode(errors="replace") if isinstance(given, str) else given
            return answers.read(text)
        if isinstance(given, dict) and ("jsonrpc" in given or "id" in given):
            return answers.heard(given)
    return None


def is_lost_answer(error: Any) -> bool:
    """Tell whether the HTTP transport says by an error that no answer will come."""
    return _says(error, -32000, "SSE stream")


def is_lost_session(error: Any) -> bool:
    """Tell whether the HTTP transport says that the server forgot us, and did nothing."""
    return _says(error, -32600, "Session terminated")


def may_have_lost_session(error: Any) -> bool:
    """Tell whether an error may mean that the server does not know our session any more.

    Source: what the SDKs for TypeScript and Python answer with status 400 or 404, and what the
    transport makes of an answer with such a status that it can't read.
    """
    said = str(cast("Words", error).get("message")) if isinstance(error, dict) else ""
    return bool(_SESSION_UNKNOWN.search(said))


def _says(error: Any, code: int, beginning: str) -> bool:
    if not isinstance(error, dict):
        return False
    said = cast("Words", error)
    return said.get("code") == code and str(said.get("message")).startswith(beginning)


def is_network(error: Exception) -> bool:
    """Tell whether an error is one of the network."""
    import httpx2

    return isinstance(error, httpx2.TransportError | OSError)


@asynccontextmanager
async def connected(launch: Launch, errors: ErrorLog, tasks: TaskGroup) -> AsyncGenerator[Wire]:
    """Start the server, or reach it, and stop it at the end.

    Args:
        launch: How.
        errors: Takes what it writes to stderr.
        tasks: Runs the reading of that.

    Raises:
        MeshError: it can't be started.
    """
    # What does not parse by HTTP is reported with its text in it, which is nobody's business.
    logging.getLogger("mcp").addHandler(logging.NullHandler())
    opened = _remote(launch) if launch.url else _started(launch, errors, tasks)
    async with opened as wire:
        yield wire


@asynccontextmanager
async def _started(launch: Launch, errors: ErrorLog, tasks: TaskGroup) -> AsyncGenerator[Wire]:
    readable, writable = os.pipe()
    # Not waited for: cancelled there, it would read a pipe whose other end nobody closes.
    tasks.start_soon(errors.follow, readable)
    async with AsyncExitStack() as stack:
        with os.fdopen(writable, "w", encoding="utf-8") as stderr:
            try:
                program = await stack.enter_async_context(started(launch, stderr))
            except (OSError, ValueError) as error:
                raise faults.not_started(launch, error) from error
        yield program


@asynccontextmanager
async def _remote(launch: Launch) -> AsyncGenerator[Wire]:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    statuses: dict[Any, int] = {}

    async def note(response: "httpx2.Response") -> None:
        if response.status_code >= HTTPStatus.BAD_REQUEST and response.request.method == "POST":
            asked: Any = json.loads(response.request.content)
            statuses[asked.get("id")] = response.status_code

    # A call may take as long as its caller waits: only the connecting has a limit.
    patience = httpx2.Timeout(_CONNECT_TIMEOUT_S, read=None)
    async with (
        httpx2.AsyncClient(
            headers=dict(launch.headers), timeout=patience, event_hooks={"response": [note]}
        ) as client,
        streamable_http_client(
            launch.url, http_client=client, max_sse_event_size=MAX_EVENT_BYTES
        ) as (read, write),
    ):
        yield Remote(read, write, statuses)
