"""Groups: who you are with. A group is there as long as somebody is in it.

``service.py`` calls it; ``audience.py`` reads the table when a message goes to a group.
"""

from typing import Final

from claudemesh_broker.peers import News, is_shown
from claudemesh_broker.service import Context, serves
from claudemesh_broker.sql import Sql
from claudemesh_wire.errors import NotFound, TooMuch
from claudemesh_wire.groups import JoinGroup, LeaveGroup, MyGroups
from claudemesh_wire.presence import Change, GroupRole

MAX_GROUPS: Final = 64


@serves
async def join(context: Context, request: JoinGroup) -> MyGroups:
    """Enter a group, or change one's role in it."""
    caller, now_ms = context.caller, context.now_ms

    def change(sql: Sql) -> MyGroups:
        before = _groups(sql, caller.mesh, caller.peer)
        wished = GroupRole(name=request.group, role=request.role)
        is_new = request.group not in {group.name for group in before}
        if is_new and len(before) >= MAX_GROUPS:
            raise TooMuch(
                f"A peer is in {MAX_GROUPS} groups at most.", "Leave one.", code="too_many_groups"
            )
        sql.execute(
            "INSERT INTO groups (mesh, name, peer, role, joined_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (mesh, name, peer) DO UPDATE SET role = excluded.role",
            caller.mesh,
            request.group,
            caller.peer,
            request.role,
            now_ms,
        )
        return _mine(sql, context, request.group, changed=wished not in before)

    return await _told(context, await context.write(change))


@serves
async def leave(context: Context, request: LeaveGroup) -> MyGroups:
    """Go out of a group."""
    caller = context.caller

    def change(sql: Sql) -> MyGroups:
        gone = sql.execute(
            "DELETE FROM groups WHERE mesh = ? AND name = ? AND peer = ?",
            caller.mesh,
            request.group,
            caller.peer,
        )
        if not gone:
            raise NotFound(
                f"This peer is not in @{request.group}.",
                "mesh_info shows its groups.",
                code="not_in_group",
            )
        return _mine(sql, context, request.group, changed=True)

    return await _told(context, await context.write(change))


async def _told(context: Context, mine: MyGroups) -> MyGroups:
    """Let the mesh know, if it was shown the caller."""
    caller = context.caller
    if mine.changed and await context.read(lambda sql: is_shown(sql, caller.mesh, caller.peer)):
        await context.parts.tell_presence(caller.mesh, caller.peer, News(Change.UPDATED))
    return mine


def _groups(sql: Sql, mesh: str, peer: str) -> list[GroupRole]:
    rows = sql.all(
        "SELECT name, role FROM groups WHERE mesh = ? AND peer = ? ORDER BY name", mesh, peer
    )
    return [GroupRole(name=row["name"], role=row["role"] or "") for row in rows]


def _mine(sql: Sql, context: Context, group: str, *, changed: bool) -> MyGroups:
    caller = context.caller
    members = sql.value(
        "SELECT count(*) FROM groups AS g JOIN peers AS p ON p.mesh = g.mesh AND p.peer = g.peer"
        " WHERE g.mesh = ? AND g.name = ? AND p.archived_ms IS NULL"
        " AND (p.visible = 1 OR p.peer = ?)",
        caller.mesh,
        group,
        caller.peer,
    )
    return MyGroups(groups=_groups(sql, caller.mesh, caller.peer), changed=changed, members=members)
