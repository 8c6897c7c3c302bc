"""The durable outbox: what was sealed, in order, until the broker has answered for it.

``sending.py`` composes into it and sends from it. Every function here is one change of a
``PeerFile``: sequence number, sealing and the row are one transaction, and a row is sent byte for
byte as it stands until an answer is recorded, whatever dies in between.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from claudemesh_mcp.textindex import MOST_AT_ONCE, SENT, forget
from claudemesh_wire.content import pack, unpack
from claudemesh_wire.envelope import Sealed
from claudemesh_wire.errors import Conflict, NotFound
from claudemesh_wire.keys import make_id, pae
from claudemesh_wire.messages import Accepted

MAX_SEALINGS: Final = 4
KEPT_MS: Final = 30 * 24 * 3600 * 1000
_MOST_NAMED: Final = 10


@dataclass(frozen=True)
class Audience:
    """One recipient as it was resolved; ``e2e``: it and the sender hold their own keys."""

    peer: str
    handle: str
    member: str
    e2e: bool


@dataclass(frozen=True)
class Draft:
    """A message before it is sealed.

    Args:
        id: The message's id, which stays through every sealing.
        conv: The conversation the resolve named.
        request_hash: SHA-256 of what was asked for, to tell a repeat from a clash.
        addresses: As the user wrote them, for a later resolve.
        audience: Whom they stood for.
        plaintext: The content, kept for 30 days; it is what ``history`` shows.
        resolved_ms: When the broker fixed the audience, by its clock.
        ttl_ms: How long the message may wait.
        re: The message it answers.
        thread: What keeps an exchange together.
    """

    id: str
    conv: str
    request_hash: bytes
    addresses: tuple[str, ...]
    audience: tuple[Audience, ...]
    plaintext: bytes
    resolved_ms: int
    ttl_ms: int
    re: str | None = None
    thread: str | None = None

    @property
    def is_e2e(self) -> bool:
        """Whether nobody but the sender and its recipients holds a key that opens it."""
        return all(one.e2e for one in self.audience)

    def sealed_text(self) -> bytes:
        """Give what is sealed: to several recipients with the word that all hold their own keys."""
        if len(self.audience) == 1 or not self.is_e2e:
            return self.plaintext
        fields, text = unpack(self.plaintext)
        return pack(fields.model_copy(update={"e2e": True}), text)


@dataclass(frozen=True)
class Row:
    """A row of the outbox: the draft, its place in the conversation, and where it stands."""

    draft: Draft
    seq: int
    sealed: bytes
    header_hash: bytes
    created_ms: int
    sealings: int
    state: str
    answer: dict[str, Any] | None

    @property
    def expires_ms(self) -> int:
        """When it must not be delivered any more, however often it is sealed."""
        return self.created_ms + self.draft.ttl_ms

    @property
    def is_waiting(self) -> bool:
        """Whether the broker has not answered for it yet."""
        return self.state == "waiting"

    def accepted(self) -> Accepted | None:
        """Give the broker's answer, if it took the message."""
        return Accepted.model_validate(self.answer) if self.state == "accepted" else None


Seal = Callable[[Draft, int], Sealed]


def message_id(peer: str, sixteen: bytes, idempotency_key: str | None) -> str:
    """Give a message's id: random, or the same for the same key of the same peer."""
    if idempotency_key is None:
        return make_id("msg_", sixteen)
    digest = hashlib.sha256(pae("claudemesh/idempotency/v1", peer, idempotency_key)).digest()
    return make_id("msg_", digest)


def request_hash(addresses: tuple[str, ...], plaintext: bytes, re: str | None) -> bytes:
    """Sum up what a send asks for."""
    return hashlib.sha256(pae(json.dumps(addresses), plaintext, re or "")).digest()


def compose(sql: sqlite3.Connection, draft: Draft, seal: Seal, now_ms: int) -> Row:
    """Number, seal and keep a message; a repeat of the same request gives the first row.

    Raises:
        Conflict: ``idempotency_conflict``: the id was used for something else.
    """
    seq = _next_seq(sql, draft.conv)
    sealed = seal(draft, seq)
    blob = sealed.to_bytes()
    # Asked for beforehand, a repeat would cost every message a query: it is rare.
    made = sql.execute(
        "INSERT OR IGNORE INTO outbox (id, conv, seq, request_hash, addresses, plaintext, sealed,"
        " header_hash, audience, resolved_ms, re, ttl_ms, created_ms, sealings, thread)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?)",
        (
            draft.id,
            draft.conv,
            seq,
            draft.request_hash,
            json.dumps(draft.addresses),
            draft.plaintext,
            blob,
            sealed.header_hash,
            _audience_text(draft.audience),
            draft.resolved_ms,
            draft.re,
            draft.ttl_ms,
            now_ms,
            draft.thread,
        ),
    )
    if made.rowcount == 0:
        sql.execute("UPDATE outbox_seq SET last = last - 1 WHERE conv = ?", (draft.conv,))
        return _repeated(sql, draft)
    return Row(draft, seq, blob, sealed.header_hash, now_ms, 1, "waiting", None)


def _repeated(sql: sqlite3.Connection, draft: Draft) -> Row:
    """Give the row that a message of this id has, if it asked for the same."""
    kept = get(sql, draft.id)
    if kept.draft.request_hash != draft.request_hash:
        raise Conflict(
            "This idempotency_key was used for another message.",
            "Use a new key for a new message.",
            code="idempotency_conflict",
        )
    return kept


def seal_again(sql: sqlite3.Connection, draft: Draft, seal: Seal, refused_hash: bytes) -> Row:
    """Replace a sealing that the broker refused and did not store; the id stays.

    Only such a refusal permits it: a row of unknown fate is sent again as it is.

    Args:
        sql: The peer file.
        draft: The message, for the audience of now.
        seal: Seals it.
        refused_hash: The header hash of what was refused. When another process of this peer has
            sealed anew, or had its answer, meanwhile, nothing is changed.
    """
    kept = get(sql, draft.id)
    if not kept.is_waiting or kept.header_hash != refused_hash:
        return kept
    same = kept.draft.conv == draft.conv
    seq = kept.seq if same else _next_seq(sql, draft.conv)
    sealed = seal(draft, seq)
    sql.execute(
        "UPDATE outbox SET conv = ?, seq = ?, sealed = ?, header_hash = ?, audience = ?,"
        " resolved_ms = ?, sealings = sealings + 1 WHERE id = ? AND state = 'waiting'",
        (
            draft.conv,
            seq,
            sealed.to_bytes(),
            sealed.header_hash,
            _audience_text(draft.audience),
            draft.resolved_ms,
            draft.id,
        ),
    )
    return get(sql, draft.id)


def next_waiting(sql: sqlite3.Connection, conv: str) -> Row | None:
    """Give the oldest unanswered message of a conversation."""
    found = sql.execute(
        "SELECT * FROM outbox WHERE conv = ? AND state = 'waiting' ORDER BY seq LIMIT 1", (conv,)
    ).fetchone()
    return read_row(found) if found else None


def is_next(sql: sqlite3.Connection, row: Row) -> bool:
    """Tell whether a message waits, and nothing before it in its conversation does."""
    (first,) = sql.execute(
        "SELECT min(seq) FROM outbox WHERE conv = ? AND state = 'waiting'", (row.draft.conv,)
    ).fetchone()
    return first == row.seq


def waiting_conversations(sql: sqlite3.Connection) -> list[str]:
    """Name the conversations that have unanswered messages."""
    found = sql.execute("SELECT DISTINCT conv FROM outbox WHERE state = 'waiting'")
    return [conv for (conv,) in found]


def count_waiting(sql: sqlite3.Connection) -> int:
    """Count the unanswered messages."""
    (count,) = sql.execute("SELECT count(*) FROM outbox WHERE state = 'waiting'").fetchone()
    return int(count)


def answered(sql: sqlite3.Connection, row: Row, accepted: Accepted) -> Row:
    """Record that the broker has the message on disk; its envelope is not needed any more.

    Returns:
        The row as it stands now; another process of this peer may have settled it before.
    """
    settled = accepted_row(row, accepted)
    changed = sql.execute(
        "UPDATE outbox SET state = 'accepted', answer = ?, sealed = NULL"
        " WHERE id = ? AND state = 'waiting'",
        (json.dumps(settled.answer), row.draft.id),
    )
    return settled if changed.rowcount == 1 else get(sql, row.draft.id)


def accepted_row(row: Row, accepted: Accepted) -> Row:
    """Give a row as it is once the broker has the message on disk."""
    return replace(row, sealed=b"", state="accepted", answer=accepted.model_dump(mode="json"))


def refused(
    sql: sqlite3.Connection, message: str, refused_hash: bytes, error: dict[str, Any]
) -> None:
    """Record that the broker will never take the message, and why.

    Args:
        sql: The peer file.
        message: Its id.
        refused_hash: The header hash of the sealing that was refused; one that another process of
            this peer made meanwhile is not meant.
        error: What to tell whoever asks.
    """
    sql.execute(
        "UPDATE outbox SET state = 'refused', answer = ?, sealed = NULL"
        " WHERE id = ? AND state = 'waiting' AND header_hash = ?",
        (json.dumps(error), message, refused_hash),
    )


def forget_old(sql: sqlite3.Connection, now_ms: int) -> bool:
    """Remove what was answered and is older than 30 days.

    Returns:
        Whether there may be more: a long absence is made up for in several changes.
    """
    gone = sql.execute(
        "DELETE FROM outbox WHERE row IN (SELECT row FROM outbox WHERE state <> 'waiting'"
        " AND created_ms < ? LIMIT ?) RETURNING row, plaintext AS text",
        (now_ms - KEPT_MS, MOST_AT_ONCE),
    ).fetchall()
    forget(sql, SENT, gone)
    return len(gone) == MOST_AT_ONCE


def find(sql: sqlite3.Connection, message: str) -> Row | None:
    """Give a message of one's own, if there is one of this id."""
    found = sql.execute("SELECT * FROM outbox WHERE id = ?", (message,)).fetchone()
    return read_row(found) if found else None


def get(sql: sqlite3.Connection, message: str) -> Row:
    """Give a message of one's own.

    Raises:
        NotFound: this session sent no such message.
    """
    row = find(sql, message)
    if row is None:
        raise NotFound(
            f"This session sent no message {message[:60]!a}.",
            "Only the sender can ask for a message's receipts; take the id that send gave.",
        )
    return row


def check_earlier(
    sql: sqlite3.Connection, message: str, conv: str, addresses: tuple[str, ...]
) -> None:
    """See that a message can be superseded by one to the same readers.

    Args:
        sql: The peer file.
        message: The earlier one.
        conv: The conversation of the later one.
        addresses: To whom that goes, as the user wrote them.

    Raises:
        NotFound: this session sent no such message in the last 30 days.
        Conflict: ``other_audience``: it went to others, who would not hear of the later one;
            ``was_refused``: the broker took it from nobody's hands.
    """
    earlier = find(sql, message)
    if earlier is None:
        raise NotFound(
            f"This session sent no message {message} in the last 30 days.",
            "supersedes takes an id that send gave in this session; else leave it out.",
        )
    if earlier.state == "refused":
        raise Conflict(
            f"The message {message} was refused: nobody has it.",
            "Send this one without supersedes.",
            code="was_refused",
        )
    # Written alike it is meant alike: who began anew since is another peer under that name.
    if earlier.draft.conv != conv and set(earlier.draft.addresses) != set(addresses):
        named = ", ".join(earlier.draft.addresses[:_MOST_NAMED])
        raise Conflict(
            f"The message {message} went to others than this one.",
            f"Send to whom it went: {named}.",
            code="other_audience",
        )


def _next_seq(sql: sqlite3.Connection, conv: str) -> int:
    (seq,) = sql.execute(
        "INSERT INTO outbox_seq (conv, last) VALUES (?, 1)"
        " ON CONFLICT (conv) DO UPDATE SET last = last + 1 RETURNING last",
        (conv,),
    ).fetchone()
    return int(seq)


def _audience_text(audience: tuple[Audience, ...]) -> str:
    return json.dumps([[one.peer, one.handle, one.member, one.e2e] for one in audience])


def read_row(found: sqlite3.Row) -> Row:
    """Read a row as the table has it."""
    draft = Draft(
        id=found["id"],
        conv=found["conv"],
        request_hash=found["request_hash"],
        addresses=tuple(json.loads(found["addresses"])),
        audience=tuple(Audience(*one) for one in json.loads(found["audience"])),
        plaintext=found["plaintext"] or b"",
        resolved_ms=found["resolved_ms"],
        ttl_ms=found["ttl_ms"],
        re=found["re"],
        thread=found["thread"],
    )
    answer = json.loads(found["answer"]) if found["answer"] else None
    return Row(
        draft,
        found["seq"],
        found["sealed"] or b"",
        found["header_hash"],
        found["created_ms"],
        found["sealings"],
        found["state"],
        answer,
    )
