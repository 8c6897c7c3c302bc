"""Answers those who are no members yet, or not at the moment: open an invite, enter, return.

``session.py`` hands in what comes before a hello. Whoever asks proves what it may know: the link of
an invite by its one-time key, the right to return by its own signature.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from claudemesh_broker.admission import Admission
from claudemesh_broker.roster import check_moment, entries_after
from claudemesh_broker.service import Parts
from claudemesh_broker.sql import Row, Sql
from claudemesh_wire.entries import Entry, EntryKind
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, MeshError, NotFound
from claudemesh_wire.invites import (
    Enter,
    Invite,
    InviteOpened,
    OpenInvite,
    is_member_proved,
    may_open,
)
from claudemesh_wire.keys import unb64
from claudemesh_wire.membership import Chain, Member
from claudemesh_wire.meshes import LogEntries, Return
from claudemesh_wire.message import Message, Request, Role

MAX_ENTRIES: Final = 200
_ASK_ANOTHER: Final = "Ask for another one: claudemesh invite."


class Strangers:
    """What one broker says to those who have not said hello.

    Args:
        admission: The door, whose broker this is.
    """

    def __init__(self, admission: Admission) -> None:
        self._parts: Parts = admission.parts
        self._broker = admission.identity.id

    async def answer(self, request: Request[Any], nonce: bytes) -> Message:
        """Answer a request that is open to all.

        Args:
            request: What came before the hello.
            nonce: Of this connection's challenge.

        Raises:
            MeshError: it is refused; codes begin with ``invite_``, ``membership_``.
        """
        serve = _SERVED[type(request)]
        return await serve(self, request, nonce)

    async def open(self, request: OpenInvite, nonce: bytes) -> InviteOpened:
        """Show an invite and the log it leads to; nothing is used up by that."""
        row = await self._parts.store.read(lambda sql: _find(sql, request.code))
        invite = Invite.parse(row["invite"]) if row else None
        if invite is None or not may_open(invite.fields, request.proof, self._broker, nonce):
            # The same to all who lack the key: a code alone says nothing.
            raise _unknown_invite()
        chain, now_ms = await self._chain(invite.fields.mesh), self._parts.now_ms()
        member = chain.members.get(request.member)
        proof = request.member_proof
        if member is None or not is_member_proved(
            member.key, proof, self._broker, nonce, request.code
        ):
            _check_invite(chain, invite, now_ms)
        elif not member.is_good(now_ms):
            _check_may_come(member, now_ms)
            _check_invite(chain, invite, now_ms)
        return InviteOpened(invite=invite.blob, log=_log(chain, request.after_seq))

    async def enter(self, request: Enter, nonce: bytes) -> LogEntries:  # noqa: ARG002 - as above
        """Append the entry of a joiner, by an invite that was not taken back."""
        entry = Entry.parse(request.entry)
        said = entry.fields
        if said.kind != EntryKind.ADD or not said.invite:
            raise Invalid("This is not the entry of a joiner.", code="malformed")
        check_moment(entry, self._parts.now_ms())
        invite = Invite.parse(unb64(said.invite))
        row = await self._parts.store.read(lambda sql: _find(sql, invite.fields.id))
        # Codes are their makers' choice: another mesh's invite of the same code is no permission.
        if row is None or row["invite"] != invite.blob:
            raise _unknown_invite()
        chain = await self._chain(said.mesh)
        if chain.is_present(said.by):
            raise Conflict(
                "This member is in the mesh already.",
                "claudemesh members lists those who are.",
                code="already_a_member",
            )
        now_ms = self._parts.now_ms()
        if said.by in chain.members:
            _check_may_come(chain.members[said.by], now_ms)
        _check_invite(chain, invite, now_ms)
        return await self._append(chain, entry)

    async def come_back(self, request: Return, nonce: bytes) -> LogEntries:  # noqa: ARG002 - as above
        """Append the entry by which a removed member returns when its time is over."""
        entry = Entry.parse(request.entry)
        if entry.fields.kind != EntryKind.RETURN:
            raise Invalid("This is not the entry of somebody who returns.", code="malformed")
        check_moment(entry, self._parts.now_ms())
        return await self._append(await self._chain(entry.fields.mesh), entry)

    async def _append(self, chain: Chain, entry: Entry) -> LogEntries:
        grown = await self._parts.append_log(chain.extend([entry.blob]), chain)
        return _log(grown, entry.fields.seq - 1)

    async def _chain(self, mesh: str) -> Chain:
        chain = await self._parts.roster.load(mesh)
        if chain is None:
            raise NotFound(
                "This broker does not know the mesh.",
                "Try again when a member of it has connected, which brings the membership log.",
                code="unknown_mesh",
            )
        return chain


_Serve = Callable[[Strangers, Any, bytes], Awaitable[Message]]
_SERVED: Final[dict[type[Request[Any]], _Serve]] = {
    OpenInvite: cast("_Serve", Strangers.open),
    Enter: cast("_Serve", Strangers.enter),
    Return: cast("_Serve", Strangers.come_back),
}


def is_served(request: Request[Any]) -> bool:
    """Tell whether a request may come before the hello."""
    return type(request) in _SERVED


def _check_invite(chain: Chain, invite: Invite, now_ms: int) -> None:
    """Say in plain words why an invite does not do any more; the walk refuses it as well."""
    fields = invite.fields
    inviter = chain.members.get(fields.by)
    if fields.expires < now_ms:
        raise _dead("The invite has expired.", "invite_expired")
    if chain.invite_uses.get(fields.id, 0) >= fields.uses:
        raise _dead("The invite has been used up.", "invite_used_up")
    if inviter is None or not inviter.is_good(now_ms):
        raise _dead("Whoever made the invite is no member any more.", "invite_dead")
    if fields.role not in {role for role in Role if inviter.may_give(role)}:
        raise _dead(
            f"Whoever made the invite may invite nobody as {fields.role} any more.", "invite_dead"
        )


def _check_may_come(member: Member, now_ms: int) -> None:
    """Say in plain words that an admin keeps somebody out; the walk refuses it as well."""
    if not member.removed or member.may_come(now_ms):
        return
    unban = f"claudemesh unban {member.name}"
    if member.returns_ms is None:
        raise Forbidden(
            f"An admin removed {member.name} from this mesh.",
            f"No invite brings it back, but an admin can: {unban}",
            code="member_removed",
        )
    raise Forbidden(
        f"An admin removed {member.name} from this mesh for some time, which is not over.",
        f"It returns by itself when it is, or when an admin takes it back: {unban}",
        code="member_removed",
        details={"returns_ms": member.returns_ms},
    )


def _dead(reason: str, code: str) -> MeshError:
    return Forbidden(reason, _ASK_ANOTHER, code=code)


def _unknown_invite() -> MeshError:
    return NotFound(
        "There is no such invite here: it was taken back, or the link is not whole.",
        _ASK_ANOTHER,
        code="unknown_invite",
    )


def _log(chain: Chain, after_seq: int) -> LogEntries:
    entries = entries_after(chain, after_seq, MAX_ENTRIES)
    return LogEntries(entries=entries, head_seq=chain.head.seq, head=chain.head.hash)


def _find(sql: Sql, code: str) -> Row | None:
    return sql.one("SELECT invite FROM invites WHERE code = ?", code)
