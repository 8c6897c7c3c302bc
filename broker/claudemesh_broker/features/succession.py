"""Succession: hands to the heir of ended peers what waits for them.

``service.py`` calls it. Who is whose heir was decided when it arrived; ``heirs.py`` keeps it.
"""

from functools import partial

from claudemesh_broker import heirs, queues
from claudemesh_broker.service import Context, serves
from claudemesh_wire.succession import (
    FetchInheritance,
    Inheritance,
    Inherited,
    ListPredecessors,
    Predecessors,
)


@serves
async def list_predecessors(context: Context, request: ListPredecessors) -> Predecessors:
    """Name those whose place the caller has taken and whose files it has to look after."""
    caller = context.caller
    peers, more = await context.read(
        partial(
            heirs.predecessors,
            mesh=caller.mesh,
            peer=caller.peer,
            after=request.after,
            limit=request.limit,
        )
    )
    return Predecessors(peers=list(peers), more=more)


@serves
async def fetch_inheritance(context: Context, request: FetchInheritance) -> Inheritance:
    """Read what waits for the caller as an heir; a row stays there until the heir's receipt."""
    caller = context.caller
    rows, more = await context.read(
        partial(
            heirs.inheritance,
            mesh=caller.mesh,
            peer=caller.peer,
            after=(request.after_row, request.after_peer),
            bounds=(request.limit, queues.MAX_FETCH_BYTES),
        )
    )
    certificates = {row.certificate_hash: row.certificate for _, row in rows if row.certificate}
    return Inheritance(
        messages=[
            Inherited(row=row.seq, of=of, envelope=row.envelope, queued_ms=row.queued_ms)
            for of, row in rows
        ],
        certificates=list(certificates.values()),
        more=more,
    )
