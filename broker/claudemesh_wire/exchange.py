"""Sans-I/O: numbers requests, pairs replies with them, hands out notices; both sides use it.

A client's connection and a broker's session each hold one ``Exchange``. It is fed the texts that
arrive and gives the texts to send; sockets, tasks and time are the owner's business.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

from claudemesh_wire import frame
from claudemesh_wire.errors import Invalid, MeshError, ProtocolError, TooMuch
from claudemesh_wire.message import CATALOGUE, Message, Notice, Refused, ReplyT, Request

MAX_PENDING: Final = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """The other side asks; answer under ``number``."""

    number: int
    request: Request[Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """The reply to our request ``number``, or the error that refused it."""

    number: int
    outcome: Message | MeshError


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something the other side tells unasked."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class Malformed:
    """A frame that could not be understood; ``answer`` is the refusal to send, if one is due."""

    error: MeshError
    answer: str | None


Event = Asked | Answered | Noticed | Malformed


class Exchange:
    """The bookkeeping of one connection, in memory only.

    Args:
        unheard: Kinds of notices that the owner has no use for: they are not even read.
    """

    def __init__(self, unheard: Iterable[str] = ()) -> None:
        """Start with number 1 and nothing pending."""
        self.hear_all_but(unheard)
        self._next = 1
        self._pending: dict[int, type[Message]] = {}

    @property
    def pending(self) -> int:
        """How many of our requests have no answer yet."""
        return len(self._pending)

    def hear_all_but(self, kinds: Iterable[str]) -> None:
        """Say anew which kinds of notices the owner has no use for."""
        self._unheard = tuple(f"0 0 {kind} " for kind in kinds)

    def ask(self, request: Request[ReplyT]) -> tuple[int, str]:
        """Number a request and give the text to send.

        Raises:
            TooMuch: too many requests wait for an answer, or the frame is too large.
        """
        if len(self._pending) >= MAX_PENDING:
            raise TooMuch(
                "Too many requests wait for an answer.", "Wait for some of them.", retry_after_s=0.5
            )
        number = self._next
        text = frame.encode(number, 0, request)
        self._next += 1
        self._pending[number] = type(request).reply
        return number, text

    def forget(self, number: int) -> None:
        """Stop waiting for an answer: the asker has given up, a late answer is dropped."""
        self._pending.pop(number, None)

    def answer(self, number: int, outcome: Message | MeshError) -> str:
        """Give the text that answers the other side's request ``number``.

        Raises:
            TooMuch: the answer is larger than a frame may be.
        """
        message = Refused.of(outcome) if isinstance(outcome, MeshError) else outcome
        return frame.encode(0, number, message)

    def notify(self, notice: Notice) -> str:
        """Give the text of a notice; the same text may go to many connections.

        Raises:
            TooMuch: the notice is larger than a frame may be.
        """
        return frame.encode(0, 0, notice)

    def receive(self, text: str) -> Event | None:
        """Take one frame from the other side.

        Returns:
            What it means, or ``None`` for an answer nobody waits for any more, and for a notice
            that is not heard here.
        """
        if text.startswith(self._unheard):
            return None
        try:
            received = frame.decode(text)
        except MeshError as error:
            return Malformed(error, self._last_words(text, error))
        if received.answers:
            return self._take_answer(received)
        return self._take_statement(received)

    def _take_answer(self, received: frame.Frame) -> Event | None:
        expected = self._pending.pop(received.answers, None)
        if expected is None:
            return None
        try:
            if received.kind == Refused.kind:
                return Answered(received.answers, Refused.from_json(received.body).error())
            if received.kind != expected.kind:
                wrong = ProtocolError(f"Asked for {expected.kind}, was answered {received.kind}.")
                return Answered(received.answers, wrong)
            return Answered(received.answers, expected.from_json(received.body))
        except MeshError as error:
            broken = ProtocolError(f"The answer could not be read: {error.reason}")
            return Answered(received.answers, broken)

    def _take_statement(self, received: frame.Frame) -> Event:
        declared = CATALOGUE.get(received.kind)
        wanted: type[Request[Any] | Notice] = Request if received.number else Notice
        if declared is None or not issubclass(declared, wanted):
            error: MeshError = Invalid(
                f"{received.kind} is not known here.", "Update the older side.", code="unsupported"
            )
            return Malformed(error, self._refusal(received.number, error))
        try:
            message = cast("type[Request[Any] | Notice]", declared).from_json(received.body)
        except MeshError as refusal:
            return Malformed(refusal, self._refusal(received.number, refusal))
        if isinstance(message, Notice):
            return Noticed(message)
        return Asked(received.number, message)

    def _refusal(self, number: int, error: MeshError) -> str | None:
        return self.answer(number, error) if number else None

    def _last_words(self, text: str, error: MeshError) -> str | None:
        """Answer a broken frame under its number when at least that can be read."""
        head, space, _ = text[:20].partition(" ")
        return self._refusal(int(head), error) if space and frame.is_number(head) else None
