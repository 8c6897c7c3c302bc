"""Say which name was probably meant; whoever refuses an unknown name asks here."""

from collections.abc import Iterable
from typing import Final

_AT_MOST: Final = 3
_LONGEST: Final = 64


def quoted(name: str) -> str:
    """Give an unknown name as a sentence can hold it, however long it came."""
    return repr(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Give one sentence with the names nearest to `name`, or with all there are."""
    import difflib

    known = sorted(names)
    # Comparing takes long with a name of megabytes, and such a name is near to none.
    near = difflib.get_close_matches(name, known, n=_AT_MOST) if len(name) <= _LONGEST else []
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"There are: {', '.join(known)}." if known else "There are none."
