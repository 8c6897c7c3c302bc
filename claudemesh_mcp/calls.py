"""What a tool knows of the call it serves: progress, and which rows its result hands out.

``server.py`` makes one for each ``tools/call``; ``tools`` passes it to every tool that has a
parameter ``call: CallContext``. Cancellation needs nothing from here: it reaches the tool as
``asyncio.CancelledError``.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

Notify = Callable[[str, dict[str, Any]], None]


def _nowhere(_method: str, _params: dict[str, Any]) -> None:
    """Drop what is notified: the call has no client that listens."""


class Handing(Protocol):
    """A call whose result shows rows; it is told which, so that evidence can name them."""

    def hands_out(self, tokens: Iterable[str]) -> None:
        """Take the tokens of the rows that the result shows."""
        ...


class CallContext:
    """One call of one tool.

    Args:
        progress_token: What the client wants its progress notifications marked with; None when
            it asked for none.
        client_name: Who calls, as it named itself at `initialize`.
        notify: Takes a notification's method and parameters to the client.
    """

    def __init__(
        self,
        progress_token: str | int | None = None,
        client_name: str = "",
        notify: Notify = _nowhere,
    ) -> None:
        self.client_name = client_name
        self.tokens: tuple[str, ...] = ()
        self._progress_token = progress_token
        self._notify = notify
        self._progress = float("-inf")

    def hands_out(self, tokens: Iterable[str]) -> None:
        """Say which rows this result shows, so that its evidence can be told apart.

        The session gets the tokens back in ``evidence`` once a request proves that the printed
        result arrived, or in ``withdrawn`` when the client had cancelled the call.
        """
        self.tokens += tuple(tokens)

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell a client that asked for it how far the call is; `done` has to grow."""
        if self._progress_token is None or done <= self._progress:
            return
        self._progress = done
        params: dict[str, Any] = {"progressToken": self._progress_token, "progress": done}
        if total is not None:
            params["total"] = total
        if message:
            params["message"] = message
        self._notify("notifications/progress", params)
