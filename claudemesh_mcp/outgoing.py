"""What a user asks to send, and what of it makes no sense before anybody is asked.

``sdk.py`` fills and checks it; ``sending.py`` seals and sends it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from claudemesh_wire.address import parse
from claudemesh_wire.content import ContentFields, Priority, ValidIf
from claudemesh_wire.errors import Invalid, TooMuch
from claudemesh_wire.messages import DEFAULT_TTL_MS, MAX_ADDRESSES, MAX_TEXT_BYTES

_MESSAGE: Final = re.compile(r"msg_[a-z2-7]{26}", re.ASCII)


@dataclass(frozen=True)
class Outgoing:
    """What a user asks to send.

    Args:
        to: The addresses as written.
        text: What to say.
        fields: Priority, thread, what it supersedes and when it is valid.
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


def content_fields(
    priority: str,
    thread: str | None,
    supersedes: str | None = None,
    valid_if: Mapping[Literal["git_sha"], str] | None = None,
) -> ContentFields:
    """Read what goes with a text.

    Raises:
        Invalid: no such priority, too long a thread, ``bad_supersedes`` or ``bad_valid_if``.
    """
    if supersedes is not None:
        _check_id(supersedes, "supersedes", "that send gave")
    condition = None if valid_if is None else _valid_if(valid_if)
    try:
        return ContentFields(
            priority=Priority(priority),
            thread=thread or None,
            supersedes=supersedes,
            valid_if=condition,
        )
    except ValueError as error:
        raise Invalid(
            "priority is now, next or low; thread at most 120 characters.", "Correct them."
        ) from error


def _valid_if(wanted: Mapping[Any, Any]) -> ValidIf:
    """Read a condition; git writes a commit small, and takes it large too."""
    sha = wanted.get("git_sha")
    try:
        if set(wanted) != {"git_sha"} or not isinstance(sha, str):
            raise ValueError("valid_if is git_sha and nothing else")
        return ValidIf(git_sha=sha.lower())
    except ValueError as error:
        raise Invalid(
            "valid_if names the commit that a reader must have checked out, and nothing else.",
            'As {"git_sha": "1a2b3c4"}: 7 to 64 digits of what `git rev-parse HEAD` prints.',
            code="bad_valid_if",
        ) from error


def _check_id(message: str, parameter: str, origin: str) -> None:
    if not _MESSAGE.fullmatch(message):
        raise Invalid(
            f"{message[:60]!a} is not the id of a message.",
            f"{parameter} takes an id {origin} (msg_…).",
            code=f"bad_{parameter}",
        )


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
    if outgoing.re is not None:
        _check_id(outgoing.re, "reply_to", "that inbox showed")
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
