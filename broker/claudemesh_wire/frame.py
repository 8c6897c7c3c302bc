"""One frame: the number it has, the number it answers, its kind and its body, on one line of text.

``exchange.py`` hands messages in and takes frames out. The line is ``NUMBER ANSWERS KIND BODY``,
four fields separated by single spaces; the body is JSON. A request has a number and answers 0, a
reply has number 0 and answers a request, a notice has 0 and 0. Limits are checked before any JSON
is parsed.
"""

import re
from dataclasses import dataclass
from typing import Final

from pydantic_core import PydanticSerializationError

from claudemesh_wire.errors import Invalid, TooMuch
from claudemesh_wire.message import KIND_GRAMMAR, Message

MAX_FRAME_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
_COMPARE: Final = "Compare claudemesh --version on both sides."
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)
# Possessive: remembering where to backtrack to would take 100 times the frame's size.
_STRING: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_ALIKE: Final = bytes.maketrans(b"[]", b"{}")


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose body has not been parsed yet."""

    number: int
    answers: int
    kind: str
    body: str


def encode(number: int, answers: int, message: Message) -> str:
    """Write a message as the text of one frame.

    Raises:
        TooMuch: the text is larger than a frame may be.
        Invalid: a value of the message cannot be written, as half a surrogate pair.
    """
    try:
        body = message.model_dump_json(exclude_none=True)
    except PydanticSerializationError as error:
        raise Invalid(
            f"A value in {message.kind} cannot be written as JSON.",
            "Leave out what is no JSON, as half of a surrogate pair.",
        ) from error
    text = f"{number} {answers} {message.kind} {body}"
    check_size(text)
    return text


def decode(text: str) -> Frame:
    """Take a frame apart without parsing its body.

    Raises:
        Invalid: it is not four fields, or a number, kind or nesting is out of bounds.
        TooMuch: it is larger than a frame may be.
    """
    check_size(text)
    fields = text.split(" ", 3)
    if len(fields) != 4:  # noqa: PLR2004 - the four fields of the grammar above
        raise Invalid("The frame is not NUMBER ANSWERS KIND BODY.", _COMPARE)
    number, answers, kind, body = fields
    if not is_number(number) or not is_number(answers):
        raise Invalid("A frame number is not a whole number below 10^15.", _COMPARE)
    if number != "0" and answers != "0":
        raise Invalid("A frame is a request or an answer, not both.", _COMPARE)
    if not KIND_GRAMMAR.fullmatch(kind):
        raise Invalid("The frame's kind is not a kind.", _COMPARE)
    check_depth(body)
    return Frame(int(number), int(answers), kind, body)


def is_number(text: str) -> bool:
    """Tell whether a text is a frame number: no sign, no leading zero, below 10^15."""
    return _NUMBER.fullmatch(text) is not None


def check_size(text: str) -> None:
    """Refuse a text above the frame limit, without encoding it when that can be told before."""
    if len(text) <= MAX_FRAME_BYTES // 4:
        return
    if len(text) > MAX_FRAME_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_FRAME_BYTES:
        raise TooMuch(
            f"A frame is at most {MAX_FRAME_BYTES} bytes.",
            "Send less at once; share large content as a file.",
            code="frame_too_large",
        )


def check_depth(body: str) -> None:
    """Refuse JSON nested deeper than 32 levels, before a parser walks it."""
    if body.count("[") + body.count("{") <= MAX_DEPTH:
        return
    # Where nothing is escaped, texts are every other piece between quotes.
    outside = _STRING.sub("", body) if "\\" in body else "".join(body.split('"')[::2])
    brackets = outside.encode("utf-8", "surrogatepass").translate(_ALIKE, _NO_BRACKETS)
    # Each round takes away the innermost pairs: a large frame is looked at without a loop over it.
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace(b"{}", b"")
    if b"{" in brackets:
        raise Invalid(
            f"The body is nested deeper than {MAX_DEPTH} levels.",
            "Nest it less, or send it as a text.",
        )
