"""Who is meant by an address: the peers it stands for now, and the conversation they have.

``features/messages.py`` asks, inside one query. An address that stands for nobody refuses the whole
list, so that nothing is ever sent to a part of those who were meant.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from claudemesh_broker.peers import is_here
from claudemesh_broker.roster import check_expiry
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.address import Address, AddressKind, direct_conversation
from claudemesh_wire.envelope import MAX_RECIPIENTS
from claudemesh_wire.errors import (
    Conflict,
    Forbidden,
    Invalid,
    MeshError,
    NotFound,
    TooMuch,
    Unavailable,
)
from claudemesh_wire.membership import Chain, Custody
from claudemesh_wire.messages import Recipient

MAX_READ: Final = 2048
MAX_CANDIDATES: Final = 10
_PEERS: Final = (
    "SELECT p.peer, p.handle, p.member, p.attached, p.lease_until_ms, p.last_seen_ms, p.host,"
    " p.cwd, p.summary, p.visible, p.share_cwd, c.blob AS certificate FROM peers AS p"
    " LEFT JOIN certificates AS c ON c.hash = p.certificate_hash WHERE p.mesh = ?"
)
# What goes to many goes to no peer that hides, that another succeeded, that is archived, or that
# runs for one prompt only.
_MANY: Final = (
    f"{_PEERS} AND c.hash IS NOT NULL AND p.visible = 1 AND p.archived_ms IS NULL"
    " AND p.multicast = 1"
    " AND (p.successor IS NULL OR p.returned = 1)"
)


@dataclass(frozen=True)
class Asker:
    """Who wants to write, in which mesh, and when.

    Args:
        since_ms: Whoever was seen since then is reached by what goes to many.
    """

    chain: Chain
    peer: str
    member: str
    now_ms: int
    since_ms: int


@dataclass(frozen=True)
class Audience:
    """Whom a list of addresses stands for, each peer once."""

    recipients: list[Recipient]
    conversation: str


def resolve(sql: Sql, asker: Asker, addresses: Iterable[Address]) -> Audience:
    """Say who is meant.

    Raises:
        NotFound: nobody has this handle or id, the group is empty, or nobody else is here.
        Conflict: ``ambiguous``: an id's beginning fits several; ``details.candidates`` lists them.
        Forbidden: ``blocked`` by the one that is meant, ``member_removed``, ``member_expired``.
        Unavailable: ``not_certified``: the one that is meant has not finished connecting.
        Invalid: ``self``: oneself; ``unsupported``: a topic.
        TooMuch: ``too_many_recipients``.
    """
    wanted = list(dict.fromkeys(addresses))
    blocking = _blocking(sql, asker)
    found: dict[str, Row] = {}
    for address in wanted:
        for row in _FINDERS[address.kind](sql, asker, address, blocking):
            found[row["peer"]] = row
    if len(found) > MAX_RECIPIENTS:
        raise TooMuch(
            f"These addresses stand for {len(found)} peers; a message reaches {MAX_RECIPIENTS}.",
            "Write to fewer at once.",
            code="too_many_recipients",
        )
    recipients = [_recipient(row, asker.now_ms) for row in found.values()]
    if len(wanted) == 1 and wanted[0].is_multicast:
        return Audience(recipients, str(wanted[0]))
    return Audience(recipients, direct_conversation([asker.peer, *found]))


def _blocking(sql: Sql, asker: Asker) -> frozenset[str]:
    """Give the members that want to hear nothing from the asker's."""
    rows = sql.all(
        "SELECT owner FROM blocks WHERE mesh = ? AND blocked = ?", asker.chain.mesh, asker.member
    )
    return frozenset(row["owner"] for row in rows)


def _recipient(row: Row, now_ms: int) -> Recipient:
    return Recipient(
        peer=row["peer"],
        handle=row["handle"] or "",
        member=row["member"],
        certificate=row["certificate"],
        # Whoever knows the id of a hidden peer reaches it, and is not told whether it is here.
        online=bool(row["visible"]) and is_here(row, now_ms),
    )


def _everybody(sql: Sql, asker: Asker, _: Address, blocking: frozenset[str]) -> list[Row]:
    rows = sql.all(f"{_MANY} LIMIT ?", asker.chain.mesh, MAX_READ)
    reached = [row for row in rows if _is_reached(row, asker, blocking)]
    if not reached:
        raise NotFound(
            "Nobody else is in this mesh now.",
            "Start another session, or invite somebody.",
        )
    return reached


def _group(sql: Sql, asker: Asker, address: Address, blocking: frozenset[str]) -> list[Row]:
    rows = sql.all(
        f"{_MANY} AND p.peer IN"  # noqa: S608 - a constant
        " (SELECT peer FROM groups WHERE mesh = ? AND name = ?) LIMIT ?",
        asker.chain.mesh,
        asker.chain.mesh,
        address.name,
        MAX_READ,
    )
    reached = [row for row in rows if _is_reached(row, asker, blocking)]
    if not reached:
        raise NotFound(
            f"Nobody else is in {address} now.",
            "search_peers shows who is in which group.",
        )
    return reached


def _is_reached(row: Row, asker: Asker, blocking: frozenset[str]) -> bool:
    """Tell whether what goes to many goes to this peer."""
    member = asker.chain.members.get(row["member"])
    return (
        row["peer"] != asker.peer
        and member is not None
        and member.is_good(asker.now_ms)
        # Somebody else holds their keys: they are in no multicast until an admin puts them there.
        and member.custody is Custody.SELF
        and row["member"] not in blocking
        and (is_here(row, asker.now_ms) or row["last_seen_ms"] >= asker.since_ms)
    )


def _by_handle(sql: Sql, asker: Asker, address: Address, blocking: frozenset[str]) -> list[Row]:
    row = sql.one(f"{_PEERS} AND p.handle = ?", asker.chain.mesh, address.name)
    if row is None or not (row["visible"] or row["peer"] == asker.peer):
        raise _unknown(sql, asker, address)
    if address.member:
        member = asker.chain.members.get(row["member"])
        if address.member not in {row["member"], member.name if member else None}:
            raise NotFound(
                f"{address.name} is not a peer of {address.member}.",
                f"It belongs to {member.name if member else row['member']}.",
            )
    return [_allowed(row, asker, blocking)]


def _by_id(sql: Sql, asker: Asker, address: Address, blocking: frozenset[str]) -> list[Row]:
    # The brace follows the last letter of ids: the range is that of this beginning.
    rows = sql.all(
        f"{_PEERS} AND p.peer >= ? AND p.peer < ? AND (p.visible = 1 OR p.peer = ?) LIMIT ?",
        asker.chain.mesh,
        address.name,
        f"{address.name}{{",
        # The whole id is what a hidden peer is reached by.
        address.name,
        MAX_CANDIDATES,
    )
    if not rows:
        raise _unknown(sql, asker, address)
    if len(rows) > 1:
        raise Conflict(
            f"{len(rows)} peers have ids that begin with {address.name}.",
            "Write more of the id, or a handle.",
            code="ambiguous",
            details={"candidates": [_candidate(row, asker) for row in rows]},
        )
    return [_allowed(rows[0], asker, blocking)]


def _topic(_sql: Sql, _asker: Asker, address: Address, _: frozenset[str]) -> list[Row]:
    raise Invalid(
        f"{address} is a topic; this broker has none yet.", "Write to a group.", code="unsupported"
    )


def _allowed(row: Row, asker: Asker, blocking: frozenset[str]) -> Row:
    """Give the row of the one that is meant, if it may be written to."""
    name = row["handle"] or row["peer"]
    member = asker.chain.members.get(row["member"])
    if row["peer"] == asker.peer:
        raise Invalid(f"{name} is this session itself.", "Write to others.")
    if member is None or member.removed:
        raise Forbidden(
            f"The member behind {name} was removed.",
            "search_peers shows who is here; an admin can take it back: claudemesh unban NAME",
            code="member_removed",
        )
    check_expiry(member, asker.now_ms)
    if row["member"] in blocking:
        raise Forbidden(
            f"{member.name} takes no messages from this member.",
            "Only that member can change this.",
            code="blocked",
        )
    if row["certificate"] is None:
        raise Unavailable(
            f"{name} has published no keys yet.",
            "It does so when it connects; try again then.",
            code="not_certified",
            retry_after_s=2.0,
        )
    return row


def _unknown(sql: Sql, asker: Asker, address: Address) -> MeshError:
    rows = sql.all(
        "SELECT handle FROM peers WHERE mesh = ? AND handle IS NOT NULL AND visible = 1 LIMIT ?",
        asker.chain.mesh,
        MAX_READ,
    )
    near = get_close_matches(address.name, [row["handle"] for row in rows], n=3)
    meant = f"Did you mean {' or '.join(near)}?" if near else "search_peers shows who is here."
    return NotFound(f"Nobody in this mesh is called {address}.", meant)


def _candidate(row: Row, asker: Asker) -> dict[str, Any]:
    member = asker.chain.members.get(row["member"])
    shown = {name: row[name] or "" for name in ("peer", "handle", "host", "cwd", "summary")}
    if row["member"] != asker.member and not row["share_cwd"]:
        shown["cwd"] = ""
    return {**shown, "member": member.name if member else row["member"]}


_Finder = Callable[[Sql, Asker, Address, frozenset[str]], list[Row]]
_FINDERS: Final[dict[AddressKind, _Finder]] = {
    AddressKind.HANDLE: _by_handle,
    AddressKind.MEMBER_HANDLE: _by_handle,
    AddressKind.PEER_ID: _by_id,
    AddressKind.GROUP: _group,
    AddressKind.TOPIC: _topic,
    AddressKind.EVERYBODY: _everybody,
}
