"""Say which name was probably meant; whoever refuses an unknown name asks here.

Many of the names are strangers' words: one that says something else than it shows is never named.
"""

from collections.abc import Iterable
from typing import Final

from claudemesh_mcp.cleaning import clean_line

_AT_MOST: Final = 3
_LONGEST: Final = 64
_MOST_NAMED: Final = 30


def quoted(name: str) -> str:
    """Give an unknown name as a sentence can hold it, however long it came."""
    return repr(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…")


def is_plain(name: str) -> bool:
    """Tell whether a name is what it looks like: on one line, and nothing in it unseen."""
    return bool(name) and clean_line(name).text == name


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Give the names nearest to `name`, the nearest first."""
    import difflib

    # Comparing takes long with a name of megabytes, and such a name is near to none.
    if len(name) > _LONGEST:
        return []
    known = sorted(one for one in names if len(one) <= _LONGEST and is_plain(one))
    return difflib.get_close_matches(name, known, n=_AT_MOST)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Give one sentence with the names nearest to `name`, or with all there are."""
    known = sorted(one for one in names if is_plain(one))
    if near := nearest(name, known):
        return f"Did you mean {' or '.join(near)}?"
    if not known:
        return "There are none."
    left = len(known) - _MOST_NAMED
    rest = f" and {left} more" if left > 0 else ""
    return f"There are: {', '.join(known[:_MOST_NAMED])}{rest}."
