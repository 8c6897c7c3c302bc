"""Grants: keeps what members signed for one another, and whom they block.

``service.py`` calls it. ``features/messages.py`` goes by both tables when it accepts a message;
what a receiver's own session makes of its own copy is no matter of the broker.
"""

from collections.abc import Iterable
from typing import Final

from claudemesh_broker.service import Context, serves
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, NotFound, TooMuch
from claudemesh_wire.grants import (
    BlockSet,
    GrantChanged,
    GrantPut,
    GrantsFound,
    ListGrants,
    PutGrant,
    SetBlock,
    believe,
)

MAX_LOAD_BYTES: Final = 256 * 1024
"""For each of two lists, so that both fit into one frame."""
_MOST: Final = 2048
MAX_KEPT: Final = 1024
"""So many other members one may have grants, and blocks, for at the broker."""


@serves
async def put(context: Context, request: PutGrant) -> GrantPut:
    """Keep a grant that the caller's member signed, if it is later than the one before."""
    caller, now_ms = context.caller, context.now_ms
    said = believe(context.chain, request.grant).fields
    if said.by != caller.member:
        raise Forbidden(
            "A member grants for itself only.",
            "Put a grant that the member of this session signed.",
            code="wrong_member",
        )
    _check_other(context, said.to)

    def change(sql: Sql) -> None:
        _check_room(sql, "grants", ("owner", "subject"), (said.mesh, said.by, said.to))
        taken = sql.execute(
            "INSERT INTO grants (mesh, owner, subject, seq, entry, made_ms)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (mesh, owner, subject) DO UPDATE"
            " SET seq = excluded.seq, entry = excluded.entry, made_ms = excluded.made_ms"
            " WHERE excluded.seq > grants.seq",
            said.mesh,
            said.by,
            said.to,
            said.seq,
            request.grant,
            now_ms,
        )
        if not taken:
            raise _moved(sql, said.mesh, said.by, said.to)

    await context.write(change)
    _tell(context, said.to)
    return GrantPut(seq=said.seq)


def _check_other(context: Context, member: str) -> None:
    if member == context.caller.member:
        raise Invalid(
            "A member's own sessions may do everything among themselves.",
            "Name another member.",
            code="self",
        )
    if member not in context.chain.members:
        raise NotFound(
            f"There is no member {member} in this mesh.",
            "claudemesh members lists those who are.",
            code="unknown_member",
        )


def _check_room(sql: Sql, table: str, columns: tuple[str, str], said: tuple[str, str, str]) -> None:
    """Refuse what would be one more than a member may keep here; an observer may ask for it too."""
    owner, other = columns
    row = sql.one(
        f"SELECT count(*) AS kept, coalesce(sum({other} = ?), 0) AS known FROM {table}"  # noqa: S608 - names
        f" WHERE mesh = ? AND {owner} = ?",
        said[2],
        *said[:2],
    )
    if row is not None and row["kept"] >= MAX_KEPT and not row["known"]:
        raise TooMuch(
            f"The broker keeps what one member says of {MAX_KEPT} others, and not of more.",
            "It holds in its home all the same.",
            code="too_many_said",
        )


def _moved(sql: Sql, mesh: str, owner: str, subject: str) -> Conflict:
    seq = sql.value(
        "SELECT seq FROM grants WHERE mesh = ? AND owner = ? AND subject = ?", mesh, owner, subject
    )
    return Conflict(
        "A later grant for this member is here already.",
        "Read it, and make the change again on top of it.",
        code="grant_moved",
        details={"seq": seq},
    )


def _tell(context: Context, member: str) -> None:
    own = context.caller.member
    context.parts.deliveries.tell_members(
        context.caller.mesh, {own, member}, GrantChanged(by=own, to=member)
    )


@serves
async def find(context: Context, request: ListGrants) -> GrantsFound:
    """Give what the caller's member granted, was granted, and whom it blocks."""
    caller, only = context.caller, request.member

    def query(sql: Sql) -> GrantsFound:
        made, all_made = _within(_read(sql, "owner", "subject", (caller.mesh, caller.member, only)))
        given, all_given = _within(
            _read(sql, "subject", "owner", (caller.mesh, caller.member, only))
        )
        return GrantsFound(
            made=made,
            given=given,
            blocked=_blocked(sql, caller.mesh, caller.member),
            more=not (all_made and all_given),
        )

    return await context.read(query)


def _read(sql: Sql, mine: str, theirs: str, who: tuple[str, str, str | None]) -> list[Row]:
    mesh, own, other = who
    return sql.all(
        f"SELECT entry FROM grants WHERE mesh = ? AND {mine} = ?"  # noqa: S608 - two column names
        f" AND (? IS NULL OR {theirs} = ?) ORDER BY made_ms DESC LIMIT ?",
        mesh,
        own,
        other,
        other,
        _MOST,
    )


def _within(rows: Iterable[Row]) -> tuple[list[bytes], bool]:
    """Give as many entries as find room, and whether these are all."""
    kept: list[bytes] = []
    load = 0
    for row in rows:
        load += len(row["entry"])
        if load > MAX_LOAD_BYTES:
            return kept, False
        kept.append(row["entry"])
    return kept, len(kept) < _MOST


def _blocked(sql: Sql, mesh: str, owner: str) -> list[str]:
    rows = sql.all(
        "SELECT blocked FROM blocks WHERE mesh = ? AND owner = ? ORDER BY blocked", mesh, owner
    )
    return [row["blocked"] for row in rows]


@serves
async def block(context: Context, request: SetBlock) -> BlockSet:
    """Refuse, or admit again, what another member writes to the caller's."""
    caller, now_ms = context.caller, context.now_ms
    _check_other(context, request.member)

    def change(sql: Sql) -> list[str]:
        if request.blocked:
            told = (caller.mesh, caller.member, request.member)
            _check_room(sql, "blocks", ("owner", "blocked"), told)
            sql.execute(
                "INSERT INTO blocks (mesh, owner, blocked, since_ms) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                caller.mesh,
                caller.member,
                request.member,
                now_ms,
            )
        else:
            sql.execute(
                "DELETE FROM blocks WHERE mesh = ? AND owner = ? AND blocked = ?",
                caller.mesh,
                caller.member,
                request.member,
            )
        return _blocked(sql, caller.mesh, caller.member)

    return BlockSet(blocked=await context.write(change))
