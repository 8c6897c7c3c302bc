"""The public profile: what its known keys may hold.

``claudemesh_broker.features.presence`` checks one before it is kept. Other keys are free, within
the size of the whole.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import urlsplit

from claudemesh_wire.errors import Invalid

MAX_TITLE: Final = 80
MAX_BIO: Final = 500
MAX_CAPABILITIES: Final = 20
MAX_AVATAR: Final = 8
MAX_AVATAR_URL: Final = 200
# What makes one sign of several characters: an emoji of a family has four people and three joiners.
_JOINERS: Final = frozenset({"Mn", "Me", "Cf", "Sk"})
_MOST_IN_AVATAR: Final = 32
_WORD: Final = re.compile(r"\S{1,40}")


def check_profile(profile: dict[str, Any]) -> None:
    """Refuse a profile whose known keys hold something else than they are for.

    Raises:
        Invalid: ``bad_profile``.
    """
    for key, (is_fine, says) in _KEYS.items():
        if key in profile and not is_fine(profile[key]):
            raise Invalid(
                f"In a profile {key} is {says}.", "Correct it, or leave it out.", code="bad_profile"
            )


def _is_avatar(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if value.startswith("https:"):
        return len(value) <= MAX_AVATAR_URL and value.isprintable() and _is_https(value)
    # An emoji's joiners are no printable characters by themselves.
    shown = "".join(one for one in value if unicodedata.category(one) != "Cf")
    return shown.isprintable() and len(value) <= _MOST_IN_AVATAR and 0 < _width(value) <= MAX_AVATAR


def _width(text: str) -> int:
    return sum(unicodedata.category(one) not in _JOINERS for one in text)


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc


def _is_text(most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and len(value) <= most


def _are_words(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    words = cast("list[Any]", value)
    return len(words) <= MAX_CAPABILITIES and all(
        isinstance(one, str) and _WORD.fullmatch(one) for one in words
    )


_KEYS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "avatar": (
        _is_avatar,
        f"an emoji, up to {MAX_AVATAR} characters, or an https URL of up to {MAX_AVATAR_URL}",
    ),
    "title": (_is_text(MAX_TITLE), f"a text of up to {MAX_TITLE} characters"),
    "bio": (_is_text(MAX_BIO), f"a text of up to {MAX_BIO} characters"),
    "capabilities": (
        _are_words,
        f"a list of up to {MAX_CAPABILITIES} words of up to 40 characters each",
    ),
}
