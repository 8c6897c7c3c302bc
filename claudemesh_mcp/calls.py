"""What a tool knows of the call it serves, and what it may tell or ask its caller meanwhile.

``opencalls.py`` makes one ``CallContext`` for each ``tools/call``; ``tools`` passes it to every
tool that has a parameter ``call: CallContext``. Cancellation needs nothing from here: it reaches
the tool as ``asyncio.CancelledError``.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from claudemesh_wire.errors import Unavailable

_RESERVED: Final = frozenset({"mcp", "modelcontextprotocol"})

Notify = Callable[[str, dict[str, Any]], None]
Ask = Callable[["CallContext", str, dict[str, Any], float], Awaitable[dict[str, Any]]]


def client_cannot(what: str) -> Unavailable:
    """Give the refusal to ask a client what it can't answer."""
    return Unavailable(
        f"The client of this session can't be asked {what}.",
        "Use a client that says at `initialize` that it can, or do without the answer.",
        code="client_cannot",
    )


def _nowhere(_method: str, _params: dict[str, Any]) -> None:
    """Drop what is notified: the call has no client that listens."""


def _nothing(_level: object) -> bool:
    """Want no log messages."""
    return False


async def _nobody(
    _call: "CallContext", method: str, _params: dict[str, Any], _timeout_s: float
) -> dict[str, Any]:
    raise client_cannot(method)


class Handing(Protocol):
    """A call whose result shows rows; it is told which, so that evidence can name them."""

    def hands_out(self, tokens: Iterable[str]) -> None:
        """Take the tokens of the rows that the result shows."""
        ...


@dataclass(slots=True)
class Caller:
    """The client of a call, as its tools reach it.

    Args:
        name: How it named itself at `initialize`.
        notify: Takes a notification's method and parameters to it; when the client does not read
            they may be dropped.
        hears: Tells whether it wants log messages of a level.
        ask: Asks it something on behalf of a call, and waits for its answer.
    """

    name: str = ""
    notify: Notify = _nowhere
    hears: Callable[[object], bool] = _nothing
    ask: Ask = _nobody


class CallContext:
    """One call of one tool.

    Args:
        meta: The `_meta` of the request.
        caller: Who calls.
    """

    def __init__(self, meta: Mapping[str, Any] | None = None, caller: Caller | None = None) -> None:
        self._caller = caller or Caller()
        self.tokens: tuple[str, ...] = ()
        self.ended = False
        """Whether the call was answered or cancelled: its client hears no more of it."""
        self.meta = {key: one for key, one in (meta or {}).items() if not _is_protocol(key)}
        """What the request says besides, without what only these two ends agree on."""
        token = (meta or {}).get("progressToken")
        self._progress_token = token if isinstance(token, str | int) else None
        self._progress = float("-inf")

    @property
    def client_name(self) -> str:
        """Who calls, as it named itself at `initialize`."""
        return self._caller.name

    def hands_out(self, tokens: Iterable[str]) -> None:
        """Say which rows this result shows, so that its evidence can be told apart.

        The session gets the tokens back in ``evidence`` once a request proves that the printed
        result arrived, or in ``withdrawn`` when the client had cancelled the call.
        """
        self.tokens += tuple(tokens)

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell a client that asked for it how far the call is; `done` has to grow."""
        if done <= self._progress:
            return
        self._progress = done
        params: dict[str, Any] = {"progress": done}
        if total is not None:
            params["total"] = total
        if message:
            params["message"] = message
        self.progress_raw(params)

    def progress_raw(self, params: Mapping[str, Any]) -> None:
        """Pass on how far another server is, to a client that asked for it.

        Args:
            params: Of that server's `notifications/progress`; the token becomes the client's.
        """
        if self._progress_token is not None and not self.ended:
            mine = {**params, "progressToken": self._progress_token}
            self._caller.notify("notifications/progress", mine)

    def log_raw(self, params: Mapping[str, Any]) -> None:
        """Pass on what another server logs, if the client wants to hear that level.

        Args:
            params: Of that server's `notifications/message`.
        """
        if not self.ended and self._caller.hears(params.get("level")):
            self._caller.notify("notifications/message", dict(params))

    async def ask(self, method: str, params: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Ask the client something; the question is taken back when the call ends before it.

        Args:
            method: The request; `elicitation/create` is the only one.
            params: Its parameters, as they are to reach the client.
            timeout_s: How long to wait; the human may be away.

        Returns:
            The result, as the client gave it.

        Raises:
            Unavailable: ``client_cannot``: it never said that it can; ``client_refused``: it
                answered with an error, which is in the details; ``client_silent``: the time is
                over; ``call_ended``: the call is.
            TooMuch: too many questions are open.
            Invalid: ``unwritable``: the parameters are no JSON.
        """
        return await self._caller.ask(self, method, params, timeout_s)


def meta_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Give the `_meta` of a request; nothing if it is none."""
    meta = params.get("_meta")
    return cast("dict[str, Any]", meta) if isinstance(meta, dict) else {}


def _is_protocol(key: str) -> bool:
    """Tell whether a key belongs to the protocol between two ends, by MCP's rule for prefixes."""
    prefix, slash, _ = key.rpartition("/")
    return key == "progressToken" or bool(slash and _RESERVED.intersection(prefix.split(".")))
