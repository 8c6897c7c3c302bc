"""Invites: keeps the signed ways in that admins made, until they expire or are taken back.

``service.py`` calls it; ``strangers.py`` shows them to those who have the link. What an invite
gives is decided by the chain; the broker can make none.
"""

from claudemesh_broker.service import Context, serves
from claudemesh_broker.sql import Sql
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, NotFound, TooMuch
from claudemesh_wire.invites import (
    MAX_INVITES,
    Invite,
    InviteKept,
    InvitesFound,
    InviteShown,
    InviteWithdrawn,
    ListInvites,
    PutInvite,
    WithdrawInvite,
)


@serves
async def put(context: Context, request: PutInvite) -> InviteKept:
    """Keep an invite of the caller's own."""
    reach, caller, now_ms = context.parts.reach, context.caller, context.now_ms
    if reach is None:
        raise Conflict(
            "This broker listens on its own machine only: nobody could use an invite.",
            "Run it for others: claudemesh broker run --bind 0.0.0.0 --tls auto",
            code="loopback_only",
        )
    invite = Invite.parse(request.invite)
    fields = invite.fields
    if (fields.mesh, fields.by) != (caller.mesh, caller.member):
        raise Forbidden(
            "An admin puts its own invites to its own mesh only.",
            "Make it as the member of this session, for this mesh.",
            code="wrong_invite",
        )
    if not invite.is_signed_by(context.member.key):
        raise Forbidden("The invite is not signed by this member.", code="bad_signature")
    if fields.expires <= now_ms:
        raise Invalid("The invite has expired already.", "Check the clock.", code="invite_expired")

    def change(sql: Sql) -> None:
        sql.execute("DELETE FROM invites WHERE expires_ms < ?", now_ms)
        count = sql.value("SELECT count(*) FROM invites WHERE mesh = ?", caller.mesh)
        if count >= MAX_INVITES:
            raise TooMuch(
                f"A mesh has at most {MAX_INVITES} open invites.",
                "Take some back: claudemesh invites.",
                code="too_many_invites",
            )
        added = sql.execute(
            "INSERT INTO invites (code, mesh, invite, made_by, made_ms, expires_ms)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            fields.id,
            fields.mesh,
            invite.blob,
            fields.by,
            now_ms,
            fields.expires,
        )
        kept = sql.value("SELECT invite FROM invites WHERE code = ?", fields.id)
        if not added and kept != invite.blob:
            raise Conflict("There is an invite of this id already.", "Make a new one.")

    await context.write(change)
    return InviteKept(url=reach.url, pin=reach.pin)


@serves
async def find(context: Context, request: ListInvites) -> InvitesFound:  # noqa: ARG001 - the request's class is the registration
    """Give the invites that are open."""
    uses, mesh, now_ms = context.chain.invite_uses, context.caller.mesh, context.now_ms
    rows = await context.read(
        lambda sql: sql.all(
            "SELECT code, invite FROM invites WHERE mesh = ? AND expires_ms >= ?"
            " ORDER BY made_ms DESC, code",
            mesh,
            now_ms,
        )
    )
    shown = [InviteShown(invite=row["invite"], used=uses.get(row["code"], 0)) for row in rows]
    return InvitesFound(invites=shown)


@serves
async def withdraw(context: Context, request: WithdrawInvite) -> InviteWithdrawn:
    """Take an invite back."""
    mesh = context.caller.mesh
    gone = await context.write(
        lambda sql: sql.execute(
            "DELETE FROM invites WHERE code = ? AND mesh = ?", request.code, mesh
        )
    )
    if not gone:
        raise NotFound(
            "There is no such invite.", "claudemesh invites lists them.", code="unknown_invite"
        )
    return InviteWithdrawn()
