"""What is shown when, and how much of it: the one table of the routes, and their limits.

``offers.py`` chooses rows by ``SHOWN``; ``bells.py`` wakes by the same limits.
"""

from __future__ import annotations

from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple, StrEnum

if TYPE_CHECKING:
    from typing import Final

NOW: Final = "now"
NEXT: Final = "next"
LOW: Final = "low"
ALL: Final = (NOW, NEXT, LOW)

WAKES_PER_HOUR: Final = 12
"""So many turns of a session in an hour are begun, or gone on with, by messages alone."""
TOKENS_PER_HOUR: Final = 8_000
"""So much is pushed to a session in an hour, beside what a human's prompt brings along."""
TURNS_PER_SENDER: Final = 3
"""So many such turns one peer causes until a human sends a prompt."""
CONTINUATIONS: Final = 6
"""So often one turn is gone on with; after eight the client would drop what its hook says."""
OUTPUT_CHARACTERS: Final = 9_000
"""Of more than 10,000, in units of UTF-16, the client shows the beginning only."""
BODY_CHARACTERS: Final = 2_000
"""What is longer is cut, and read on with the tool."""
CHARACTERS_PER_TOKEN: Final = 4
ANSWER_MS: Final = 10_000
"""A bell that has not come back by then has not been heard: its route is silent."""
RETRY_MS: Final = 60_000
"""A silent route is tried again after that: for a new message, or where no other is left."""
STALE_MS: Final = 600_000
"""A session that a hook called working so long ago may have been interrupted: it is waked again."""
HOUR_MS: Final = 3_600_000


class Moment(StrEnum):
    """When something can be put before the model; the words are those of receipts."""

    SESSION = "session-start"
    PROMPT = "prompt"
    BELL = "bell"
    TOOL = "tool-boundary"
    STOP = "stop"


class Shown(NamedTuple):
    """What is shown at a moment.

    Args:
        priorities: Messages of these.
        causes_turn: Whether it costs a turn that no human asked for: then only what may wake the
            session is shown, within the limits.
        is_pushed: Whether no human asked for it: it counts among the tokens of the hour.
    """

    priorities: tuple[str, ...]
    causes_turn: bool
    is_pushed: bool


SHOWN: Final[dict[Moment, Shown]] = {
    Moment.SESSION: Shown(ALL, causes_turn=False, is_pushed=False),
    Moment.PROMPT: Shown(ALL, causes_turn=False, is_pushed=False),
    # The turn is there already: what did not ring rides along.
    Moment.BELL: Shown((NOW, NEXT), causes_turn=False, is_pushed=True),
    Moment.TOOL: Shown((NOW,), causes_turn=False, is_pushed=True),
    Moment.STOP: Shown((NOW, NEXT), causes_turn=True, is_pushed=True),
}
WAKING: Final = (NOW, NEXT)
"""What wakes an idle session."""
