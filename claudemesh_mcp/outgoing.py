"""What a user asks to send, and what of it makes no sense before anybody is asked.

``sdk.py`` fills and checks it; ``sending.py`` seals and sends it.
"""

import re
from dataclasses import dataclass
from typing import Final

from claudemesh_wire.address import parse
from claudemesh_wire.content import ContentFields, Priority
from claudemesh_wire.errors import Invalid, TooMuch
from claudemesh_wire.messages import DEFAULT_TTL_MS, MAX_ADDRESSES, MAX_TEXT_BYTES

_MESSAGE: Final = re.compile(r"msg_[a-z2-7]{26}", re.ASCII)


@dataclass(frozen=True)
class Outgoing:
    """What a user asks to send.

    Args:
        to: The addresses as written.
        text: What to say.
        fields: Priority and thread.
        re: The message it answers.
        ttl_ms: How long it may wait for its recipients.
        idempotency_key: The same key is the same message.
    """

    to: tuple[str, ...]
    text: str
    fields: ContentFields = ContentFields()  # noqa: RUF009 - frozen
    re: str | None = None
    ttl_ms: int = DEFAULT_TTL_MS
    idempotency_key: str | None = None


def content_fields(priority: str, thread: str | None) -> ContentFields:
    """Read what goes with a text.

    Raises:
        Invalid: no such priority, or too long a thread.
    """
    try:
        return ContentFields(priority=Priority(priority), thread=thread or None)
    except ValueError as error:
        raise Invalid(
            "priority is now, next or low; thread at most 120 characters.", "Correct them."
        ) from error


def check(outgoing: Outgoing) -> None:
    """Refuse what makes no sense before anything is asked or kept.

    Raises:
        Invalid: no address, not an address, ``empty_text``, half a character, ``bad_reply_to``, or
            a lifetime that is not within 7 days.
        TooMuch: ``too_many_recipients`` or ``message_too_large``.
    """
    if not outgoing.to:
        raise Invalid("A message needs at least one address.", "Name a handle, @group or *.")
    if len(outgoing.to) > MAX_ADDRESSES:
        raise TooMuch(
            f"A message has at most {MAX_ADDRESSES} addresses, and 256 recipients.",
            "Use a group.",
            code="too_many_recipients",
        )
    for address in outgoing.to:
        parse(address)
    _check_text(outgoing.text)
    if outgoing.re is not None and not _MESSAGE.fullmatch(outgoing.re):
        raise Invalid(
            f"{outgoing.re[:60]!a} is not the id of a message.",
            "reply_to takes an id that inbox showed (msg_…).",
            code="bad_reply_to",
        )
    if not 0 < outgoing.ttl_ms <= DEFAULT_TTL_MS:
        raise Invalid(
            "expires_in_s is more than 0 and at most 604800 (7 days).", "Leave it out for 7 days."
        )


def _check_text(text: str) -> None:
    if not text.strip():
        raise Invalid("The text is empty.", "Say something.", code="empty_text")
    try:
        size = len(text.encode())
    except UnicodeError as error:
        raise Invalid(
            "The text is not valid Unicode: it holds half a character.",
            "Leave that character out.",
        ) from error
    if size > MAX_TEXT_BYTES:
        raise TooMuch(
            f"The text has {size} bytes; {MAX_TEXT_BYTES} are the most.",
            "Send a part of it, or say where it can be read.",
            code="message_too_large",
        )
