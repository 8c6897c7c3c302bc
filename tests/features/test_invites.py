"""Invites at the broker: kept for admins, shown to who has the link, and used by who may join."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from claudemesh_broker.reach import Reach
from claudemesh_broker.session import MAX_STRANGERS
from claudemesh_wire.entries import Entry, EntryFields
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Challenge
from claudemesh_wire.invites import (
    Enter,
    Invite,
    InviteFields,
    ListInvites,
    OpenInvite,
    PutInvite,
    WithdrawInvite,
    prove,
    prove_member,
    prove_opening,
)
from claudemesh_wire.keys import SigningKey, b64, make_id
from claudemesh_wire.membership import walk
from claudemesh_wire.meshes import AppendEntry, LogGrew
from claudemesh_wire.message import Role
from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import DAY, NOW, Device, Mesh, Person
from tests.support.rawpeer import RawPeer, join

REACH = Reach("https://host.example:7467", bytes(range(32)))
MINUTE = 60_000
ADA = Person("ada")
BOB = Person("bob")
CLEO = Person("cleo")


@dataclass
class Way:
    """An invite, and the one-time key that only its link holds."""

    invite: Invite
    one_time: SigningKey

    @property
    def code(self) -> str:
        return self.invite.fields.id


@dataclass
class World:
    """A public broker, a mesh, and its founder's peer."""

    broker: MemoryBroker
    mesh: Mesh
    ada: RawPeer

    def way(self, by: Person = ADA, **changed: Any) -> Way:
        one_time = SigningKey(secrets.token_bytes(32))
        fields: dict[str, Any] = {
            "mesh": self.mesh.id,
            "id": make_id("", secrets.token_bytes(16)),
            "role": "member",
            "uses": 1,
            "expires": NOW + DAY,
            "by": by.id,
            "key": b64(one_time.public.raw),
        }
        return Way(Invite.issue(InviteFields(**{**fields, **changed}), by.key), one_time)

    async def kept(self, **changed: Any) -> Way:
        way = self.way(**changed)
        await self.ada.call(PutInvite(invite=way.invite.blob))
        return way

    async def stranger(self, who: Person = BOB) -> RawPeer:
        peer = RawPeer(self.broker, Device(self.mesh, who, who.name), who.name)
        self.broker.tasks.start_soon(peer.read)
        await peer.until(lambda: bool(peer.notices))
        return peer

    async def open(self, way: Way, who: Person = BOB, **changed: Any) -> Any:
        peer = await self.stranger(who)
        challenge = peer.notices[0]
        assert isinstance(challenge, Challenge)
        proof = prove_opening(way.one_time, challenge.broker, challenge.nonce, way.code)
        told = prove_member(who.key, challenge.broker, challenge.nonce, way.code)
        asked = {"code": way.code, "proof": proof, "member": who.id, "member_proof": told}
        return await peer.call(OpenInvite(**{**asked, **changed}))

    def entry(self, way: Way, who: Person = BOB, **changed: Any) -> bytes:
        head = self.mesh.chain.head
        fields: dict[str, Any] = {
            "mesh": self.mesh.id,
            "seq": head.seq + 1,
            "prev": b64(head.hash),
            "at": self.broker.clock.now_ms,
            "kind": "add",
            "by": who.id,
            "member": who.id,
            "key": b64(who.key.public.raw),
            "name": who.name,
            "role": "member",
            "invite": b64(way.invite.blob),
            "proof": b64(prove(way.one_time, way.invite.fields, who.id)),
        }
        return Entry.issue(EntryFields(**{**fields, **changed}), who.key).blob

    async def enter(self, way: Way, who: Person = BOB, **changed: Any) -> None:
        peer = await self.stranger(who)
        grown = await peer.call(Enter(entry=self.entry(way, who, **changed)))
        self.mesh.log += grown.entries


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    mesh = Mesh(ADA)
    async with a_broker(tmp_path, reach=REACH) as broker:
        yield World(broker, mesh, await join(broker, Device(mesh, ADA, "ada")))


async def code_of(asked: Any) -> str:
    with pytest.raises(MeshError) as caught:
        await asked
    return caught.value.code


async def test_an_admin_is_told_how_others_reach_the_broker(world: World) -> None:
    kept = await world.ada.call(PutInvite(invite=world.way().invite.blob))
    assert (kept.url, kept.pin) == (REACH.url, REACH.pin)


async def test_a_broker_on_loopback_alone_keeps_no_invites(tmp_path: Path) -> None:
    mesh = Mesh(ADA)
    async with a_broker(tmp_path) as broker:
        world = World(broker, mesh, await join(broker, Device(mesh, ADA, "ada")))
        asked = world.ada.call(PutInvite(invite=world.way().invite.blob))
        assert await code_of(asked) == "loopback_only"


async def test_who_has_the_link_sees_the_invite_and_the_log(world: World) -> None:
    way = await world.kept()
    shown = await world.open(way)
    assert shown.invite == way.invite.blob
    assert walk(world.mesh.id, shown.log.entries).head == world.mesh.chain.head


async def test_a_code_alone_shows_nothing(world: World) -> None:
    """A link preview gets no further than this: the fragment is never sent."""
    way = await world.kept()
    assert await code_of(world.open(way, proof=bytes(64))) == "unknown_invite"
    stranger = SigningKey(secrets.token_bytes(32))
    assert await code_of(world.open(Way(way.invite, stranger))) == "unknown_invite"
    found = await world.ada.call(ListInvites())
    assert [one.used for one in found.invites] == [0]


async def test_a_proof_is_good_on_its_own_connection_only(world: World) -> None:
    way = await world.kept()
    other = await world.stranger()
    challenge = other.notices[0]
    assert isinstance(challenge, Challenge)
    replayed = prove_opening(way.one_time, challenge.broker, challenge.nonce, way.code)
    assert await code_of(world.open(way, proof=replayed)) == "unknown_invite"


async def test_who_joins_is_a_member_and_can_say_hello(world: World) -> None:
    way = await world.kept()
    await world.enter(way)
    bob = await join(world.broker, Device(world.mesh, BOB, "bob"))
    assert bob.handle == "bob"
    assert (await world.ada.resolve("bob")).recipients[0].member == BOB.id


async def test_other_members_hear_of_a_joiner(world: World) -> None:
    await world.enter(await world.kept())
    await world.ada.until(lambda: bool(world.ada.of(LogGrew)))
    assert world.ada.of(LogGrew)[0].entries == [world.mesh.log[-1]]


async def test_an_invite_is_used_as_often_as_it_says(world: World) -> None:
    way = await world.kept()
    await world.enter(way)
    assert await code_of(world.open(way, CLEO)) == "invite_used_up"
    assert await code_of(world.enter(way, CLEO)) == "invite_used_up"


async def test_who_joined_already_may_look_again(world: World) -> None:
    """A join that was killed after the broker had the entry is finished by the next."""
    way = await world.kept()
    await world.enter(way)
    assert (await world.open(way, BOB)).invite == way.invite.blob
    assert await code_of(world.enter(way, BOB)) == "already_a_member"


async def test_a_dead_link_shows_the_log_to_proven_members_alone(world: World) -> None:
    way = await world.kept()
    await world.enter(way)
    # Whoever has the link knows the founder's id, but not its key.
    for proof in (b"", bytes(64)):
        asked = world.open(way, CLEO, member=ADA.id, member_proof=proof)
        assert await code_of(asked) == "invite_used_up"
    assert await code_of(world.open(way, CLEO, member=ADA.id)) == "invite_used_up"
    assert await code_of(world.open(way, BOB, member_proof=b"")) == "invite_used_up"
    await world.ada.call(AppendEntry(entry=world.mesh.say(ADA, "remove", member=BOB.id)))
    assert await code_of(world.open(way, BOB)) == "member_removed"
    assert await code_of(world.open(way, BOB, member_proof=b"")) == "invite_used_up"


async def test_a_proof_of_membership_is_good_on_its_own_connection_only(world: World) -> None:
    way = await world.kept()
    await world.enter(way)
    other = (await world.stranger()).notices[0]
    assert isinstance(other, Challenge)
    replayed = prove_member(BOB.key, other.broker, other.nonce, way.code)
    assert await code_of(world.open(way, BOB, member_proof=replayed)) == "invite_used_up"


async def test_of_two_who_use_the_last_use_one_joins(world: World) -> None:
    way = await world.kept()
    both = [(await world.stranger(who), world.entry(way, who)) for who in (BOB, CLEO)]
    answers = [peer.asked(Enter(entry=entry)) for peer, entry in both]
    codes: list[str] = []
    for answer in answers:
        try:
            await answer()
            codes.append("joined")
        except MeshError as error:
            codes.append(error.code)
    assert codes[0] == "joined"
    assert codes[1] in {"membership_moved", "membership_gap", "invite_used_up"}


async def test_an_invite_expires_by_the_brokers_clock(world: World) -> None:
    way = await world.kept(expires=NOW + MINUTE)
    world.broker.clock.pass_ms(MINUTE + 1)
    assert await code_of(world.open(way)) == "invite_expired"
    assert await code_of(world.enter(way)) == "invite_expired"
    # A time that suits the invite does not suit the broker.
    world.broker.clock.pass_ms(10 * MINUTE)
    assert await code_of(world.enter(way, at=NOW)) == "clock"


async def test_an_invite_that_was_taken_back_lets_nobody_in(world: World) -> None:
    way = await world.kept()
    await world.ada.call(WithdrawInvite(code=way.code))
    assert await code_of(world.open(way)) == "unknown_invite"
    assert await code_of(world.enter(way)) == "unknown_invite"
    assert await code_of(world.ada.call(WithdrawInvite(code=way.code))) == "unknown_invite"


async def test_another_meshs_invite_of_the_same_code_opens_nothing(world: World) -> None:
    way = await world.kept()
    await world.ada.call(WithdrawInvite(code=way.code))
    theirs = Mesh(CLEO)
    cleo = await join(world.broker, Device(theirs, CLEO, "cleo"))
    twin = World(world.broker, theirs, cleo).way(by=CLEO, id=way.code)
    await cleo.call(PutInvite(invite=twin.invite.blob))
    assert await code_of(world.open(way)) == "unknown_invite"
    assert await code_of(world.enter(way)) == "unknown_invite"


async def test_an_invite_dies_when_its_admins_time_is_over(world: World) -> None:
    dan = world.mesh.add("dan", Role.ADMIN, expires=NOW + MINUTE)
    peer = await join(world.broker, Device(world.mesh, dan, "dan"))
    way = world.way(by=dan)
    await peer.call(PutInvite(invite=way.invite.blob))
    world.broker.clock.pass_ms(MINUTE)
    assert await code_of(world.open(way)) == "invite_dead"
    assert await code_of(world.enter(way)) == "invite_dead"


async def test_nobody_appends_for_an_admin_whose_time_is_over(world: World) -> None:
    dan = world.mesh.add("dan", Role.ADMIN, expires=NOW + MINUTE)
    await join(world.broker, Device(world.mesh, dan, "dan"))
    world.broker.clock.pass_ms(MINUTE)
    key = b64(BOB.key.public.raw)
    fields = {"member": BOB.id, "key": key, "name": "bob", "role": "admin"}
    entry = world.mesh.entry(dan, "add", at=NOW + MINUTE, **fields)
    assert await code_of(world.ada.call(AppendEntry(entry=entry))) == "membership_forbidden"


async def test_an_invite_dies_with_its_admin(world: World) -> None:
    dan = world.mesh.add("dan", Role.ADMIN)
    peer = await join(world.broker, Device(world.mesh, dan, "dan"))
    way = world.way(by=dan)
    await peer.call(PutInvite(invite=way.invite.blob))
    removal = world.mesh.say(ADA, "remove", member=dan.id)
    await world.ada.call(AppendEntry(entry=removal))
    assert await code_of(world.open(way)) == "invite_dead"
    assert await code_of(world.enter(way)) == "invite_dead"


async def test_a_demoted_admins_invite_lets_nobody_in(world: World) -> None:
    dan = world.mesh.add("dan", Role.ADMIN)
    peer = await join(world.broker, Device(world.mesh, dan, "dan"))
    way = world.way(by=dan)
    await peer.call(PutInvite(invite=way.invite.blob))
    demoted = world.mesh.say(ADA, "role", member=dan.id, role="member")
    await world.ada.call(AppendEntry(entry=demoted))
    assert await code_of(world.open(way)) == "invite_dead"
    assert await code_of(world.enter(way)) == "invite_dead"


@pytest.mark.parametrize("until", [None, NOW + MINUTE])
async def test_who_was_removed_is_told_so_whatever_the_invite(
    world: World, until: int | None
) -> None:
    await world.enter(await world.kept())
    removal = world.mesh.say(ADA, "remove", member=BOB.id, expires=until)
    await world.ada.call(AppendEntry(entry=removal))
    way = await world.kept()
    for ask in (world.open, world.enter):
        with pytest.raises(MeshError) as caught:
            await ask(way)
        assert caught.value.code == "member_removed"
        assert "claudemesh unban bob" in caught.value.hint
        assert caught.value.details.get("returns_ms") == until
    world.broker.clock.pass_ms(MINUTE)
    assert (await world.open(way, CLEO)).invite == way.invite.blob
    if until is not None:
        await world.enter(way)
        assert world.mesh.chain.is_present(BOB.id)


async def test_an_invite_is_put_by_whoever_signed_it(world: World) -> None:
    dan = world.mesh.add("dan", Role.ADMIN)
    peer = await join(world.broker, Device(world.mesh, dan, "dan"))
    way = world.way(by=ADA)
    assert await code_of(peer.call(PutInvite(invite=way.invite.blob))) == "wrong_invite"
    forged = Invite.issue(way.invite.fields, dan.key)
    assert await code_of(world.ada.call(PutInvite(invite=forged.blob))) == "bad_signature"
    other = world.way(mesh=make_id("mesh_", bytes(16)))
    assert await code_of(world.ada.call(PutInvite(invite=other.invite.blob))) == "wrong_invite"
    late = world.way(expires=NOW - 1)
    assert await code_of(world.ada.call(PutInvite(invite=late.invite.blob))) == "invite_expired"


async def test_the_same_invite_may_be_put_again(world: World) -> None:
    way = await world.kept()
    await world.ada.call(PutInvite(invite=way.invite.blob))
    twin = world.way(id=way.code)
    assert await code_of(world.ada.call(PutInvite(invite=twin.invite.blob))) == "conflict"


async def test_a_joiners_entry_comes_by_no_other_way(world: World) -> None:
    """Else the time at which it was signed would be looked at by nobody."""
    way = await world.kept()
    entry = world.entry(way)
    assert await code_of(world.ada.call(AppendEntry(entry=entry))) == "wrong_entry"
    world.mesh.log.append(entry)
    assert (
        await code_of(join(world.broker, Device(world.mesh, BOB, "bob"))) == "membership_forbidden"
    )


async def test_only_a_joiners_entry_enters(world: World) -> None:
    peer = await world.stranger()
    entry = world.mesh.entry(ADA, "rename", mesh_name="shop")
    assert await code_of(peer.call(Enter(entry=entry))) == "malformed"


async def test_a_joiner_may_be_overtaken_more_than_once(world: World) -> None:
    way = await world.kept()
    peer = await world.stranger()
    for number in range(5):
        stale = world.entry(way)
        await world.ada.call(
            AppendEntry(entry=world.mesh.say(ADA, "rename", mesh_name=f"shop-{number}"))
        )
        assert await code_of(peer.call(Enter(entry=stale))) == "membership_gap"
    world.mesh.log += (await peer.call(Enter(entry=world.entry(way)))).entries
    assert world.mesh.chain.member(BOB.id).name == "bob"


async def test_a_stranger_is_not_answered_for_ever(world: World) -> None:
    way = await world.kept()
    peer = await world.stranger()
    asked = OpenInvite(code=way.code, proof=bytes(64), member=BOB.id)
    codes = [await code_of(peer.call(asked)) for _ in range(MAX_STRANGERS + 1)]
    assert codes == ["unknown_invite"] * MAX_STRANGERS + ["protocol_error"]
    await peer.until(lambda: peer.closed)


async def test_nothing_else_is_answered_before_the_hello(world: World) -> None:
    peer = await world.stranger()
    assert await code_of(peer.call(ListInvites())) == "unauthenticated"
    await peer.until(lambda: peer.closed)
