"""Invites: a way in that an admin signed, and every client checks for itself."""

from typing import Any

import pytest

from claudemesh_wire import canonical
from claudemesh_wire.invites import DOMAIN, MAX_INVITE_BYTES, Invite
from claudemesh_wire.keys import SIGNATURE_BYTES, b64, make_id
from claudemesh_wire.membership import Custody
from claudemesh_wire.message import Role
from tests.wire.world import (
    ADA,
    BOB,
    CLEO,
    DAN,
    MESH,
    NOW,
    OTHER_MESH,
    Log,
    Person,
    code_of,
    invite,
    joining,
    seed,
)

FORBIDDEN = "membership_forbidden"


def refused(log: Log, who: Person, shown: Invite, **changes: Any) -> str:
    return log.refuses("add", who, **{**joining(who, shown), **changes})


def test_who_shows_an_invite_of_an_admin_is_a_member() -> None:
    log = Log().bring(BOB, "admin")
    log.add("add", CLEO, **joining(CLEO, invite(BOB)))
    cleo = log.chain.member(CLEO.id)
    assert (cleo.name, cleo.role, cleo.custody) == ("cleo", Role.MEMBER, Custody.SELF)


def test_an_invite_is_used_as_often_as_it_says() -> None:
    shown = invite(ADA, uses=2)
    log = Log().add("add", BOB, **joining(BOB, shown)).add("add", CLEO, **joining(CLEO, shown))
    assert log.chain.invite_uses == {shown.fields.id: 2}
    assert refused(log, DAN, shown) == FORBIDDEN
    another = invite(ADA, id=make_id("", seed("another")))
    assert log.add("add", DAN, **joining(DAN, another)).chain.member(DAN.id).name == "dan"


def test_an_invite_expires() -> None:
    shown = invite(ADA, expires=NOW)
    assert refused(Log(), BOB, shown, at=NOW + 1) == FORBIDDEN
    assert Log().add("add", BOB, **joining(BOB, shown), at=NOW).chain.member(BOB.id)


def test_an_invite_gives_its_role_and_no_other() -> None:
    assert refused(Log(), BOB, invite(ADA), role="admin") == FORBIDDEN
    assert refused(Log(), BOB, invite(ADA, role="observer"), role="member") == FORBIDDEN
    log = Log().add("add", BOB, **{**joining(BOB, invite(ADA, role="owner")), "role": "owner"})
    assert log.chain.member(BOB.id).role is Role.OWNER


def test_an_invite_gives_no_custody() -> None:
    assert refused(Log(), BOB, invite(ADA), custody="broker") == FORBIDDEN


@pytest.mark.parametrize("role", ["member", "observer"])
def test_who_may_not_add_may_not_invite(role: str) -> None:
    assert refused(Log().bring(BOB, role), CLEO, invite(BOB)) == FORBIDDEN


def test_an_admin_invites_no_owner() -> None:
    log = Log().bring(BOB, "admin")
    assert refused(log, CLEO, invite(BOB, role="owner"), role="owner") == FORBIDDEN


def test_an_invite_dies_with_its_admins_rights() -> None:
    shown = invite(BOB)
    demoted = Log().bring(BOB, "admin").add("role", ADA, member=BOB.id, role="member")
    removed = Log().bring(BOB, "admin").add("remove", ADA, member=BOB.id)
    for log in (demoted, removed, Log()):
        assert refused(log, CLEO, shown) == FORBIDDEN


def test_an_invite_is_signed_by_the_admin_it_names() -> None:
    log = Log().bring(BOB)
    assert refused(log, CLEO, invite(ADA, signer=BOB)) == FORBIDDEN


def test_an_invite_to_another_mesh_is_refused() -> None:
    assert refused(Log(), BOB, invite(ADA, mesh=OTHER_MESH)) == FORBIDDEN


def test_a_proof_is_for_one_member() -> None:
    shown = invite(ADA)
    stolen = joining(CLEO, shown, meant=BOB)
    assert Log().refuses("add", CLEO, **stolen) == FORBIDDEN


@pytest.mark.parametrize("proof", [None, "", b64(bytes(64))])
def test_an_invite_is_proved_by_its_one_time_key(proof: str | None) -> None:
    assert refused(Log(), BOB, invite(ADA), proof=proof) == FORBIDDEN


def test_only_the_joiner_can_use_its_proof() -> None:
    shown, log = invite(ADA), Log().bring(BOB)
    for by, signer in ((BOB, BOB), (BOB, CLEO), (CLEO, BOB)):
        assert log.refuses("add", by, signer=signer, **joining(CLEO, shown)) == FORBIDDEN
    other = {**joining(CLEO, shown), "key": b64(DAN.key.public.raw)}
    assert log.refuses("add", CLEO, **other) == FORBIDDEN


def test_nobody_comes_back_by_invite() -> None:
    log = Log().bring(BOB).add("remove", ADA, member=BOB.id)
    assert refused(log, BOB, invite(ADA)) == FORBIDDEN
    assert refused(log.bring(BOB), BOB, invite(ADA)) == "already_a_member"


def test_a_joiner_cannot_take_the_name_of_somebody_present() -> None:
    assert refused(Log(), BOB, invite(ADA), name="ada") == "name_taken"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"v": 2}, "unsupported_version"),
        ({"v": None}, "unsupported_version"),
        ({"mesh": "home"}, "malformed"),
        ({"id": "INVITE"}, "malformed"),
        ({"uses": 0}, "malformed"),
        ({"uses": 10_001}, "malformed"),
        ({"uses": "1"}, "malformed"),
        ({"expires": None}, "malformed"),
        ({"by": "ada"}, "malformed"),
        ({"key": None}, "malformed"),
        ({"key": "!"}, "malformed"),
        ({"key": b64(bytes(32))}, "bad_key"),
        ({"role": "x" * MAX_INVITE_BYTES}, "malformed"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_invite_is_refused(changes: dict[str, Any], code: str) -> None:
    payload = canonical.encode(invite(ADA).fields.model_dump(mode="json") | changes)
    blob = payload + ADA.key.sign(DOMAIN, payload)
    assert refused(Log(), BOB, invite(ADA), invite=b64(blob)) == code


@pytest.mark.parametrize("blob", [bytes(SIGNATURE_BYTES), b"{}" + bytes(SIGNATURE_BYTES)])
def test_what_is_too_short_for_an_invite_is_refused(blob: bytes) -> None:
    assert code_of(lambda: Invite.parse(blob)) in {"malformed", "unsupported_version"}


def test_an_invite_is_read_as_it_was_issued() -> None:
    shown = invite(ADA, uses=7)
    assert Invite.parse(shown.blob) == shown
    assert shown.is_signed_by(ADA.key.public)
    assert not shown.is_signed_by(BOB.key.public)
    assert shown.fields.mesh == MESH
