"""The calls that are under way to a server, and whom each belongs to.

``backend.py`` puts one in for each request and tells it what the server says about it; its own task
waits here, and hands progress and log lines to the caller in their order.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

Raw = dict[str, Any]
Telling = Callable[[Raw], Awaitable[None]]
"""Is told the params of a notification."""
Asking = Callable[[str, Raw], Awaitable[Raw]]
"""Is asked a method with params, and gives ``{"result": ...}`` or ``{"error": ...}``."""

MOST_UNTOLD: Final = 1024
"""Of a caller that reads slowly the oldest notifications are dropped: nobody else waits for it."""


class Lost(Exception):
    """The server ended, and no answer will come."""


class Stop:
    """Ends calls from outside, with a reason for the server."""

    def __init__(self) -> None:
        self.reason = ""
        self._is_cancelled = False
        self._scopes: set[anyio.CancelScope] = set()

    def cancel(self, reason: str = "") -> None:
        """End the calls; the server is told."""
        self.reason, self._is_cancelled = reason, True
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def guard(self) -> Generator[None]:
        """Leave the block when the calls are ended."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._is_cancelled:
                scope.cancel()
            try:
                yield
            finally:
                self._scopes.discard(scope)


async def _ignore(_: Raw) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Hooks:
    """What a caller wants to hear of its call while it runs.

    Args:
        progress: Is told of progress, under the token that the caller gave.
        log: Is told what the server logs.
        ask: Is asked what the server wants to know (``elicitation/create``); ``None``: the caller
            can't be asked.
        caller: Who calls, whatever names one: what a server says without naming a call goes to its
            caller only while there is no other.
        stop: Ends the call.
    """

    progress: Telling = _ignore
    log: Telling = _ignore
    ask: Asking | None = None
    caller: str = ""
    stop: Stop = field(default_factory=Stop)


@dataclass(eq=False)
class Flight:
    """One request that is under way.

    Args:
        id: What it is numbered by towards the server.
        hooks: What the caller wants to hear; ``None`` for a request of our own.
        token: What the caller names its progress by; ``None``: it wants none.
    """

    id: int
    hooks: Hooks | None = None
    token: Any = None
    asked: set[anyio.CancelScope] = field(default_factory=set[anyio.CancelScope])
    """What the server asks because of it."""
    _untold: deque[tuple[Telling, Raw]] = field(
        default_factory=lambda: deque[tuple[Telling, Raw]](maxlen=MOST_UNTOLD)
    )
    _more: anyio.Event = field(default_factory=anyio.Event)
    _answer: Raw | None = None
    _is_lost: bool = False

    def tell(self, telling: Telling, params: Raw) -> None:
        """Have the caller told."""
        self._untold.append((telling, params))
        self._more.set()

    def settle(self, answer: Raw) -> None:
        """Take the answer."""
        self._answer = answer
        self._more.set()

    def lose(self) -> None:
        """Take note that no answer will come."""
        self._is_lost = True
        self._more.set()

    @property
    def is_over(self) -> bool:
        """Whether the server is done with it."""
        return self._answer is not None or self._is_lost

    async def answer(self) -> Raw:
        """Give the answer, after telling all that came before it; raises ``Lost``."""
        while True:
            while self._untold:
                telling, params = self._untold.popleft()
                await telling(params)
            if self._answer is not None:
                return self._answer
            if self._is_lost:
                raise Lost
            self._more = anyio.Event()
            await self._more.wait()


class Flights:
    """All requests that are under way to one server."""

    def __init__(self) -> None:
        self._open: dict[int, Flight] = {}
        self._last = 0

    def begin(self, hooks: Hooks | None = None, token: Any = None) -> Flight:
        """Number a new one."""
        self._last += 1
        flight = self._open[self._last] = Flight(self._last, hooks, token)
        return flight

    def end(self, flight: Flight) -> None:
        """Forget one, and what the server asks because of it."""
        self._open.pop(flight.id, None)
        for scope in flight.asked:
            scope.cancel()

    def find(self, number: Any) -> Flight | None:
        """Find the one that an answer or a token names."""
        if number is None:
            # The server could not read whose number it was; only one of one can be meant.
            return next(iter(self._open.values())) if len(self._open) == 1 else None
        return self._open.get(number) if type(number) is int else None

    def only_callers(self) -> Flight | None:
        """Give the newest call, if all calls are one caller's."""
        calls = [(one, one.hooks.caller) for one in self._open.values() if one.hooks is not None]
        return calls[-1][0] if len({caller for _, caller in calls}) == 1 else None

    @property
    def has_calls(self) -> bool:
        """Whether any call is under way."""
        return any(one.hooks is not None for one in self._open.values())

    def lose_all(self) -> None:
        """No answer will come to any."""
        for flight in self._open.values():
            flight.lose()
