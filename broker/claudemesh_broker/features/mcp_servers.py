"""MCP servers: keeps what peers offer, and shows each only to those who may call it.

``service.py`` calls it; ``registrations.py`` has the rows. That a server is here is a fact about
its peer's connection, looked up with each question.
"""

from typing import Final

from claudemesh_broker import registrations
from claudemesh_broker.delivery import Attachment
from claudemesh_broker.registrations import Viewer
from claudemesh_broker.roster import check_certificate
from claudemesh_broker.service import Context, serves
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, NotFound, TooMuch
from claudemesh_wire.mcp_servers import (
    MAX_SERVERS,
    ListServers,
    RegisterServer,
    Registration,
    ServerCard,
    ServerRegistered,
    ServersFound,
    ServerUnregistered,
    UnregisterServer,
)
from claudemesh_wire.server_news import ServerChange

MAX_LOAD_BYTES: Final = 512 * 1024
_AT_ONCE: Final = 100
_Shown = tuple[Row, list[bytes]]


@serves
async def register(context: Context, request: RegisterServer) -> ServerRegistered:
    """Keep a registration of the caller's own, and tell those who may see it."""
    one, certificate = _own(context, request)
    caller, now_ms, name = context.caller, context.now_ms, one.fields.name

    def change(sql: Sql) -> tuple[Row | None, ServerChange | None]:
        registrations.sweep(sql, caller.mesh, caller.member)
        what = _change(sql, caller.place, one, request.replaces)
        registrations.put(sql, one, caller.place, certificate.blob, now_ms)
        return registrations.find(sql, caller.mesh, caller.peer, name), what

    row, what = await context.write(change)
    if row is not None and what is not None:
        await context.parts.tell_server(row, what)
    handle = row["handle"] if row is not None else None
    return ServerRegistered(
        full_name=f"{handle or caller.peer}/{name}", restored=what is ServerChange.RESTORED
    )


def _own(context: Context, request: RegisterServer) -> tuple[Registration, Certificate]:
    """Give the registration, which the caller's device has signed."""
    one, caller = Registration.parse(request.registration), context.caller
    certificate = Certificate.parse(request.certificate)
    check_certificate(context.chain, certificate, context.now_ms)
    one.check(certificate)
    said = certificate.fields
    if (said.mesh, said.peer, said.member) != (caller.mesh, caller.peer, caller.member):
        raise Forbidden(
            "A peer offers servers of its own only.",
            "Register it in the session that is to offer it.",
            code="wrong_peer",
        )
    return one, certificate


def _change(
    sql: Sql, place: Attachment, one: Registration, replaces: bytes | None
) -> ServerChange | None:
    """Say what others hear of a registration; ``None`` for nothing."""
    name = one.fields.name
    before = registrations.find(sql, place.mesh, place.peer, name)
    if before is None:
        late = registrations.late_by(sql, place.mesh, place.peer, name)
        if late is not None:
            registrations.drop(sql, place.mesh, late["peer"], name)
            return ServerChange.RESTORED
        _check_room(sql, place)
        return ServerChange.REGISTERED
    if before["away"]:
        return ServerChange.RESTORED
    # What it offered in an earlier connection it says anew: that is no second server.
    is_anew = before["fence"] < place.fence or before["digest"] in {one.digest, replaces}
    if not is_anew:
        raise Conflict(
            f"This session offers another server by the name {name}.",
            "Take another name, or unregister that one first.",
            code="name_taken",
        )
    return None if _shows_the_same(before, one) else ServerChange.CHANGED


def _shows_the_same(before: Row, one: Registration) -> bool:
    try:
        earlier = Registration.parse(before["registration"]).fields
    except Invalid:  # kept by a broker that took what is refused now
        return False
    said = one.fields
    return (earlier.definitions, earlier.visible_to) == (said.definitions, said.visible_to)


def _check_room(sql: Sql, place: Attachment) -> None:
    if len(registrations.of_peer(sql, place.mesh, place.peer)) >= MAX_SERVERS:
        raise TooMuch(
            f"A session offers {MAX_SERVERS} servers at most.",
            "Unregister one first.",
            code="too_many_servers",
        )


@serves
async def unregister(context: Context, request: UnregisterServer) -> ServerUnregistered:
    """Take back a server of the caller's own, or of a peer of its member that is not here."""
    caller = context.caller
    peer = request.peer or caller.peer

    def change(sql: Sql) -> Row:
        row = registrations.find(sql, caller.mesh, peer, request.name)
        if row is None or row["member"] != caller.member:
            raise NotFound(
                f"This session offers no server {request.name}.",
                "mesh_tools shows what is offered.",
                code="unknown_server",
            )
        if peer != caller.peer and context.parts.deliveries.feed(caller.mesh, peer) is not None:
            raise Conflict(
                f"The session that offers {request.name} is here.",
                "It takes it back itself: unregister_mcp.",
                code="still_offered",
            )
        registrations.drop(sql, caller.mesh, peer, request.name)
        return row

    row = await context.write(change)
    await context.parts.tell_server(row, ServerChange.UNREGISTERED)
    return ServerUnregistered()


@serves
async def find(context: Context, request: ListServers) -> ServersFound:
    """Give what is offered to the caller, as much of it as a frame takes."""
    caller, known = context.caller, frozenset(request.known)
    viewer = Viewer(caller.peer, context.member)
    peer, _, name = request.after.partition("/")

    def query(sql: Sql) -> tuple[list[_Shown], str | None]:
        kept: list[_Shown] = []
        after, load = (peer, name), 0
        while rows := registrations.behind(sql, caller.mesh, after, _AT_ONCE):
            for row in rows:
                is_offered = registrations.is_offered(context.chain, row, context.now_ms)
                if is_offered and registrations.may_see(sql, row, viewer):
                    grants = registrations.backing(sql, row)
                    load += _load(row, known) + sum(map(len, grants))
                    if kept and load > MAX_LOAD_BYTES:
                        return kept, "/".join(after)
                    kept.append((row, grants))
                after = (row["peer"], row["name"])
        return kept, None

    rows, more = await context.read(query)
    return ServersFound(servers=[_card(context, one, known) for one in rows], next_after=more)


def _load(row: Row, known: frozenset[bytes]) -> int:
    if row["digest"] in known:
        return 0
    return len(row["registration"]) + len(row["certificate"])


def _card(context: Context, shown: _Shown, known: frozenset[bytes]) -> ServerCard:
    row, grants = shown
    is_here = context.parts.deliveries.feed(row["mesh"], row["peer"]) is not None
    online = is_here and bool(row["is_current"])
    is_known = row["digest"] in known
    # Of one that hides others learn only whether a call will reach it.
    is_shown = bool(row["visible"]) or row["member"] == context.caller.member
    since_ms = row["registered_ms"] if online or not is_shown else row["last_seen_ms"]
    return ServerCard(
        peer=row["peer"],
        handle=row["handle"] or "",
        member=row["member"],
        host=(row["host"] or "") if is_shown else "",
        name=row["name"],
        online=online,
        since_ms=since_ms,
        digest=row["digest"],
        registration=b"" if is_known else row["registration"],
        certificate=b"" if is_known else row["certificate"],
        grants=grants,
    )
