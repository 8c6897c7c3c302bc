"""What the command line prints, and how it ends.

Every command prints through here, so that no text of a peer reaches a terminal, or a model that
reads one, without having been cleaned.
"""

import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from claudemesh_mcp.cleaning import clean, clean_line, clean_value
from claudemesh_wire.errors import (
    Forbidden,
    Invalid,
    MeshError,
    NotFound,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from claudemesh_mcp.meshresults import PeerRow
    from claudemesh_mcp.results import HistoryMessage, InboxMessage, RecipientStatus, SentTo

FAILED: Final = 1
_EXIT_CODES: Final[dict[type[MeshError], int]] = {
    Invalid: 2,
    NotFound: 3,
    Unauthenticated: 4,
    Forbidden: 4,
    Unavailable: 5,
}
# Unavailable for a repeat, but nothing that was out of reach.
_HERE: Final = frozenset({"storage_full", "storage_failed"})


def prepare_streams() -> None:
    """Let no character that a console can't show end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def line(text: str, indent: int = 0) -> None:
    """Print one line of data."""
    print(" " * indent + clean_line(text).text)


def lines(text: str) -> None:
    """Print a text of several lines as data, indented as it is."""
    print(clean(text).text)


def word(text: str) -> None:
    """Say something to the person at the terminal."""
    print(clean_line(text).text, file=sys.stderr)


def data(value: "BaseModel | dict[str, Any]", *, indent: int | None = 1) -> None:
    """Print a value as JSON; in ASCII, which every console and every program can read."""
    shown = value if isinstance(value, dict) else value.model_dump(mode="json", by_alias=True)
    print(json.dumps(clean_value(shown).value, indent=indent))


def flush() -> None:
    """Hand over what was printed; only then may it count as shown.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    sys.stdout.flush()


def refusal(error: MeshError, *, as_json: bool) -> int:
    """Say why a command was not done; give its exit code."""
    if as_json:
        data({"error": error.as_dict()})
    else:
        word(f"claudemesh: {error.reason}")
        if error.hint:
            word(error.hint)
    return exit_code(error)


def exit_code(error: MeshError) -> int:
    """Give the exit code that says what kind of refusal it was."""
    if error.code in _HERE:
        return FAILED
    return next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), FAILED)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns that are as wide as they must be."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # In a pipe nothing is cut off: there is no width that it would have to fit.
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, emoji=False, width=None if terminal else 1000)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        shown.add_column(title, no_wrap=True, overflow="ellipsis")
    for row in rows:
        # As Text, because brackets in a peer's words are no markup.
        shown.add_row(*(Text(clean_line(cell).text) for cell in row))
    console.print(shown)


def message(one: "InboxMessage") -> None:
    """Print a message; its text is indented, so that it can't pass for another's head."""
    marks = [one.trust, "sealed" if one.e2e else "not sealed"]
    marks += [f"thread {one.thread}"] if one.thread else []
    marks += [f"answers {one.reply_to}"] if one.reply_to else []
    marks += [f"{one.stripped} characters removed"] if one.stripped else []
    marks += ["shown before, perhaps"] if one.redelivered else []
    marks += [f"in place of {one.supersedes}"] if one.supersedes else []
    marks += [f"not shown by itself: {one.withheld}"] if one.withheld else []
    line(f"{one.handle} ({one.member})  {one.sent_at}  {one.id}  [{', '.join(marks)}]")
    for text in clean(one.text).text.split("\n"):
        print(f"    {text}")
    if one.more_bytes:
        word(f"… {one.more_bytes} bytes more: claudemesh inbox --id {one.id}")


def history(one: "HistoryMessage") -> None:
    """Print a message that was sent or received; its text is indented, as a message's is."""
    names = [
        f"{peer.handle} ({peer.member})" + (f" {peer.status}" if peer.status else "")
        for peer in one.partners
    ]
    names += [f"{one.others} more"] if one.others else []
    arrow = "to" if one.direction == "sent" else "from"
    marks = [f"thread {one.thread}"] if one.thread else []
    marks += [f"not shown: {one.withheld}"] if one.withheld else []
    said = f"  [{', '.join(marks)}]" if marks else ""
    line(f"{one.at}  {arrow} {', '.join(names)}  {one.id}{said}")
    for text in clean(one.text).text.split("\n"):
        print(f"    {text}")


def peers(rows: "Sequence[PeerRow]") -> None:
    """Print peers in columns."""
    titles = ("handle", "member", "status", "type", "project", "groups", "last seen", "summary")
    table(titles, (_peer(row) for row in rows))


def _peer(row: "PeerRow") -> tuple[str, ...]:
    return (
        f"{row.handle} (this)" if row.is_self else row.handle,
        row.member,
        row.status,
        row.type,
        row.project,
        " ".join(f"@{group}" for group in row.groups),
        row.last_seen,
        row.summary,
    )


def recipients(rows: "Sequence[SentTo]") -> None:
    """Say what became of a message with each recipient, beside its id."""
    for one in rows:
        sealed = "sealed" if one.e2e else "not sealed"
        status = f"{one.status} ({one.reason})" if one.reason else one.status
        doubt = ", not proved" if one.proved is False else ""
        word(f"{one.handle} ({one.member}): {status}, {sealed}{doubt}")
        if one.hint:
            word(f"  {one.hint}")


def receipts(rows: "Sequence[RecipientStatus]") -> None:
    """Print how far a message has come with each recipient."""
    titles = ("recipient", "status", "accepted", "queued", "delivered", "seen", "proof")
    table(titles, (_receipt(row) for row in rows))


def _receipt(row: "RecipientStatus") -> tuple[str, ...]:
    proof = {True: "signed by the recipient", False: "not proved", None: "the broker's word"}
    status = f"{row.status} ({row.reason})" if row.reason else row.status
    times = (row.accepted_at, row.queued_at, row.delivered_at, row.seen_at)
    return (row.handle, status, *(at or "-" for at in times), proof[row.proved])
