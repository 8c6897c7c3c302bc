"""Meshes: the membership log, what the mesh and its broker are.

``service.py`` calls it. The broker walks every entry before it appends it, and can sign none.
"""

from collections.abc import Sequence

from claudemesh_broker import heirs
from claudemesh_broker.roster import check_moment, entries_after
from claudemesh_broker.service import Context, serves
from claudemesh_broker.sql import Sql
from claudemesh_wire import DATA_VERSION, VERSION
from claudemesh_wire.entries import Entry, EntryKind
from claudemesh_wire.errors import Invalid
from claudemesh_wire.membership import Chain
from claudemesh_wire.meshes import (
    AppendEntry,
    AskMesh,
    EndMesh,
    LogEntries,
    MeshEnded,
    MeshFacts,
    ReadLog,
)


@serves
async def read_log(context: Context, request: ReadLog) -> LogEntries:
    """Give the membership log behind an entry."""
    chain = context.chain
    return _entries(chain, entries_after(chain, request.after_seq, request.limit))


@serves
async def append(context: Context, request: AppendEntry) -> LogEntries:
    """Append an entry that follows the head and whose signer held the right to it."""
    entry = Entry.parse(request.entry)
    check_moment(entry, context.now_ms)
    said = entry.fields
    if said.kind in {EntryKind.END, EntryKind.RETURN} or said.invite:
        raise Invalid(
            f"An entry of the kind {said.kind} is not appended in this way.",
            "Update this side.",
            code="wrong_entry",
        )
    known = context.chain
    chain = await context.parts.append_log(known.extend([entry.blob]), known)
    return _entries(chain, [entry.blob])


@serves
async def end(context: Context, request: EndMesh) -> MeshEnded:
    """Delete all of a mesh but the note that it has ended; its peers are told by whom."""
    entry, parts = Entry.parse(request.entry), context.parts
    check_moment(entry, context.now_ms)
    if entry.fields.kind != EntryKind.END:
        raise Invalid(
            "This entry does not end a mesh.",
            "Append it: only one of the kind end ends a mesh.",
            code="wrong_entry",
        )
    chain = context.chain.extend([entry.blob])
    # The caller has its answer to come.
    await parts.end_mesh(chain, context.chain, besides=context.caller.peer)
    return MeshEnded()


def _entries(chain: Chain, entries: Sequence[bytes]) -> LogEntries:
    return LogEntries(entries=list(entries), head_seq=chain.head.seq, head=chain.head.hash)


@serves
async def tell_facts(context: Context, request: AskMesh) -> MeshFacts:  # noqa: ARG001 - the request's class is the registration
    """Say what this mesh and its broker are."""
    caller, chain, parts = context.caller, context.chain, context.parts
    now_ms = context.now_ms

    def query(sql: Sql) -> MeshFacts:
        counts = sql.one(
            "SELECT m.created_ms, count(p.peer) AS peers,"
            " coalesce(sum(p.attached = 1 OR p.lease_until_ms > ?), 0) AS online"
            " FROM meshes AS m LEFT JOIN peers AS p ON p.mesh = m.mesh AND p.handle IS NOT NULL"
            " AND (p.visible = 1 OR p.peer = ?) WHERE m.mesh = ? GROUP BY m.mesh",
            now_ms,
            caller.peer,
            caller.mesh,
        )
        queued = heirs.backlog(sql, caller.mesh, caller.peer)
        return MeshFacts(
            name=chain.name,
            created_ms=counts["created_ms"] if counts else 0,
            peers=counts["peers"] if counts else 0,
            online=counts["online"] if counts else 0,
            queued=queued,
            broker_version=VERSION,
            data_version=DATA_VERSION,
            started_ms=parts.started_ms,
            limits=parts.shown_limits(),
            url=parts.reach.url if parts.reach else "",
            pin=parts.reach.pin if parts.reach else b"",
        )

    return await context.read(query)
