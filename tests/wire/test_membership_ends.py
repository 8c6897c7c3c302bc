"""How memberships and meshes end, and begin again: removals with an end, leaving, ending."""

from typing import Any

import pytest

from claudemesh_wire.keys import b64
from claudemesh_wire.membership import Chain
from claudemesh_wire.message import Role
from tests.wire.world import ADA, BOB, BOBS, CLEO, DAN, NOW, Log, Person, code_of, invite, joining

HOUR = 3600 * 1000
LATER = NOW + HOUR
EVE = Person("eve")
FORBIDDEN = "membership_forbidden"


def kicked() -> Log:
    """A log in which bob, an admin, was removed for an hour."""
    return Log().bring(BOB, "admin").add("remove", ADA, member=BOB.id, expires=LATER)


def names(chain: Chain) -> set[str]:
    return {one.name for one in chain.members.values() if not one.removed}


def test_a_removed_member_learns_when_it_may_return() -> None:
    chain = kicked().chain
    assert code_of(lambda: chain.member(BOB.id)) == "member_removed"
    assert chain.members[BOB.id].returns_ms == LATER
    assert chain.members[BOB.id].removed_by == ADA.id
    assert [chain.is_present(one.id) for one in (ADA, BOB, CLEO)] == [True, False, False]


def test_a_member_whose_time_is_over_returns_by_its_own_signature() -> None:
    back = kicked().add("return", BOB, at=LATER).chain.member(BOB.id)
    assert (back.name, back.role, back.removed) == ("bob", Role.ADMIN, False)


def test_nobody_returns_before_the_time() -> None:
    assert kicked().refuses("return", BOB, at=LATER - 1) == FORBIDDEN


def test_nobody_returns_from_a_removal_without_an_end() -> None:
    log = Log().bring(BOB).add("remove", ADA, member=BOB.id)
    assert log.refuses("return", BOB, at=LATER) == FORBIDDEN


def test_nobody_returns_who_was_not_removed() -> None:
    assert Log().bring(BOB).refuses("return", BOB, at=LATER) == FORBIDDEN
    assert Log().refuses("return", BOB, at=LATER) == FORBIDDEN


def test_nobody_returns_by_the_signature_of_another() -> None:
    log = kicked().bring(CLEO)
    assert log.refuses("return", BOB, at=LATER, signer=CLEO) == FORBIDDEN


def test_a_return_counts_once() -> None:
    log = kicked().add("return", BOB, at=LATER)
    assert log.refuses("return", BOB, at=LATER) == FORBIDDEN


def test_who_returns_to_a_name_that_is_taken_has_it_with_a_number() -> None:
    namesake = {**CLEO.named(), "name": "bob"}
    log = kicked().add("add", ADA, **namesake, role="member").add("return", BOB, at=LATER)
    assert {one.id: one.name for one in log.chain.members.values()} == {
        ADA.id: "ada",
        BOB.id: "bob-2",
        CLEO.id: "bob",
    }


def test_an_admin_takes_back_before_the_time() -> None:
    log = kicked().bring(BOB)
    assert log.chain.member(BOB.id).returns_ms is None
    assert log.refuses("return", BOB, at=LATER) == FORBIDDEN


def test_a_removed_member_signs_nothing_but_its_return() -> None:
    log = kicked().bring(CLEO)
    for kind in ("remove", "role", "revoke_device", "rename", "end"):
        assert log.refuses(kind, BOB, member=CLEO.id, role="admin") == FORBIDDEN


def test_who_left_may_come_again_by_an_invite() -> None:
    log = Log().bring(BOB).add("remove", BOB, member=BOB.id)
    assert log.chain.members[BOB.id].has_left
    log.add("add", BOB, **joining(BOB, invite(ADA)))
    assert names(log.chain) == {"ada", "bob"}


def test_who_was_removed_comes_by_no_invite_before_it_may_return() -> None:
    by_invite = joining(BOB, invite(ADA))
    assert kicked().refuses("add", BOB, at=LATER - 1, **by_invite) == FORBIDDEN
    back = kicked().add("add", BOB, at=LATER, **by_invite).chain.member(BOB.id)
    # As what the invite says, like one that left.
    assert (back.name, back.role, back.returns_ms) == ("bob", Role.MEMBER, None)
    banned = Log().bring(BOB).add("remove", ADA, member=BOB.id)
    assert banned.refuses("add", BOB, at=LATER, **by_invite) == FORBIDDEN


def as_bob(who: Person) -> dict[str, Any]:
    """What the entry says of somebody who joins under bob's name."""
    return {**joining(who, invite(ADA)), "name": "bob"}


@pytest.mark.parametrize("until", [None, NOW + HOUR // 2])
def test_the_name_of_who_was_removed_is_kept_from_joiners(until: int | None) -> None:
    said = {"member": BOB.id, "expires": until, "name_until": LATER}
    log = Log().bring(BOB).add("remove", ADA, **said)
    assert log.refuses("add", CLEO, at=LATER - 1, **as_bob(CLEO)) == "name_taken"
    assert log.chain.extend([log.entry("add", CLEO, at=LATER, **as_bob(CLEO))])


def test_a_name_is_kept_from_others_alone() -> None:
    said = {"member": BOB.id, "expires": NOW + 1, "name_until": LATER}
    log = Log().bring(BOB).add("remove", ADA, **said)
    by_itself = log.chain.extend([log.entry("return", BOB, at=NOW + 1)])
    by_invite = log.chain.extend([log.entry("add", BOB, at=NOW + 1, **as_bob(BOB))])
    by_admin = log.chain.extend([log.entry("add", ADA, **BOB.named(), role="member")])
    for chain in (by_itself, by_invite, by_admin):
        bob = chain.member(BOB.id)
        assert (bob.name, bob.name_until_ms) == ("bob", None)
    # An admin's word goes before that of another.
    named = {**CLEO.named(), "name": "bob"}
    assert log.add("add", ADA, **named, role="member").chain.member(CLEO.id).name == "bob"


def test_a_log_that_keeps_no_names_is_walked_as_before() -> None:
    log = kicked().add("add", CLEO, **as_bob(CLEO))
    assert names(log.chain) == {"ada", "bob"}


def test_who_leaves_gives_its_name_up() -> None:
    log = Log().bring(BOB).add("remove", BOB, member=BOB.id, name_until=LATER)
    assert names(log.add("add", CLEO, **as_bob(CLEO)).chain) == {"ada", "bob"}


def test_who_is_taken_back_came_by_its_invite_still() -> None:
    shown = joining(BOB, invite(ADA, grants=["task", "tool"]))
    log = Log().add("add", BOB, **shown).add("remove", ADA, member=BOB.id)
    bob = log.bring(BOB).chain.member(BOB.id)
    assert (bob.invited_by, bob.invite_grants) == (ADA.id, ("task", "tool"))
    assert (bob.removed, bob.removed_by) == (False, "")


def test_an_invite_says_who_invited_and_what_is_granted() -> None:
    shown = invite(ADA, grants=["task", "tool"])
    bob = Log().add("add", BOB, **joining(BOB, shown)).chain.member(BOB.id)
    assert (bob.invited_by, bob.invite_grants) == (ADA.id, ("task", "tool"))
    plain = Log().add("add", BOB, **joining(BOB, invite(ADA))).chain.member(BOB.id)
    assert (plain.invited_by, plain.invite_grants) == (ADA.id, ())


@pytest.mark.parametrize("role", ["owner", "admin"])
def test_an_admin_renames_the_mesh(role: str) -> None:
    log = Log().bring(BOB, role).add("rename", BOB, mesh_name="shop")
    assert log.chain.name == "shop"


@pytest.mark.parametrize("role", ["member", "observer"])
def test_nobody_else_renames_the_mesh(role: str) -> None:
    assert Log().bring(BOB, role).refuses("rename", BOB, mesh_name="shop") == FORBIDDEN


def test_a_mesh_keeps_a_name() -> None:
    assert Log().refuses("rename", ADA) == "malformed"


@pytest.mark.parametrize("until", [None, LATER + HOUR, LATER - HOUR // 2])
def test_a_removal_is_made_longer_or_shorter(until: int | None) -> None:
    bob = kicked().add("remove", ADA, member=BOB.id, expires=until).chain.members[BOB.id]
    assert (bob.removed, bob.removed_by, bob.returns_ms) == (True, ADA.id, until)


def test_a_removal_is_changed_by_who_could_have_made_it() -> None:
    log = kicked().bring(CLEO)
    assert log.refuses("remove", CLEO, member=BOB.id) == FORBIDDEN
    log.bring(DAN, "owner").add("remove", ADA, member=DAN.id).bring(EVE, "admin")
    assert log.refuses("remove", EVE, member=DAN.id, expires=LATER) == FORBIDDEN


@pytest.mark.parametrize("kind", [{"role": "observer"}, {"custody": "connector"}])
def test_what_a_removed_member_is_changes_for_when_it_is_back(kind: dict[str, str]) -> None:
    ((name, value),) = kind.items()
    log = kicked().bring(CLEO).bring(DAN, "admin")
    assert log.refuses(name, CLEO, member=BOB.id, **kind) == FORBIDDEN
    bob = (
        log.add(name, DAN, member=BOB.id, **kind).add("return", BOB, at=LATER).chain.member(BOB.id)
    )
    assert getattr(bob, name) == value


def test_who_left_may_be_kept_out() -> None:
    log = Log().bring(BOB).add("remove", BOB, member=BOB.id).add("remove", ADA, member=BOB.id)
    assert log.refuses("add", BOB, **joining(BOB, invite(ADA))) == FORBIDDEN


def test_nobody_leaves_with_a_return_of_its_own() -> None:
    """Else an admin that goes before it is removed would have the way back in its own hand."""
    log = Log().bring(BOB, "admin")
    assert log.refuses("remove", BOB, member=BOB.id, expires=NOW + 1) == FORBIDDEN


def test_a_device_of_a_removed_member_is_revoked() -> None:
    device = b64(BOBS.sign.public.fingerprint)
    log = kicked().add("revoke_device", ADA, member=BOB.id, device=device)
    log.add("return", BOB, at=LATER)
    assert code_of(lambda: log.chain.member_behind(BOBS.certificate())) == "device_revoked"


def expiring() -> Log:
    """A log in which bob is an admin for an hour."""
    return Log().add("add", ADA, **BOB.named(), role="admin", expires=LATER)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("add", {**CLEO.named(), "role": "admin"}),
        ("rename", {"mesh_name": "shop"}),
    ],
)
def test_an_admin_whose_time_is_over_signs_nothing_more(kind: str, fields: dict[str, Any]) -> None:
    expiring().add(kind, BOB, at=LATER - 1, **fields)
    assert expiring().refuses(kind, BOB, at=LATER, **fields) == FORBIDDEN


def test_an_invite_dies_when_its_admins_time_is_over() -> None:
    shown = joining(CLEO, invite(BOB))
    assert "cleo" in names(expiring().add("add", CLEO, at=LATER - 1, **shown).chain)
    assert expiring().refuses("add", CLEO, at=LATER, **shown) == FORBIDDEN


def test_nobody_says_of_itself_who_holds_its_key() -> None:
    log = Log().add("add", ADA, **BOB.named(), role="admin", custody="broker")
    assert log.refuses("custody", BOB, member=BOB.id, custody="self") == FORBIDDEN
    assert log.add("custody", ADA, member=BOB.id, custody="connector").chain


def test_an_owner_ends_the_mesh_and_nothing_follows() -> None:
    log = Log().bring(BOB, "admin").add("end", ADA)
    assert log.chain.ended
    assert log.refuses("add", ADA, **DAN.named(), role="member") == "mesh_ended"
    assert log.refuses("rename", ADA, mesh_name="shop") == "mesh_ended"


@pytest.mark.parametrize("role", ["admin", "member", "observer"])
def test_nobody_else_ends_the_mesh(role: str) -> None:
    assert Log().bring(BOB, role).refuses("end", BOB) == FORBIDDEN
