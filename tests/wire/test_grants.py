"""Grants: the table of defaults, cell by cell; what is signed, what it decides, who is believed."""

from typing import Any, Final

import pytest

from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import (
    DEFAULTS,
    MAX_GRANT_BYTES,
    Capability,
    Grant,
    GrantFields,
    Right,
    Standing,
    believe,
    decide,
    right_of,
    services,
    standing_of,
)
from claudemesh_wire.keys import SIGNATURE_BYTES
from claudemesh_wire.message import Role
from tests.wire.world import (
    ADA,
    BOB,
    CLEO,
    MESH,
    NOW,
    OTHER_MESH,
    Log,
    Person,
    code_of,
    invite,
    joining,
)

# Written by hand: (allowed, at most so often an hour, by `now` alone).
TABLE: Final = [
    ("own", "message", (True, None, False)),
    ("own", "topic", (True, None, False)),
    ("own", "wake", (True, None, False)),
    ("own", "task", (True, None, False)),
    ("own", "tool", (True, None, False)),
    ("own", "file", (True, None, False)),
    ("member", "message", (True, None, False)),
    ("member", "topic", (True, None, False)),
    ("member", "wake", (True, 3, True)),
    ("member", "task", (False, None, False)),
    ("member", "tool", (False, None, False)),
    ("member", "file", (False, None, False)),
    ("observer", "message", (False, None, False)),
    ("observer", "topic", (False, None, False)),
    ("observer", "wake", (False, None, False)),
    ("observer", "task", (False, None, False)),
    ("observer", "tool", (False, None, False)),
    ("observer", "file", (False, None, False)),
]
CELLS: Final = [(one, what) for one, what, _ in TABLE]
YES, NO = Right(allowed=True), Right(allowed=False)


def granted(by: Person = ADA, *, signer: Person | None = None, **said: Any) -> Grant:
    """What ada says of bob."""
    plain: dict[str, Any] = {
        "mesh": MESH,
        "by": by.id,
        "to": BOB.id,
        "seq": 1,
        "at": NOW,
        "allow": [],
        "deny": [],
    }
    return Grant.issue(GrantFields(**{**plain, **said}), (signer or by).key)


def test_the_table_has_every_cell() -> None:
    assert set(CELLS) == {(one.value, what.value) for one in Standing for what in Capability}
    assert set(CELLS) == {(one.value, what.value) for one in DEFAULTS for what in DEFAULTS[one]}


@pytest.mark.parametrize(("standing", "capability", "expected"), TABLE)
def test_what_holds_without_a_grant(
    standing: str, capability: str, expected: tuple[bool, int | None, bool]
) -> None:
    right = decide(Standing(standing), None, Capability(capability))
    assert (right.allowed, right.per_hour, right.only_now) == expected


@pytest.mark.parametrize(("standing", "capability"), CELLS)
def test_what_a_grant_names_is_decided_by_it_alone(standing: str, capability: str) -> None:
    asked = (Standing(standing), Capability(capability))
    assert decide(asked[0], granted(allow=[capability]), asked[1]) == YES
    assert decide(asked[0], granted(deny=[capability]), asked[1]) == NO
    assert decide(asked[0], granted(allow=[capability], deny=[capability]), asked[1]) == NO
    assert decide(asked[0], granted(), asked[1]) == decide(asked[0], None, asked[1])


def test_what_an_invite_gave_holds_until_a_grant_says_otherwise() -> None:
    gave = frozenset({"task", "wake"})
    assert decide(Standing.MEMBER, None, Capability.TASK, initial=gave) == YES
    assert decide(Standing.MEMBER, None, Capability.WAKE, initial=gave) == YES
    assert decide(Standing.MEMBER, None, Capability.TOOL, initial=gave) == NO
    assert decide(Standing.MEMBER, granted(), Capability.TASK, initial=gave) == YES
    denied = granted(deny=["task"])
    assert decide(Standing.MEMBER, denied, Capability.TASK, initial=gave) == NO


def test_a_strict_receiver_is_woken_by_its_own_and_by_whom_it_grants_it() -> None:
    assert decide(Standing.OWN, None, Capability.WAKE, strict=True) == YES
    assert decide(Standing.MEMBER, None, Capability.WAKE, strict=True) == NO
    allowed = granted(allow=["wake"])
    assert decide(Standing.MEMBER, allowed, Capability.WAKE, strict=True) == YES
    assert decide(Standing.MEMBER, None, Capability.MESSAGE, strict=True) == YES


def test_a_capability_of_a_later_version_means_nothing() -> None:
    later = granted(allow=["provide:build", "fly"], deny=["swim"])
    assert Grant.parse(later.blob).fields.allow == ["provide:build", "fly"]
    for standing in Standing:
        for capability in Capability:
            assert decide(standing, later, capability) == decide(standing, None, capability)


@pytest.mark.parametrize(
    ("allow", "deny", "expected"),
    [
        ([], [], []),
        (["tool", "file"], [], []),
        (["provide:files", "tool", "provide:a-1_b"], [], ["a-1_b", "files"]),
        (["provide:files", "provide:build"], ["provide:files"], ["build"]),
        (["provide:", "provide:Files", "provide:a/b", "provide:" + "a" * 41], [], []),
        (["Provide:files", "provide files", " provide:files"], [], []),
    ],
)
def test_the_services_of_a_grant_are_those_it_names_well(
    allow: list[str], deny: list[str], expected: list[str]
) -> None:
    assert services(granted(allow=allow, deny=deny)) == expected


def test_who_was_granted_nothing_provides_nothing() -> None:
    assert services(None) == []


def test_the_bytes_of_a_grant_are_those_of_earlier_versions() -> None:
    said = (
        f'{{"allow":["provide:files","tool"],"at":{NOW},"by":"{ADA.id}","deny":[],"mesh":"{MESH}",'
        f'"seq":1,"to":"{BOB.id}","v":1}}'
    )
    assert granted(allow=["provide:files", "tool"]).blob[:-SIGNATURE_BYTES] == said.encode()


@pytest.mark.parametrize(
    ("role", "standing"),
    [
        (Role.OWNER, Standing.MEMBER),
        (Role.ADMIN, Standing.MEMBER),
        (Role.MEMBER, Standing.MEMBER),
        (Role.OBSERVER, Standing.OBSERVER),
    ],
)
def test_a_role_in_the_mesh_gives_nothing_at_others_peers(role: Role, standing: Standing) -> None:
    bob = Log().bring(BOB, role).chain.member(BOB.id)
    assert standing_of(ADA.id, bob) is standing
    assert standing_of(BOB.id, bob) is Standing.OWN


def test_an_invite_gives_something_at_its_makers_peers_alone() -> None:
    log = Log().bring(CLEO, "admin")
    log.add("add", BOB, **joining(BOB, invite(ADA, grants=["task", "fly"])))
    bob = log.chain.member(BOB.id)
    assert right_of(ADA.id, bob, None, Capability.TASK) == YES
    assert right_of(ADA.id, bob, granted(deny=["task"]), Capability.TASK) == NO
    assert right_of(ADA.id, bob, None, Capability.TOOL) == NO
    assert right_of(CLEO.id, bob, None, Capability.TASK) == NO
    assert right_of(BOB.id, bob, None, Capability.TOOL) == YES


def test_a_grant_survives_its_bytes() -> None:
    grant = granted(allow=["task"], deny=["wake"], seq=7)
    read = believe(Log().chain, grant.blob)
    assert read == grant
    assert (read.fields.allow, read.fields.deny, read.fields.seq) == (["task"], ["wake"], 7)


def test_no_bit_of_a_grant_can_be_changed() -> None:
    chain, blob = Log().bring(BOB).chain, granted(allow=["task"]).blob
    for at in range(len(blob)):
        altered = bytearray(blob)
        altered[at] ^= 1
        with pytest.raises(MeshError):
            believe(chain, bytes(altered))


def test_a_grant_is_believed_from_its_member_alone() -> None:
    chain = Log().bring(BOB).chain
    assert code_of(lambda: believe(chain, granted(signer=BOB).blob)) == "grant_forged"
    assert code_of(lambda: believe(chain, granted(mesh=OTHER_MESH).blob)) == "wrong_mesh"
    assert code_of(lambda: believe(chain, granted(CLEO).blob)) == "not_a_member"


def test_a_grant_of_a_removed_member_is_none() -> None:
    log = Log().bring(BOB)
    blob = granted(BOB, to=ADA.id).blob
    assert believe(log.chain, blob)
    log.add("remove", ADA, member=BOB.id)
    assert code_of(lambda: believe(log.chain, blob)) == "member_removed"


@pytest.mark.parametrize(
    "blob", [b"", bytes(SIGNATURE_BYTES), b"{}" + bytes(64), bytes(MAX_GRANT_BYTES + 1)]
)
def test_what_is_no_grant_is_refused(blob: bytes) -> None:
    with pytest.raises(MeshError) as caught:
        Grant.parse(blob)
    assert caught.value.code in {"malformed", "unsupported_version"}


def test_a_grant_of_another_version_is_refused() -> None:
    assert code_of(lambda: Grant.parse(granted(v=2).blob)) == "unsupported_version"


@pytest.mark.parametrize(
    ("right", "words"),
    [
        (YES, ""),
        (Right(allowed=True, per_hour=3, only_now=True), "now only, 3 an hour"),
        (Right(allowed=True, per_hour=2), "2 an hour"),
    ],
)
def test_bounds_are_told_in_words(right: Right, words: str) -> None:
    assert str(right) == words
