"""The rows of servers that peers offer, and who may see each.

``features/mcp_servers.py`` calls it inside its changes, ``service.py`` when a peer left. What a
peer offers only while it is here is gone once it left: it is shown no more, and swept with the next
registration of its member.
"""

import json
from dataclasses import dataclass
from typing import Final

from claudemesh_broker.delivery import Attachment
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.grants import PROVIDE, Capability, Grant, right_of, services
from claudemesh_wire.mcp_servers import MAX_BACKING, MESH, OWN, Registration
from claudemesh_wire.membership import Chain, Member
from claudemesh_wire.message import Role
from claudemesh_wire.server_news import MAX_TOLD_NAME, MAX_TOLD_TOOLS

HUMAN: Final = "human"
"""What the peer of a member's command line says that it is."""
_KEPT: Final = (
    "SELECT s.*, p.handle, p.host, p.visible, p.last_seen_ms, p.certificate_hash,"
    " s.fence = p.fence AS is_current"
    " FROM mcp_servers AS s JOIN peers AS p ON p.mesh = s.mesh AND p.peer = s.peer"
    " WHERE s.mesh = ?"
)
# What the present connection of a peer has not offered is gone, unless it was to last.
_OFFERED: Final = (
    f"{_KEPT} AND p.archived_ms IS NULL"
    " AND (s.persistent = 1 OR (s.fence = p.fence AND p.departed_ms IS NULL))"
)


@dataclass(frozen=True)
class Viewer:
    """Who looks: a peer, and its member as the chain has it."""

    peer: str
    member: Member


def find(sql: Sql, mesh: str, peer: str, name: str) -> Row | None:
    """Give one server's row, also when it is not offered at the moment."""
    return sql.one(f"{_KEPT} AND s.peer = ? AND s.name = ?", mesh, peer, name)


def of_peer(sql: Sql, mesh: str, peer: str) -> list[Row]:
    """Give what a peer offers or offered, also of one that has just left."""
    return sql.all(f"{_KEPT} AND s.peer = ?", mesh, peer)


def behind(sql: Sql, mesh: str, after: tuple[str, str], limit: int) -> list[Row]:
    """Give what is offered in a mesh, behind a peer and name."""
    return sql.all(
        f"{_OFFERED} AND (s.peer, s.name) > (?, ?) ORDER BY s.peer, s.name LIMIT ?",
        mesh,
        *after,
        limit,
    )


def told_tools(one: Registration) -> str:
    """Give the names of tools that notices tell, as the column has them."""
    names = [tool["name"][:MAX_TOLD_NAME] for tool in one.definitions["tools"]]
    return json.dumps(names[:MAX_TOLD_TOOLS])


def put(sql: Sql, one: Registration, by: Attachment, certificate: bytes, now_ms: int) -> None:
    """Keep a registration in the place of an earlier one of its peer and name.

    Args:
        sql: The change's.
        one: Believed.
        by: Who says it.
        certificate: What it is believed by.
        now_ms: The broker's time.
    """
    sql.execute(
        "INSERT OR REPLACE INTO mcp_servers (mesh, peer, name, member, digest, registration,"
        " certificate, visible_to, tools, persistent, registered_ms, fence)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        by.mesh,
        by.peer,
        one.fields.name,
        by.member,
        one.digest,
        one.blob,
        certificate,
        json.dumps(one.fields.visible_to),
        told_tools(one),
        one.fields.persistent,
        now_ms,
        by.fence,
    )


def see_off(sql: Sql, mesh: str, peer: str) -> list[Row]:
    """Note that the peer of some servers left; gives those of which nobody was told so yet."""
    rows = [row for row in of_peer(sql, mesh, peer) if not row["away"]]
    sql.execute("UPDATE mcp_servers SET away = 1 WHERE mesh = ? AND peer = ?", mesh, peer)
    return rows


def drop(sql: Sql, mesh: str, peer: str, name: str) -> None:
    """Delete one."""
    sql.execute(
        "DELETE FROM mcp_servers WHERE mesh = ? AND peer = ? AND name = ?", mesh, peer, name
    )


def sweep(sql: Sql, mesh: str, member: str) -> None:
    """Delete what peers of a member offered only while they were here."""
    sql.execute(
        "DELETE FROM mcp_servers WHERE mesh = ? AND member = ? AND persistent = 0 AND peer IN"
        " (SELECT peer FROM peers WHERE mesh = ? AND departed_ms IS NOT NULL)",
        mesh,
        member,
        mesh,
    )


def late_by(sql: Sql, mesh: str, heir: str, name: str) -> Row | None:
    """Give the server of this name that a peer offered whom this one succeeded."""
    return sql.one(
        "SELECT s.* FROM mcp_servers AS s JOIN peers AS p ON p.mesh = s.mesh AND p.peer = s.peer"
        " WHERE s.mesh = ? AND s.name = ? AND p.successor = ? AND p.returned = 0"
        " ORDER BY s.registered_ms DESC LIMIT 1",
        mesh,
        name,
        heir,
    )


def is_offered(chain: Chain, row: Row, now_ms: int) -> bool:
    """Tell whether a server's member may offer one now: not removed, nor an observer."""
    owner = chain.members.get(row["member"])
    return owner is not None and owner.is_good(now_ms) and owner.role is not Role.OBSERVER


def may_see(sql: Sql, row: Row, viewer: Viewer) -> bool:
    """Tell whether a server is shown to a peer: it is meant, and its member may call tools."""
    if row["member"] == viewer.member.id:
        return True
    viewers = json.loads(row["visible_to"])
    is_observer = viewer.member.role is Role.OBSERVER
    if is_observer or viewers == [OWN] or not _may_call(sql, row, viewer.member):
        return False
    if {MESH, f"role:{viewer.member.role}"}.intersection(viewers):
        return True
    return any(_is_meant(sql, row["mesh"], one, viewer) for one in viewers)


def _may_call(sql: Sql, row: Row, member: Member) -> bool:
    mesh, owner = row["mesh"], row["member"]
    blocked = "SELECT 1 FROM blocks WHERE mesh = ? AND owner = ? AND blocked = ?"
    if sql.one(blocked, mesh, owner, member.id) is not None:
        return False
    granted = sql.one(
        "SELECT entry FROM grants WHERE mesh = ? AND owner = ? AND subject = ?",
        mesh,
        owner,
        member.id,
    )
    grant = Grant.parse(granted["entry"]) if granted is not None else None
    return right_of(owner, member, grant, Capability.TOOL).allowed


def _is_meant(sql: Sql, mesh: str, meant: str, viewer: Viewer) -> bool:
    """Tell whether a peer or a group that a server is for stands for who looks.

    A human looks for all peers of its member: what one of them may call only once it was approved
    is to be found by who approves it. Whether a call is let through the host decides, by its peer.
    """
    if meant.startswith("@"):
        group, _, role = meant[1:].partition(":")
        found = sql.all(
            "SELECT g.peer, p.member FROM groups AS g"
            " JOIN peers AS p ON p.mesh = g.mesh AND p.peer = g.peer"
            " WHERE g.mesh = ? AND g.name = ? AND ? IN (g.role, '')",
            mesh,
            group,
            role,
        )
    else:
        found = sql.all("SELECT peer, member FROM peers WHERE mesh = ? AND peer = ?", mesh, meant)
    if any(one["peer"] == viewer.peer for one in found):
        return True
    return any(one["member"] == viewer.member.id for one in found) and _is_human(sql, mesh, viewer)


def _is_human(sql: Sql, mesh: str, viewer: Viewer) -> bool:
    found = sql.one("SELECT type FROM peers WHERE mesh = ? AND peer = ?", mesh, viewer.peer)
    return found is not None and found["type"] == HUMAN


def backing(sql: Sql, row: Row) -> list[bytes]:
    """Give the grants by which others let a server's member provide their service of its name."""
    found = sql.all(
        # The name as every honest grant has it: of many grants most say nothing of services.
        "SELECT entry FROM grants WHERE mesh = ? AND subject = ? AND instr(entry, ?) > 0"
        " ORDER BY made_ms, owner",
        row["mesh"],
        row["member"],
        f'"{PROVIDE}{row["name"]}"'.encode(),
    )
    entries = [one["entry"] for one in found]
    return [one for one in entries if row["name"] in services(Grant.parse(one))][:MAX_BACKING]


def watchers(sql: Sql, chain: Chain, row: Row, now_ms: int) -> list[tuple[str, str]]:
    """Give the other attached peers that may see a server, each with its member."""
    found: list[tuple[str, str]] = []
    for peer in sql.all(
        "SELECT peer, member FROM peers WHERE mesh = ? AND attached = 1 AND peer <> ?",
        row["mesh"],
        row["peer"],
    ):
        member = chain.members.get(peer["member"])
        if member is not None and member.is_good(now_ms):
            viewer = Viewer(peer["peer"], member)
            if may_see(sql, row, viewer):
                found.append((peer["peer"], peer["member"]))
    return found
