"""Messages to bob, taken into his inbox as ``receiving.py`` would."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from claudemesh_mcp import inbox, openrows, reports
from claudemesh_mcp.inbox import Checks, Ruling, Sender, Taken
from claudemesh_wire.content import ContentFields, pack
from claudemesh_wire.envelope import Copy, Opened, Reader, Refusal, Sealed
from claudemesh_wire.keys import make_id
from claudemesh_wire.receipts import ReceiptItem
from tests.wire.world import ADAS, BOBS, CLEOS, NOW, Device, letter, reading, seed

SENDERS = (ADAS, CLEOS)
SHOWN = Ruling()


def message_id(label: object) -> str:
    """Give the id of the message of a label."""
    return make_id("msg_", seed(f"message {label}"))


def sealed(label: object = 1, text: str = "hello", sender: Device = ADAS, **changes: Any) -> Sealed:
    """A message to bob; the label names it."""
    fields = changes.pop("fields", ContentFields())
    plaintext = changes.pop("plaintext", None) or pack(fields, text)
    said = {"id": message_id(label), "seq": label if isinstance(label, int) else 1}
    return letter(sender, [BOBS], plaintext, **{**said, **changes})


def proved(opened: Opened) -> Sender:
    """Say who an opened message is proved to be from."""
    said = opened.certificate.fields
    return Sender(opened.certificate.hash, said.handle, said.member, said.handle.title(), e2e=True)


def take(
    sql: sqlite3.Connection,
    what: Sealed | Copy,
    now_ms: int = NOW,
    prove: Callable[[Opened], Sender] = proved,
    ruling: Ruling | Refusal = SHOWN,
    **changes: Any,
) -> Taken:
    """Take a message in as bob, who knows his senders' certificates."""

    def reader(seen_before: Callable[[str, str], bool]) -> Reader:
        known = reading(BOBS, *(one.certificate() for one in SENDERS))
        return replace(known, now_ms=now_ms, seen_before=seen_before, **changes)

    def judge(_sender: Sender, _priority: str) -> Ruling:
        if isinstance(ruling, Refusal):
            raise ruling
        return ruling

    copy = what.copy_for(0) if isinstance(what, Sealed) else what
    return inbox.take_in(sql, copy, Checks(reader, prove, judge), now_ms)


def code(taken: Taken) -> str:
    """Give the code with which a message was not taken in."""
    assert taken.refusal is not None
    assert not taken.fresh
    return taken.refusal.code


def rows(sql: sqlite3.Connection) -> list[sqlite3.Row]:
    """Give all rows of the inbox."""
    return sql.execute("SELECT * FROM inbox ORDER BY row").fetchall()


def due(sql: sqlite3.Connection) -> list[ReceiptItem]:
    """Give the receipts that are due."""
    return [item for group in reports.due(sql).values() for _, item in group]


def told(sql: sqlite3.Connection) -> list[tuple[str, str]]:
    """Give status and reason of the receipts that are due."""
    return [(item.status.value, item.reason) for item in due(sql)]


def report_all(sql: sqlite3.Connection) -> None:
    """Report what is due, as far as one signature reaches."""
    for group in reports.due(sql).values():
        reports.reported(sql, [row for row, _ in group])


def hand(
    sql: sqlite3.Connection, limit: int = 20, holder: str = "a:1", now: int = NOW
) -> list[int]:
    """Hand rows out; gives their numbers."""
    return [row["seq"] for row in openrows.hand_out(sql, limit, None, holder, now)]


def unread(sql: sqlite3.Connection, now: int = NOW, thread: str | None = None) -> int:
    """Count the messages that could be handed out."""
    return sum(openrows.count_open(sql, now, thread).values())
