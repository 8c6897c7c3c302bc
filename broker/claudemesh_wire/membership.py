"""The membership chain: signed entries from the founder on, and the walk that believes them.

Clients accept keys through this walk alone; the broker stores entries and can add nobody. An entry
(``entries.py``) counts if its signer held the right at that position and it names the hash of the
entry before it. ``invites.py`` holds the signed way in that an ``add`` may rest on;
``member_behind`` is how certificates are believed, by the broker and by every client.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from claudemesh_wire.certificate import Certificate
from claudemesh_wire.entries import Custody, Entry, EntryFields, EntryKind
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, MeshError
from claudemesh_wire.invites import Invite
from claudemesh_wire.keys import VerifyKey, b64, member_id, mesh_id, unb64
from claudemesh_wire.members import Member, name_kept, name_taken, name_when_back
from claudemesh_wire.message import Role

__all__ = [
    "NO_HEAD",
    "Chain",
    "Custody",
    "Entry",
    "EntryFields",
    "EntryKind",
    "Head",
    "Member",
    "walk",
]

NO_HEAD: Final = b""


@dataclass(frozen=True)
class Head:
    """Where a chain ends: the number of its last entry and that entry's hash."""

    seq: int
    hash: bytes


@dataclass(frozen=True)
class Chain:
    """The outcome of walking the entries: who is a member, in what role, by which keys.

    ``revoked`` holds (member, device fingerprint): a revocation reaches that member's devices only.
    """

    mesh: str
    name: str = ""
    entries: tuple[bytes, ...] = ()
    head: Head = field(default=Head(0, NO_HEAD))
    members: dict[str, Member] = field(default_factory=dict[str, Member])
    revoked: frozenset[tuple[str, str]] = frozenset()
    invite_uses: dict[str, int] = field(default_factory=dict[str, int])
    ended: bool = False

    def extend(self, blobs: Iterable[bytes]) -> "Chain":
        """Walk further entries.

        Returns:
            The chain with all of them; this one is unchanged.

        Raises:
            Conflict: ``membership_gap`` or ``membership_fork``.
            Forbidden: the signer did not hold the right at that position.
            Invalid: an entry is malformed or of another mesh.
        """
        chain = self
        for blob in blobs:
            chain = chain._after(Entry.parse(blob))
        return chain

    def member(self, member: str) -> Member:
        """Give a present member.

        Raises:
            Forbidden: ``not_a_member`` or ``member_removed``.
        """
        known = self.members.get(member)
        if known is None:
            raise Forbidden(
                f"{member} is not a member of this mesh.",
                "claudemesh members lists those who are.",
                code="not_a_member",
            )
        if known.removed:
            raise Forbidden(
                f"{known.name} {'has left' if known.has_left else 'was removed from'} this mesh.",
                f"An admin can take it back: claudemesh unban {known.name}",
                code="member_removed",
                details={"returns_ms": known.returns_ms} if known.returns_ms else None,
            )
        return known

    def is_present(self, member: str) -> bool:
        """Tell whether a member is in the mesh now."""
        known = self.members.get(member)
        return known is not None and not known.removed

    def member_behind(self, certificate: Certificate) -> Member:
        """Give the present member whose word a certificate is.

        Its validity in time is not looked at: that is a matter of what was signed under it.

        Raises:
            Forbidden: ``not_a_member``, ``member_removed``, ``certificate_forged`` or
                ``device_revoked``.
            Invalid: ``wrong_mesh``.
        """
        said = certificate.fields
        if said.mesh != self.mesh:
            raise Invalid("A certificate belongs to another mesh.", code="wrong_mesh")
        member = self.member(said.member)
        if not certificate.is_signed_by(member.key):
            raise Forbidden(
                f"A certificate for {said.handle} was not signed by {member.name}.",
                "It counts for nothing: that member has to certify its sessions itself.",
                code="certificate_forged",
            )
        if (member.id, b64(certificate.sign_key.fingerprint)) in self.revoked:
            raise Forbidden(
                f"The device of {said.handle} was revoked.",
                "It can come back as another peer: start a new session.",
                code="device_revoked",
            )
        return member

    def head_at(self, seq: int) -> Head | None:
        """Give the head the chain had after entry ``seq``, or ``None`` beyond its ends."""
        if not 1 <= seq <= len(self.entries):
            return None
        return Head(seq, hashlib.sha256(self.entries[seq - 1]).digest())

    def _after(self, entry: Entry) -> "Chain":
        said = entry.fields
        if said.mesh != self.mesh:
            raise Invalid("A membership entry belongs to another mesh.", code="wrong_mesh")
        if said.seq != self.head.seq + 1:
            raise Conflict(
                f"Membership entry {said.seq} follows {self.head.seq}.", code="membership_gap"
            )
        if unb64(said.prev) != self.head.hash:
            raise Conflict("A membership entry follows another history.", code="membership_fork")
        if self.ended:
            raise Forbidden(
                "An owner has ended this mesh.",
                "claudemesh mesh leave takes it off your list; claudemesh mesh create makes"
                " another.",
                code="mesh_ended",
            )
        changed = _founded(self, entry) if said.seq == 1 else _changed(self, entry)
        return replace(
            changed, entries=(*self.entries, entry.blob), head=Head(said.seq, entry.hash)
        )


def walk(mesh: str, blobs: Iterable[bytes]) -> Chain:
    """Walk a chain from its founder; see ``Chain.extend`` for what is refused."""
    return Chain(mesh).extend(blobs)


def _founded(chain: Chain, entry: Entry) -> Chain:
    said = entry.fields
    key = _key_of(entry)
    genuine = (
        said.kind == EntryKind.FOUND
        and said.by == said.member == member_id(key)
        and said.mesh == mesh_id(key, unb64(said.salt or ""))
        and entry.is_signed_by(key)
    )
    if not genuine:
        raise _forbidden("The first entry is not the founder's own.")
    founder = Member(said.by, key, said.name or "founder", Role.OWNER, Custody.SELF)
    return replace(chain, name=said.mesh_name or "mesh", members={founder.id: founder})


def _changed(chain: Chain, entry: Entry) -> Chain:
    said = entry.fields
    if said.kind == EntryKind.ADD and said.invite:
        return _joined(chain, entry)
    signer = chain.members.get(said.by)
    if signer is None or (signer.removed and said.kind != EntryKind.RETURN):
        raise _forbidden(f"Entry {said.seq} is signed by somebody who is no member.")
    if not entry.is_signed_by(signer.key):
        raise _forbidden(f"The signature of entry {said.seq} is not its signer's.")
    if signer.has_expired(said.at):
        raise _forbidden(f"Entry {said.seq} is of a time when its signer was a member no more.")
    change = _CHANGES.get(said.kind)
    if change is None:
        raise Invalid(
            f"Membership entry {said.seq} is of the unknown kind {said.kind[:40]!r}.",
            "Update this side.",
            code="unsupported_version",
        )
    return change(chain, signer, entry)


def _added(chain: Chain, signer: Member, entry: Entry) -> Chain:
    newcomer = _newcomer(chain, entry)
    if not signer.may_give(newcomer.role):
        raise _forbidden(f"{signer.name} may not add a member as {newcomer.role}.")
    before = chain.members.get(newcomer.id, newcomer)
    # Who is taken back came by that invite still, and what it grants was not taken away.
    back = replace(newcomer, invited_by=before.invited_by, invite_grants=before.invite_grants)
    return _with(chain, back)


def _joined(chain: Chain, entry: Entry) -> Chain:
    """Take in a member that shows an invite: signed by an admin, proved by its one-time key."""
    said = entry.fields
    invite = Invite.parse(unb64(said.invite or ""))
    newcomer = _newcomer(chain, entry)
    inviter = chain.members.get(invite.fields.by)
    uses = chain.invite_uses.get(invite.fields.id, 0)
    if inviter is None or not inviter.is_good(said.at):
        raise _forbidden(f"Entry {said.seq} rests on an invite by somebody who is no member.")
    refusals = (
        (said.by != newcomer.id or not entry.is_signed_by(newcomer.key), "is not the joiner's own"),
        (
            newcomer.id in chain.members and not chain.members[newcomer.id].may_come(said.at),
            "brings back somebody whom an admin removed",
        ),
        (not invite.is_signed_by(inviter.key), "rests on an invite its admin did not sign"),
        (not inviter.may_give(newcomer.role), "rests on an invite whose admin lost the right"),
        (invite.fields.mesh != chain.mesh, "rests on an invite to another mesh"),
        (newcomer.role != invite.fields.role, "takes another role than its invite gives"),
        (newcomer.custody is not Custody.SELF, "takes a custody that only an admin can give"),
        (uses >= invite.fields.uses, "rests on an invite that is used up"),
        (said.at > invite.fields.expires, "rests on an invite that had expired"),
        (
            not invite.proves(unb64(said.proof or ""), newcomer.id),
            "does not prove that its joiner held the invite",
        ),
    )
    for refused, why in refusals:
        if refused:
            raise _forbidden(f"Entry {said.seq} {why}.")
    others = (one for one in chain.members.values() if one.id != newcomer.id)
    if any(one.name == newcomer.name and one.keeps_name(said.at) for one in others):
        raise name_kept(newcomer.name)
    counted = {**chain.invite_uses, invite.fields.id: uses + 1}
    granted = tuple(invite.fields.grants or ())
    invited = replace(newcomer, invited_by=inviter.id, invite_grants=granted)
    return replace(_with(chain, invited), invite_uses=counted)


def _newcomer(chain: Chain, entry: Entry) -> Member:
    said = entry.fields
    key = _key_of(entry)
    member = member_id(key)
    if said.member != member:
        raise _forbidden("A new member's id is not made of its key.")
    present = [one for one in chain.members.values() if not one.removed]
    if any(one.id == member for one in present):
        raise Conflict(
            f"{member} is a member already.",
            "claudemesh members lists those who are.",
            code="already_a_member",
        )
    if any(one.name == said.name for one in present):
        raise name_taken(said.name)
    return Member(
        member,
        key,
        said.name or member[-8:],
        _role(said.role),
        _custody(said.custody),
        expires_ms=said.expires,
        scopes=tuple(said.scopes or ()),
    )


def _removed(chain: Chain, signer: Member, entry: Entry) -> Chain:
    """Remove a member; of one that was removed before, say anew until when, or that it is so."""
    said = entry.fields
    target = _known(chain, said.member)
    if target.id == signer.id and said.expires is not None:
        raise _forbidden(f"{signer.name} may not leave and say when it returns.")
    if target.id != signer.id and not signer.may_give(target.role):
        raise _forbidden(f"{signer.name} may not remove {target.name}.")
    _keep_an_owner(chain, target)
    # Who leaves gives its name up.
    kept = said.name_until if target.id != signer.id else None
    gone = replace(target, removed=True, removed_by=signer.id, name_until_ms=kept)
    return _with(chain, replace(gone, returns_ms=said.expires))


def _returned(chain: Chain, signer: Member, entry: Entry) -> Chain:
    """Take back in a member whose removal had an end; how late it is, is for the broker to see."""
    said = entry.fields
    if not signer.removed or signer.returns_ms is None or said.at < signer.returns_ms:
        raise _forbidden(f"{signer.name} is not to return yet.")
    # It can choose no other name, and nobody makes a removal endless by taking this one.
    name = name_when_back(chain.members.values(), signer, said.at)
    back = replace(signer, name=name, removed=False, removed_by="")
    return _with(chain, replace(back, returns_ms=None, name_until_ms=None))


def _altered(chain: Chain, signer: Member, entry: Entry) -> Chain:
    """Give a member another role or custody; one that is removed has it when it is back."""
    said = entry.fields
    target = _known(chain, said.member)
    role = _role(said.role) if said.kind == EntryKind.ROLE else target.role
    custody = target.custody if said.kind == EntryKind.ROLE else _custody(said.custody)
    # Whoever else holds a member's key could make itself unseen by that member's own word.
    is_own = custody is not target.custody and target.id == signer.id
    if is_own or not (signer.may_give(target.role) and signer.may_give(role)):
        raise _forbidden(f"{signer.name} may not change {target.name}.")
    if role is not Role.OWNER:
        _keep_an_owner(chain, target)
    return _with(chain, replace(target, role=role, custody=custody))


def _revoked(chain: Chain, signer: Member, entry: Entry) -> Chain:
    """Revoke a device, also of a member that is removed: it may return."""
    said = entry.fields
    target = _known(chain, said.member)
    if target.id != signer.id and not signer.may_give(target.role):
        raise _forbidden(f"{signer.name} may not revoke a device of {target.name}.")
    if not said.device:
        raise Invalid("A revocation names no device.", code="malformed")
    return replace(chain, revoked=chain.revoked | {(target.id, said.device)})


def _renamed(chain: Chain, signer: Member, entry: Entry) -> Chain:
    if not signer.may_give(Role.ADMIN):
        raise _forbidden(f"{signer.name} may not rename the mesh.")
    if not entry.fields.mesh_name:
        raise Invalid("A new name of the mesh is empty.", "Give it one.", code="malformed")
    return replace(chain, name=entry.fields.mesh_name)


def _ended(chain: Chain, signer: Member, entry: Entry) -> Chain:
    if signer.role is not Role.OWNER:
        raise _forbidden(f"{signer.name} may not end the mesh (entry {entry.fields.seq}).")
    return replace(chain, ended=True)


_Change = Callable[[Chain, Member, Entry], Chain]
_CHANGES: Final[dict[str, _Change]] = {
    EntryKind.ADD: _added,
    EntryKind.REMOVE: _removed,
    EntryKind.RETURN: _returned,
    EntryKind.ROLE: _altered,
    EntryKind.CUSTODY: _altered,
    EntryKind.REVOKE_DEVICE: _revoked,
    EntryKind.RENAME: _renamed,
    EntryKind.END: _ended,
}


def _keep_an_owner(chain: Chain, leaving: Member) -> None:
    others = (one for one in chain.members.values() if one.id != leaving.id and not one.removed)
    if leaving.role is Role.OWNER and not any(one.role is Role.OWNER for one in others):
        raise Forbidden(
            "A mesh keeps at least one owner.",
            "Make another member one first: claudemesh role NAME owner",
            code="last_owner",
        )


def _known(chain: Chain, member: str | None) -> Member:
    """Give a member, removed or not."""
    return chain.members.get(member or "") or chain.member(member or "")


def _with(chain: Chain, member: Member) -> Chain:
    return replace(chain, members={**chain.members, member.id: member})


def _key_of(entry: Entry) -> VerifyKey:
    return VerifyKey(unb64(entry.fields.key or ""))


def _role(text: str | None) -> Role:
    try:
        return Role(text or "")
    except ValueError as error:
        raise Invalid("A membership entry gives no known role.", code="malformed") from error


def _custody(text: str | None) -> Custody:
    try:
        return Custody(text or Custody.SELF)
    except ValueError as error:
        raise Invalid("A membership entry gives no known custody.", code="malformed") from error


def _forbidden(reason: str) -> MeshError:
    return Forbidden(
        reason,
        "claudemesh members --all shows who is here, in which role, and who was removed.",
        code="membership_forbidden",
    )
