"""What is sealed inside an envelope of kind ``message``: a few fields and the text.

``sdk.py`` packs it before sealing, ``inbox.py`` unpacks it after opening. The text is kept as raw
UTF-8 behind the fields, so that its size on the wire is its size in bytes.

Content:  u32be length of fields | fields (JSON) | text (UTF-8)
"""

import struct
from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from claudemesh_wire import canonical
from claudemesh_wire.envelope import AGAIN, Refusal
from claudemesh_wire.errors import Invalid
from claudemesh_wire.message import MessageId

KIND: Final = "message"
_LENGTH: Final = struct.Struct(">I")


class Priority(StrEnum):
    """How soon a message should reach the model's context."""

    NOW = "now"
    NEXT = "next"
    LOW = "low"


class ValidIf(canonical.Signed):
    """What must be so at the reader when the message is offered there.

    A condition that a reader does not know is refused: to show the text all the same would be
    against its sender's word.

    Args:
        git_sha: The beginning of the commit that the reader's folder has checked out.
    """

    model_config = ConfigDict(extra="forbid")

    git_sha: Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}$")]


class ContentFields(canonical.Signed):
    """What goes with the text, seen by its readers alone.

    ``supersedes`` names an earlier message of the same sender, which is not to be shown any more.
    ``e2e`` is the sender's word that all readers hold their own keys, where there are several: each
    of them knows that of the sender and itself alone.
    """

    priority: Annotated[Priority, Field(strict=False)] = Priority.NEXT
    thread: Annotated[str, Field(max_length=120)] | None = None
    supersedes: MessageId | None = None
    valid_if: ValidIf | None = None
    e2e: bool | None = None

    def is_e2e_for(self, readers: int) -> bool:
        """Tell whether so many readers are all that can read it, as far as the sender knows."""
        return readers == 1 or self.e2e is True


def pack(fields: ContentFields, text: str) -> bytes:
    """Write fields and text as the plaintext of an envelope.

    Raises:
        Invalid: the text holds half a surrogate pair, which no encoding can carry.
    """
    raw = canonical.encode(fields)
    try:
        return _LENGTH.pack(len(raw)) + raw + text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(
            "The text is not valid Unicode.", canonical.HALVES, code="malformed"
        ) from error


def unpack(plaintext: bytes) -> tuple[ContentFields, str]:
    """Read what ``pack`` wrote.

    Raises:
        Refusal: ``bad_content``: the sender sealed something else.
    """
    try:
        (length,) = _LENGTH.unpack_from(plaintext)
        start = _LENGTH.size + length
        if start > len(plaintext):
            raise Refusal("The content is cut short.", AGAIN, code="bad_content")
        fields = canonical.decode(plaintext[_LENGTH.size : start], ContentFields, "content")
        return fields, plaintext[start:].decode()
    except (struct.error, UnicodeDecodeError, Invalid) as error:
        raise Refusal("The content is not that of a message.", AGAIN, code="bad_content") from error
