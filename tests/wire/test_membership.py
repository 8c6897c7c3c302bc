"""The membership chain: what an entry may do, and whose word it must be."""

from typing import Any

import pytest

from claudemesh_wire import canonical
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.entries import DOMAIN, MAX_ENTRY_BYTES
from claudemesh_wire.keys import SIGNATURE_BYTES, SigningKey, b64, mesh_id
from claudemesh_wire.membership import Chain, Custody, Entry, EntryFields, Head, walk
from claudemesh_wire.message import Role
from tests.wire.world import (
    ADA,
    ADAS,
    BOB,
    BOBS,
    CLEO,
    CLEOS,
    DAN,
    DANS,
    MESH,
    NOW,
    OTHER_MESH,
    SALT,
    Log,
    Person,
    code_of,
    seed,
)

EVE = Person("eve")


def roles(chain: Chain) -> dict[str, str]:
    return {one.name: one.role for one in chain.members.values() if not one.removed}


def founding(by: Person = ADA, signer: Person | None = None, **changes: Any) -> bytes:
    """The first entry of ada's mesh, with any field another."""
    said = {
        "mesh": MESH,
        "seq": 1,
        "prev": "",
        "at": NOW,
        "kind": "found",
        "by": by.id,
        **ADA.named(),
        "salt": b64(SALT),
    }
    return Entry.issue(EntryFields(**{**said, **changes}), (signer or by).key).blob


def test_the_founder_owns_the_mesh() -> None:
    chain = Log().chain
    assert roles(chain) == {"ada": Role.OWNER}
    assert chain.member(ADA.id).custody is Custody.SELF
    assert chain.name == "home"
    assert chain.head == Head(1, Entry.parse(chain.entries[0]).hash)


def test_a_mesh_that_says_no_names_has_some() -> None:
    chain = walk(MESH, [founding(name=None)])
    assert (chain.name, chain.member(ADA.id).name) == ("mesh", "founder")


@pytest.mark.parametrize(
    "changes",
    [
        {"signer": BOB},
        {"by": BOB},
        {"member": BOB.id},
        {"member": None},
        {"key": b64(BOB.key.public.raw)},
        {"salt": b64(seed("other")[:16])},
        {"salt": None},
        {"kind": "add"},
    ],
    ids=str,
)
def test_nobody_else_founds_a_mesh(changes: dict[str, Any]) -> None:
    assert code_of(lambda: walk(MESH, [founding(**changes)])) == "membership_forbidden"


def test_a_mesh_is_founded_once() -> None:
    log = Log()
    again = log.refuses("found", ADA, **ADA.named(), salt=b64(SALT))
    assert again == "unsupported_version"


def test_an_empty_chain_has_no_members() -> None:
    chain = walk(MESH, [])
    assert (chain.head.seq, chain.head_at(1)) == (0, None)
    assert code_of(lambda: chain.member(ADA.id)) == "not_a_member"


def test_admins_and_owners_add_members() -> None:
    log = Log().bring(BOB, "admin").bring(CLEO, by=BOB).bring(DAN, "owner")
    assert roles(log.chain) == {"ada": "owner", "bob": "admin", "cleo": "member", "dan": "owner"}


def test_an_added_member_keeps_what_its_entry_says() -> None:
    log = Log().add(
        "add",
        ADA,
        **BOB.named(),
        role="member",
        custody="broker",
        scopes=["topic:write"],
        expires=NOW,
    )
    bob = log.chain.member(BOB.id)
    assert (bob.custody, bob.scopes, bob.expires_ms) == (Custody.BROKER, ("topic:write",), NOW)


def test_a_member_without_a_name_is_called_by_its_id() -> None:
    log = Log().add("add", ADA, **{**BOB.named(), "name": None}, role="member")
    log.add("add", ADA, **{**CLEO.named(), "name": None}, role="member")
    assert log.chain.member(BOB.id).name == BOB.id[-8:]


@pytest.mark.parametrize(
    ("by", "role"), [("bob", "owner"), ("cleo", "member"), ("cleo", "observer"), ("dan", "member")]
)
def test_who_may_not_add_a_member_adds_none(by: str, role: str) -> None:
    log = Log().bring(BOB, "admin").bring(CLEO).bring(DAN, "observer")
    who = {"bob": BOB, "cleo": CLEO, "dan": DAN}[by]
    assert log.refuses("add", who, **EVE.named(), role=role) == "membership_forbidden"


def test_nobody_adds_himself() -> None:
    log = Log().bring(BOB, "admin").add("remove", ADA, member=BOB.id)
    assert log.refuses("add", BOB, **BOB.named(), role="member") == "membership_forbidden"
    assert log.refuses("add", EVE, **EVE.named(), role="owner") == "membership_forbidden"


def test_a_foreign_signature_is_refused() -> None:
    log = Log().bring(BOB, "admin")
    for signer in (BOB, EVE):
        refused = log.refuses("add", ADA, signer=signer, **CLEO.named(), role="member")
        assert refused == "membership_forbidden"


def test_an_id_is_made_of_its_key() -> None:
    named = {**CLEO.named(), "key": b64(EVE.key.public.raw)}
    assert Log().refuses("add", ADA, **named, role="member") == "membership_forbidden"


def test_a_member_is_added_once() -> None:
    log = Log().bring(BOB)
    assert log.refuses("add", ADA, **BOB.named(), role="admin") == "already_a_member"


def test_no_two_present_members_have_one_name() -> None:
    log = Log().bring(BOB)
    namesake = {**CLEO.named(), "name": "bob"}
    assert log.refuses("add", ADA, **namesake, role="member") == "name_taken"
    founder = {**CLEO.named(), "name": "ada"}
    assert log.refuses("add", ADA, **founder, role="member") == "name_taken"
    log.add("remove", ADA, member=BOB.id).add("add", ADA, **namesake, role="member")
    assert roles(log.chain) == {"ada": "owner", "bob": "member"}


def test_a_removed_member_may_be_added_again_by_an_admin() -> None:
    log = Log().bring(BOB, "admin").add("remove", ADA, member=BOB.id)
    assert code_of(lambda: log.chain.member(BOB.id)) == "member_removed"
    assert log.chain.members[BOB.id].removed
    assert roles(log.bring(BOB).chain) == {"ada": "owner", "bob": "member"}


def test_a_removed_admin_signs_nothing_more() -> None:
    log = Log().bring(BOB, "admin").bring(CLEO).add("remove", ADA, member=BOB.id)
    assert log.refuses("remove", BOB, member=CLEO.id) == "membership_forbidden"
    assert log.refuses("add", BOB, **DAN.named(), role="member") == "membership_forbidden"


def test_a_demoted_admin_signs_nothing_more() -> None:
    log = Log().bring(BOB, "admin").bring(CLEO)
    log.add("role", ADA, member=BOB.id, role="member")
    assert log.refuses("remove", BOB, member=CLEO.id) == "membership_forbidden"
    assert log.refuses("role", BOB, member=BOB.id, role="admin") == "membership_forbidden"
    assert log.refuses("add", BOB, **DAN.named(), role="member") == "membership_forbidden"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("remove", {}),
        ("role", {"role": "member"}),
        ("role", {"role": "owner"}),
        ("custody", {"custody": "broker"}),
        ("revoke_device", {"device": b64(seed("device"))}),
    ],
)
def test_an_admin_cannot_touch_an_owner(kind: str, fields: dict[str, str]) -> None:
    log = Log().bring(BOB, "admin")
    assert log.refuses(kind, BOB, member=ADA.id, **fields) == "membership_forbidden"


def test_an_admin_makes_no_owner() -> None:
    log = Log().bring(BOB, "admin").bring(CLEO)
    for who in (BOB, CLEO):
        refused = log.refuses("role", BOB, member=who.id, role="owner")
        assert refused == "membership_forbidden"


def test_an_admin_changes_other_admins_and_members() -> None:
    log = Log().bring(BOB, "admin").bring(CLEO, "admin").bring(DAN)
    log.add("role", BOB, member=DAN.id, role="observer").add("remove", CLEO, member=BOB.id)
    assert roles(log.chain) == {"ada": "owner", "cleo": "admin", "dan": "observer"}


def test_custody_is_changed_by_an_admin_only() -> None:
    log = Log().bring(BOB, "admin").bring(CLEO)
    assert log.refuses("custody", CLEO, member=CLEO.id, custody="self") == "membership_forbidden"
    log.add("custody", BOB, member=CLEO.id, custody="connector")
    cleo = log.chain.member(CLEO.id)
    assert (cleo.custody, cleo.role) == (Custody.CONNECTOR, Role.MEMBER)


def test_a_mesh_keeps_an_owner() -> None:
    log = Log().bring(BOB, "admin")
    assert log.refuses("remove", ADA, member=ADA.id) == "last_owner"
    assert log.refuses("role", ADA, member=ADA.id, role="admin") == "last_owner"
    log.add("role", ADA, member=ADA.id, role="owner")
    log.add("custody", ADA, member=ADA.id, custody="self").bring(CLEO, "owner")
    log.add("role", CLEO, member=ADA.id, role="member")
    assert roles(log.chain) == {"ada": "member", "bob": "admin", "cleo": "owner"}
    assert log.refuses("remove", CLEO, member=CLEO.id) == "last_owner"


def test_a_removed_owner_does_not_count() -> None:
    log = Log().bring(BOB, "owner").add("remove", ADA, member=BOB.id)
    assert log.refuses("remove", ADA, member=ADA.id) == "last_owner"


def test_a_member_may_leave() -> None:
    log = Log().bring(BOB).add("remove", BOB, member=BOB.id)
    assert roles(log.chain) == {"ada": "owner"}


@pytest.mark.parametrize("kind", ["remove", "role", "custody", "revoke_device"])
@pytest.mark.parametrize("who", [EVE, None])
def test_nothing_is_done_to_somebody_who_is_no_member(kind: str, who: Person | None) -> None:
    fields = {"role": "member", "custody": "self", "device": b64(seed("device"))}
    target = who.id if who else None
    assert Log().refuses(kind, ADA, member=target, **fields) == "not_a_member"


def test_a_device_is_revoked_by_its_member_or_an_admin() -> None:
    log = Log().bring(BOB, "admin").bring(CLEO).bring(DAN)
    for by, owner, device in ((CLEO, CLEO, CLEOS), (BOB, DAN, DANS)):
        certificate = device.certificate()
        assert log.chain.member_behind(certificate).id == owner.id
        digest = b64(device.sign.public.fingerprint)
        log.add("revoke_device", by, member=owner.id, device=digest)
        refused = code_of(lambda chain=log.chain, of=certificate: chain.member_behind(of))
        assert refused == "device_revoked"
    assert log.refuses("revoke_device", CLEO, member=DAN.id, device=b64(seed("x"))) == (
        "membership_forbidden"
    )


def test_a_member_cannot_revoke_the_device_of_another_as_its_own() -> None:
    digest = b64(ADAS.sign.public.fingerprint)
    log = Log().bring(BOB).add("revoke_device", BOB, member=BOB.id, device=digest)
    assert log.chain.member_behind(ADAS.certificate()).id == ADA.id


@pytest.mark.parametrize("device", [None, "", "all", b64(bytes(31))])
def test_a_revocation_names_a_device(device: str | None) -> None:
    log = Log().bring(BOB)
    said = {"v": 1, "mesh": MESH, "seq": 3, "prev": b64(log.chain.head.hash), "at": NOW}
    said |= {"kind": "revoke_device", "by": BOB.id, "member": BOB.id, "device": device}
    assert code_of(lambda: log.chain.extend([raw_entry(said, BOB)])) == "malformed"


def test_a_certificate_counts_for_a_present_member_and_under_its_key() -> None:
    chain = Log().bring(BOB).chain
    assert chain.member_behind(BOBS.certificate()).name == "bob"
    strangers = CLEOS.certificate()
    assert code_of(lambda: chain.member_behind(strangers)) == "not_a_member"
    forged = Certificate.issue(ADAS.fields(), BOB.key)
    assert code_of(lambda: chain.member_behind(forged)) == "certificate_forged"
    elsewhere = BOBS.certificate(mesh=OTHER_MESH)
    assert code_of(lambda: chain.member_behind(elsewhere)) == "wrong_mesh"
    left = Log().bring(BOB).add("remove", ADA, member=BOB.id).chain
    assert code_of(lambda: left.member_behind(BOBS.certificate())) == "member_removed"


def raw_entry(said: dict[str, Any], signer: Person) -> bytes:
    payload = canonical.encode(said)
    return payload + signer.key.sign(DOMAIN, payload)


def test_a_gap_is_refused() -> None:
    log = Log().bring(BOB).bring(CLEO)
    first, _, third = log.blobs
    assert code_of(lambda: walk(MESH, [first, third])) == "membership_gap"
    assert code_of(lambda: walk(MESH, [third])) == "membership_gap"
    assert code_of(lambda: walk(MESH, [first, first])) == "membership_gap"
    assert log.refuses("remove", ADA, member=BOB.id, seq=0) == "membership_gap"


def test_a_fork_is_refused() -> None:
    ours, theirs = Log().bring(BOB).bring(CLEO), Log().bring(DAN).bring(CLEO)
    assert code_of(lambda: walk(MESH, [*ours.blobs[:2], theirs.blobs[2]])) == "membership_fork"
    assert Log().refuses("add", ADA, **BOB.named(), role="member", prev="") == "membership_fork"
    first = founding(prev=b64(seed("before")))
    assert code_of(lambda: walk(MESH, [first])) == "membership_fork"


def test_an_entry_of_another_mesh_is_refused() -> None:
    other = mesh_id(ADA.key.public, seed("salt of the other")[:16])
    refused = Log().refuses("add", ADA, **BOB.named(), role="member", mesh=other)
    assert refused == "wrong_mesh"
    assert code_of(lambda: walk(other, Log().blobs)) == "wrong_mesh"


def test_a_refused_entry_leaves_the_chain_as_it_was() -> None:
    log = Log().bring(BOB)
    chain = log.chain
    code_of(lambda: chain.extend([log.entry("remove", BOB, member=ADA.id)]))
    assert chain == log.chain
    longer = chain.extend([log.entry("remove", ADA, member=BOB.id)])
    assert (chain.head.seq, longer.head.seq) == (2, 3)
    assert "bob" in roles(chain)


def test_the_heads_of_the_past_are_known() -> None:
    log = Log().bring(BOB)
    chain = log.bring(CLEO).chain
    assert chain.head_at(3) == chain.head
    assert chain.head_at(2) == walk(MESH, log.blobs[:2]).head
    assert [chain.head_at(seq) for seq in (-1, 0, 4)] == [None, None, None]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"v": 2}, "unsupported_version"),
        ({"v": None}, "unsupported_version"),
        ({"kind": "promote"}, "unsupported_version"),
        ({"kind": None}, "malformed"),
        ({"seq": "3"}, "malformed"),
        ({"at": None}, "malformed"),
        ({"at": 2**53}, "malformed"),
        ({"by": "ada"}, "malformed"),
        ({"member": "bob"}, "malformed"),
        ({"role": "king"}, "malformed"),
        ({"role": None}, "malformed"),
        ({"custody": "nobody"}, "malformed"),
        ({"name": "Bob"}, "malformed"),
        ({"name": "mem_x"}, "malformed"),
        ({"mesh_name": "x" * 41}, "malformed"),
        ({"mesh_name": ""}, "malformed"),
        ({"mesh_name": "te\u202eam"}, "malformed"),
        ({"mesh_name": "te\u0430m"}, "malformed"),
        ({"mesh_name": "team\n"}, "malformed"),
        ({"prev": "!"}, "malformed"),
        ({"key": "!"}, "malformed"),
        ({"key": b64(bytes(31))}, "bad_key"),
        ({"key": b64(bytes(32))}, "bad_key"),
        ({"key": None}, "bad_key"),
        ({"scopes": ["x" * MAX_ENTRY_BYTES]}, "malformed"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_entry_is_refused(changes: dict[str, Any], code: str) -> None:
    log = Log()
    said = {"v": 1, "mesh": MESH, "seq": 2, "prev": b64(log.chain.head.hash), "at": NOW}
    said |= {"kind": "add", "by": ADA.id, **BOB.named(), "role": "member"}
    walk(MESH, [*log.blobs, raw_entry(said, ADA)])
    assert code_of(lambda: log.chain.extend([raw_entry(said | changes, ADA)])) == code


@pytest.mark.parametrize("blob", [b"", bytes(SIGNATURE_BYTES), b"{}" + bytes(SIGNATURE_BYTES)])
def test_what_is_too_short_for_an_entry_is_refused(blob: bytes) -> None:
    assert code_of(lambda: Entry.parse(blob)) in {"malformed", "unsupported_version"}


def test_every_bit_of_an_entry_is_signed() -> None:
    log = Log()
    blob = log.entry("add", ADA, **BOB.named(), role="member")
    entry = Entry.parse(blob)
    for at in range(len(blob)):
        altered = bytearray(blob)
        altered[at] ^= 1
        assert not Entry(bytes(altered), entry.fields).is_signed_by(SigningKey(ADA.key.seed).public)
