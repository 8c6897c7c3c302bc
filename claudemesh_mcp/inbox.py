"""The durable inbox: takes in what was opened and proved, and notes what is to be reported of it.

``receiving.py`` takes envelopes in; ``openrows.py`` hands rows to a route. Every function is one
change of a ``PeerFile``. A row with a word in ``held`` lacks that grant and is handed to nobody
until ``held.py`` releases it.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from claudemesh_mcp import reports, staleness
from claudemesh_mcp.cleaning import clean, clean_line
from claudemesh_mcp.held import DECLINED, mesh_of
from claudemesh_mcp.routes.waking import AUTO_REPLY_LIMIT
from claudemesh_mcp.textindex import MOST_AT_ONCE, RECEIVED, forget
from claudemesh_wire.content import KIND, ContentFields, unpack
from claudemesh_wire.envelope import Copy, Header, Opened, Reader, Refusal, open_copy
from claudemesh_wire.errors import Forbidden, MeshError, NotFound
from claudemesh_wire.receipts import ReceiptStatus

KEPT_MS: Final = 30 * 24 * 3600 * 1000
REPLAY_MEMORY_MS: Final = 24 * 3600 * 1000
HEIR: Final = "heir"
"""Holds, and ends, the rows that the file of another peer has; as a route, it showed nothing."""


@dataclass(frozen=True)
class Sender:
    """What was proved of a sender: its certificate's hash, handle and member.

    ``e2e`` says that it and the reader hold their own keys.
    """

    certificate: bytes
    handle: str
    member: str
    member_name: str
    e2e: bool


@dataclass(frozen=True)
class Ruling:
    """What the receiver's grants make of a message.

    Args:
        held: The capability its sender lacks, so that it is not shown.
        wakes: Whether it may wake an idle session.
    """

    held: str | None = None
    wakes: bool = True


@dataclass(frozen=True)
class Checks:
    """What a copy has to pass before it is kept.

    Args:
        reader: Makes the reader it is opened with, given the test for a known message.
        prove: Says who the sender is proved to be.
        judge: Says by the sender and the message's priority what the receiver's grants make of it.
    """

    reader: Callable[[Callable[[str, str], bool]], Reader]
    prove: Callable[[Opened], Sender]
    judge: Callable[[Sender, str], Ruling]


@dataclass(frozen=True)
class Taken:
    """What became of one copy.

    Args:
        header: ``None`` when not even that could be read.
        refusal: Why it was not taken in; ``None`` when it was, or was there already.
        missed: How many messages of this direct conversation should have come before it.
        fresh: Whether it is a new row, to be handed out.
    """

    header: Header | None
    refusal: Refusal | None = None
    missed: int = 0
    fresh: bool = False

    @property
    def is_deferred(self) -> bool:
        """Whether it stays unacknowledged, because it may be believed later."""
        return self.refusal is not None and not self.refusal.permanent


def take_in(sql: sqlite3.Connection, copy: Copy, checks: Checks, now_ms: int) -> Taken:
    """Open one copy and keep it, or note why not; either way note the receipt that is due."""
    try:
        header = copy.fields
    except Refusal as refusal:
        return Taken(None, refusal)

    def seen_before(sender: str, message: str) -> bool:
        return _find(sql, sender, message) is not None

    try:
        opened = open_copy(copy, checks.reader(seen_before))
        fields, text = _content(opened)
        sender = _proven(checks.prove, opened)
        ruling = checks.judge(sender, fields.priority)
    except Refusal as refusal:
        return _refuse(sql, copy, header, refusal, now_ms)
    cleaned = clean(text)
    thread = (clean_line(fields.thread).text or None) if fields.thread else None
    sql.execute(
        "INSERT INTO inbox (sender, id, header_hash, certificate, conv, seq, handle, member,"
        " member_name, text, stripped, priority, thread, re, via, e2e, sent_ms, received_ms,"
        " expires_ms, held, wakes, supersedes, git_sha, superseded_by)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
        # It may come behind what took its place: by another way, or once it could be believed.
        " (SELECT id FROM inbox WHERE sender = ? AND supersedes = ? LIMIT 1))",
        (
            header.sender,
            header.id,
            opened.header_hash,
            sender.certificate,
            header.conv,
            header.seq,
            sender.handle,
            sender.member,
            sender.member_name,
            cleaned.text,
            cleaned.stripped,
            fields.priority,
            thread,
            header.re,
            clean_line(header.via).text if header.via else None,
            int(sender.e2e and fields.is_e2e_for(len(header.to))),
            header.ts,
            now_ms,
            header.exp,
            ruling.held,
            int(ruling.wakes),
            fields.supersedes,
            fields.valid_if.git_sha if fields.valid_if else None,
            header.sender,
            header.id,
        ),
    )
    staleness.relate(sql, header.sender, header.id, fields.supersedes)
    status = ReceiptStatus.DELIVERED if ruling.held is None else ReceiptStatus.HELD
    reports.note(sql, header, opened.header_hash, (status, ruling.held or "", now_ms))
    return Taken(header, missed=_missed(sql, header), fresh=not ruling.held)


def _kept_as(kept: sqlite3.Row) -> tuple[ReceiptStatus, str]:
    """Give status and reason of the receipt for a message that is in the file."""
    held: str | None = kept["held"]
    if kept["route"] == DECLINED:
        return ReceiptStatus.DECLINED, held or ""
    if kept["withheld"]:
        return ReceiptStatus.WITHHELD, kept["withheld"]
    return (ReceiptStatus.HELD, held) if held else (ReceiptStatus.DELIVERED, "")


def _content(opened: Opened) -> tuple[ContentFields, str]:
    if opened.header.kind != KIND:
        raise Refusal(
            "The envelope is of an unknown kind.", "Update this side.", code="unsupported_kind"
        )
    return unpack(opened.plaintext)


def _proven(prove: Callable[[Opened], Sender], opened: Opened) -> Sender:
    try:
        return prove(opened)
    except MeshError as error:
        # The log grew after the certificate was looked up: its member is none any more.
        raise Refusal(error.reason, error.hint, code="revoked") from error


def _refuse(
    sql: sqlite3.Connection, copy: Copy, header: Header, refusal: Refusal, now_ms: int
) -> Taken:
    """Decline for good, or leave unacknowledged what may still succeed."""
    kept = _find(sql, header.sender, header.id)
    if kept is not None and kept["header_hash"] == copy.header_hash:
        # Taken in before, and the ack was lost on its way: say it again, whatever would speak
        # against the message now, as that it has expired meanwhile.
        reports.note(sql, header, copy.header_hash, (*_kept_as(kept), now_ms))
        return Taken(header)
    if refusal.permanent:
        reports.note(sql, header, copy.header_hash, (ReceiptStatus.DECLINED, refusal.code, now_ms))
    return Taken(header, refusal)


def _missed(sql: sqlite3.Connection, header: Header) -> int:
    """Count the gap before a message in a direct conversation, whose readers do not change."""
    if not header.conv.startswith("d_"):
        return 0
    found = sql.execute(
        "SELECT highest FROM inbox_seq WHERE sender = ? AND conv = ?", (header.sender, header.conv)
    ).fetchone()
    sql.execute(
        "INSERT INTO inbox_seq (sender, conv, highest) VALUES (?, ?, ?) ON CONFLICT (sender, conv)"
        " DO UPDATE SET highest = max(highest, excluded.highest)",
        (header.sender, header.conv, header.seq),
    )
    return max(0, header.seq - (found["highest"] if found else 0) - 1)


def find_message(sql: sqlite3.Connection, message: str) -> sqlite3.Row:
    """Give a received message by its id.

    Raises:
        NotFound: there is none; it may have been removed after 30 days.
        Forbidden: ``held``: its sender lacks a grant.
    """
    found = sql.execute(
        # The first that came: a later sender can't put a text under the id of another's.
        "SELECT * FROM inbox WHERE id = ? AND route IS NOT ? ORDER BY row LIMIT 1",
        (message, DECLINED),
    ).fetchone()
    if found is None:
        raise NotFound(
            f"There is no received message {message[:60]!a}.",
            "Take an id that inbox showed; messages are kept for 30 days.",
        )
    if found["held"] == AUTO_REPLY_LIMIT:
        raise Forbidden(
            "The message is held: its sender caused too many turns without a prompt of the user.",
            "It is shown with the user's next prompt.",
            code="held",
        )
    if found["held"]:
        raise Forbidden(
            f"The message is held: {found['member_name']} was not granted {found['held']}.",
            "This session's user can let it through:"
            f" claudemesh --mesh {mesh_of(sql)} allow {found['id']}",
            code="held",
        )
    return found


def forget_old(sql: sqlite3.Connection, now_ms: int) -> bool:
    """Remove what was seen, is older than 30 days and can't be replayed any more.

    Returns:
        Whether there may be more: a long absence is made up for in several changes.
    """
    gone = sql.execute(
        "DELETE FROM inbox WHERE row IN (SELECT row FROM inbox WHERE received_ms < ?"
        " AND expires_ms < ? AND state = 'seen' LIMIT ?) RETURNING row, text",
        (now_ms - KEPT_MS, now_ms - REPLAY_MEMORY_MS, MOST_AT_ONCE),
    ).fetchall()
    forget(sql, RECEIVED, gone)
    return len(gone) == MOST_AT_ONCE


def _find(sql: sqlite3.Connection, sender: str, message: str) -> sqlite3.Row | None:
    return sql.execute(
        "SELECT row, header_hash, held, route, withheld FROM inbox WHERE sender = ? AND id = ?",
        (sender, message),
    ).fetchone()
