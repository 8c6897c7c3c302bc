"""Builds the answer of ``history``: from rows of the peer file to excerpts around what was found.

``sdk.py`` calls it; ``history.py`` has found the rows.
"""

import re
import sqlite3
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

from claudemesh_mcp import history, outbox
from claudemesh_mcp.cleaning import clean, clean_line
from claudemesh_mcp.history import Hit, Wanted
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.results import NOTICE, HistoryMessage, HistoryResult, rfc3339
from claudemesh_mcp.shown_messages import sent
from claudemesh_mcp.textindex import RECEIVED, UNSPACED, Term, sent_text

EXCERPT: Final = 500
MOST_PARTNERS: Final = 10
_BEFORE: Final = 120
_CUT: Final = "…"
# The signs above and below letters, which a search overlooks.
_MARKS: Final = "[\u0300-\u036f]*"


async def searched(peer: Peer, what: Wanted) -> HistoryResult:
    """Find messages and show them.

    Raises:
        MeshError: as ``history.find``.
    """
    found = await history.find(peer.file, what)
    messages = [
        _received(hit, what.terms) if hit.source is RECEIVED else _sent(peer, hit, what.terms)
        for hit in found.hits
    ]
    return HistoryResult(
        notice=NOTICE if any(one.direction == "received" for one in messages) else None,
        messages=messages,
        unread=found.unread,
        more=found.more,
        next_before=str(found.hits[-1].place) if found.more else None,
    )


def _received(hit: Hit, terms: Sequence[Term]) -> HistoryMessage:
    row = hit.row
    told = {"peer": row["sender"], "handle": row["handle"], "member": row["member_name"]}
    # A direct conversation has a name that says nothing to anybody.
    to = None if row["conv"].startswith("d_") else [row["conv"]]
    more = {"direction": "received", "with": [told], "to": to, "withheld": row["withheld"]}
    return _shown(hit, terms, row["text"], more)


def _sent(peer: Peer, hit: Hit, terms: Sequence[Term]) -> HistoryMessage:
    row = outbox.read_row(hit.row)
    refused = None if row.answer is None or row.state != "refused" else "refused"
    told = [
        {
            "peer": one.peer,
            "handle": one.handle,
            "member": one.member,
            "status": refused or one.status,
        }
        for one in sent(peer, row).recipients
    ]
    more = {
        "direction": "sent",
        "with": told[:MOST_PARTNERS],
        "others": max(0, len(told) - MOST_PARTNERS) or None,
        "to": list(row.draft.addresses[:MOST_PARTNERS]),
    }
    return _shown(hit, terms, clean(sent_text(row.draft.plaintext)).text, more)


def _shown(hit: Hit, terms: Sequence[Term], text: str, more: dict[str, Any]) -> HistoryMessage:
    row: sqlite3.Row = hit.row
    part = excerpt(text, terms)
    return HistoryMessage.model_validate(
        {
            "id": row["id"],
            "at": rfc3339(hit.place.at_ms),
            "text": part,
            "cut": True if part is not text else None,
            "thread": clean_line(row["thread"]).text if row["thread"] else None,
            "reply_to": row["re"],
            **more,
        }
    )


def excerpt(text: str, terms: Sequence[Term]) -> str:
    """Give the text, or of a long one the part around the first word that was searched for."""
    if len(text) <= EXCERPT:
        return text
    # Letter and sign apart, as the index knows them; a search finds one without the other.
    apart = text if text.isascii() else unicodedata.normalize("NFD", text)
    places = [found.start() for term in terms if (found := _pattern(term).search(apart))]
    start = max(0, min(places, default=0) - _BEFORE)
    room = EXCERPT - 2 * len(_CUT)
    part = unicodedata.normalize("NFC", apart[start : start + room])
    return f"{_CUT if start else ''}{part}{_CUT if start + room < len(apart) else ''}"


def _pattern(term: Term) -> re.Pattern[str]:
    """Find a term as the index does: whatever stands between its words and above its letters."""
    apart = unicodedata.normalize("NFD", term.text)
    words = re.findall(r"[^\W_]+", re.sub(_MARKS, "", apart))
    written = ("".join(re.escape(letter) + _MARKS for letter in word) for word in words)
    if UNSPACED.search(term.text):
        return re.compile(r"[\W_]*".join(written), re.IGNORECASE)
    return re.compile(r"(?<![^\W_])" + r"[\W_]+".join(written), re.IGNORECASE)
