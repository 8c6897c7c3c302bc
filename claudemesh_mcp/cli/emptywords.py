"""Refuses options whose value is empty, as that of a script's variable that was never set.

``cli/__init__.py`` asks before any command begins. An option that is left out means the widest
there is – for good, everybody, this home's own – and an empty one must not come to mean the same.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from claudemesh_wire.errors import Invalid

# Behind this, words are another program's.
_END: Final = "--"
# There, an empty text takes a part away.
_MEANT: Final = ("profile", "set")


def refuse(words: Sequence[str]) -> None:
    """Refuse words of which one is the empty value of an option.

    Args:
        words: Those behind ``claudemesh``.

    Raises:
        Invalid: ``empty_value``.
    """
    own = list(words[: words.index(_END)] if _END in words else words)
    if _MEANT in pairwise(own):
        return
    for word, following in pairwise([*own, _END]):
        option, equals, value = word.partition("=")
        if option.startswith("-") and not value and (equals or following == ""):
            raise Invalid(
                f"{option} is given an empty value.",
                "Give it a value, or leave it out.",
                code="empty_value",
            )
