"""Waits until the recipients of a message have got as far as its sender wants to know.

``sdk.py`` waits here behind a send; ``attachment.py`` tells of what the broker pushes. A push is a
hint to ask again, and no more than that: what is answered has the proofs with it.
"""

from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from claudemesh_wire.errors import Invalid, MeshError, TooMuch, Unavailable
from claudemesh_wire.message import Notice
from claudemesh_wire.receipts import BrokerNews, ReceiptNews

if TYPE_CHECKING:
    from claudemesh_mcp.results import RecipientStatus, SendResult, StatusResult

WAIT_S: Final = 30.0
MAX_WAIT_S: Final = 3600
REACHED: Final = {"delivered": frozenset({"delivered", "seen"}), "seen": frozenset({"seen"})}
"""By what is waited for: the states of a recipient that has got so far."""
_ENDS: Final = frozenset({"held", "withheld", "declined", "expired", "refused"})
_LEAST_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
# Whoever is told needs to ask only in case that a hint was lost, as with a connection.
_PAUSE_BETWEEN_HINTS_S: Final = 5.0
_PASSING: Final = (TooMuch, Unavailable)


class Hear(Protocol):
    """The switch of a connection's pushes."""

    def __call__(self, *, wanted: bool) -> None:
        """Turn them on or off."""
        ...


def _unheard(*, wanted: bool) -> None:
    """Stand in for the switch while there is no connection."""


class Hints:
    """Wakes those who wait for the receipts of a message when the broker has news of it.

    The broker's pushes are read only while somebody waits.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, anyio.Event] = {}
        self._listeners = 0
        self._hear: Hear = _unheard

    def listen_by(self, hear: Hear) -> None:
        """Take over the switch of a new connection, which turns its pushes on and off."""
        self._hear = hear
        hear(wanted=self._listeners > 0)

    @contextmanager
    def expect(self, message: str) -> Generator[None]:
        """Listen for news of a message as long as the block lasts."""
        self._listeners += 1
        self._hear(wanted=True)
        try:
            yield
        finally:
            self._listeners -= 1
            # Another who waits for the same message asks, and gets an event of its own.
            if (event := self._waiting.pop(message, None)) is not None:
                event.set()
            self._hear(wanted=self._listeners > 0)

    def next(self, message: str) -> anyio.Event:
        """Give the event that the next news of a message sets; take it before asking."""
        event = self._waiting.get(message)
        if event is None or event.is_set():
            event = self._waiting[message] = anyio.Event()
        return event

    def hear(self, notice: Notice) -> None:
        """Take what the broker pushed."""
        for message in _named(notice):
            if (event := self._waiting.get(message)) is not None:
                event.set()


def _named(notice: Notice) -> Iterable[str]:
    if isinstance(notice, ReceiptNews):
        return [item.id for batch in notice.batches for item in batch.items]
    return [notice.id] if isinstance(notice, BrokerNews) else []


def check(wait_for: str | None, wait_s: float | None) -> float:
    """Say how long to wait.

    Raises:
        Invalid: ``bad_wait``: there is no such state, or no such time.
    """
    if wait_for is None and wait_s is not None:
        raise Invalid("wait_s says how long to wait, and not for what.", _HINT, code="bad_wait")
    if wait_for is not None and wait_for not in REACHED:
        raise Invalid(f"Nobody can wait for {wait_for[:60]!a}.", _HINT, code="bad_wait")
    wait_s = WAIT_S if wait_s is None else wait_s
    if not 0 < wait_s <= MAX_WAIT_S:
        raise Invalid(
            f"wait_s is more than 0 and at most {MAX_WAIT_S}.",
            f"Leave it out for {WAIT_S:g}.",
            code="bad_wait",
        )
    return wait_s


_HINT: Final = "Give wait_for as delivered or seen."


async def reach(
    message: str,
    wanted: str,
    ask: Callable[[], Awaitable["StatusResult"]],
    hints: Hints,
    within: tuple[float, bool],
) -> "StatusResult | None":
    """Ask until every recipient has got so far, or can't any more, or the time is up.

    Args:
        message: Its id.
        wanted: ``delivered`` or ``seen``.
        ask: Gives the verified receipts.
        hints: Says when to ask again.
        within: Seconds, and whether the broker pushes to this connection.

    Returns:
        The last answer; none if there was none in time.

    Raises:
        MeshError: the receipts can't be believed, or can't be had; the hint says that the message
            was sent all the same.
    """
    left_s, is_told = within
    pauses, told = _pauses(is_told=is_told), None
    with hints.expect(message), anyio.move_on_after(max(left_s, _LEAST_S)):
        while True:
            news, pause_s = hints.next(message), next(pauses)
            try:
                told = await ask()
            except _PASSING as error:
                pause_s = error.retry_after_s or _FIRST_PAUSE_S
            except MeshError as error:
                error.hint = f"It was sent as {message}: don't send it again. {error.hint}".strip()
                raise
            else:
                if _is_over(told.recipients, wanted):
                    break
            with anyio.move_on_after(pause_s):
                await news.wait()
    return told


def _pauses(*, is_told: bool) -> Iterator[float]:
    pause_s = _FIRST_PAUSE_S
    while True:
        yield _PAUSE_BETWEEN_HINTS_S if is_told else pause_s
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _is_over(recipients: Iterable["RecipientStatus"], wanted: str) -> bool:
    done = REACHED[wanted] | _ENDS
    return all(one.status in done for one in recipients)


def completed(sent: "SendResult", told: "StatusResult | None", wanted: str) -> "SendResult":
    """Say in the result of a send what was found out by waiting."""
    found = {one.peer: one for one in told.recipients} if told else {}
    recipients = [
        one.model_copy(update=_update(found[one.peer])) if one.peer in found else one
        for one in sent.recipients
    ]
    reached = all(one.status in REACHED[wanted] for one in recipients)
    return sent.model_copy(update={"recipients": recipients, "reached": reached})


def _update(told: "RecipientStatus") -> dict[str, object]:
    names = ("status", "hint", "route", "reason", "proved")
    return {name: getattr(told, name) for name in names}
