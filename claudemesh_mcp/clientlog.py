"""Tell a client what its own session warns of: log records become `notifications/message`.

``server.py`` opens one for each client. Tasks inherit the context they are started in, so that of
several clients in one process each hears of its own session only.
"""

import asyncio
import logging
from contextvars import ContextVar, Token
from typing import Any, Final, Self

from claudemesh_mcp.calls import Notify

LEVELS: Final[dict[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": 25,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "alert": 60,
    "emergency": 70,
}
_HEARD: ContextVar["ClientLog | None"] = ContextVar("heard", default=None)


class ClientLog(logging.Handler):
    """A log handler for one client; as a context manager it is open for what runs inside.

    Args:
        notify: Takes a notification's method and parameters to the client.
    """

    def __init__(self, notify: Notify) -> None:
        super().__init__(logging.WARNING)
        self._notify = notify
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outer: Token[ClientLog | None] | None = None

    def __enter__(self) -> Self:
        """Hear what this task and those it starts will log."""
        self._loop = asyncio.get_running_loop()
        self._outer = _HEARD.set(self)
        logging.getLogger(__package__).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Hear nothing more."""
        logging.getLogger(__package__).removeHandler(self)
        if self._outer is not None:
            _HEARD.reset(self._outer)

    def hears(self, level: object) -> bool:
        """Tell whether the client wants messages of this level, given by MCP's name for it."""
        return isinstance(level, str) and LEVELS.get(level, -1) >= self.level

    def filter(self, record: logging.LogRecord) -> bool:
        """Take only what this client's own tasks log."""
        return _HEARD.get() is self and super().filter(record) is not False

    def emit(self, record: logging.LogRecord) -> None:
        """Send the sentence and where it comes from; fields and tracebacks stay in the log."""
        level = max(
            (name for name in LEVELS if LEVELS[name] <= record.levelno),
            key=LEVELS.__getitem__,
            default="debug",
        )
        params: dict[str, Any] = {
            "level": level,
            "logger": record.name,
            "data": {"message": record.getMessage()},
        }
        # A record may come from a worker thread, the client's stream belongs to the loop.
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._notify, "notifications/message", params)
