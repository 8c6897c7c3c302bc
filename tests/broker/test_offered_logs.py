"""Logs that come with a hello: what a broker takes of them, and from whom.

Whoever joins, returns, or signs until its time is over shows that entry when it is made. A member
that brings it along instead could have kept it from the broker's clock and from its invites.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claudemesh_broker.admission import Origin
from claudemesh_broker.reach import Reach
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import MeshError
from claudemesh_wire.invites import Invite, InviteFields, prove
from claudemesh_wire.keys import SigningKey, b64, make_id
from claudemesh_wire.membership import Chain
from claudemesh_wire.message import Role
from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import DAY, NOW, Device, Mesh, Person
from tests.support.rawpeer import RawPeer, Wish, join

REACH = Reach("https://host.example:7467")
FAR = Origin("203.0.113.7", is_local=False)
HOUR = 3600 * 1000
ADA = Person("ada")
BOB = Person("bob")
FORBIDDEN = "membership_forbidden"


def joins(mesh: Mesh, who: Person, by: Person, role: str = "member") -> None:
    """Append a joiner's entry, by an invite that the broker has never seen."""
    one_time = SigningKey(secrets.token_bytes(32))
    invite = Invite.issue(
        InviteFields(
            mesh=mesh.id,
            id=make_id("", secrets.token_bytes(16)),
            role=role,
            uses=1,
            expires=NOW + DAY,
            by=by.id,
            key=b64(one_time.public.raw),
        ),
        by.key,
    )
    proof = b64(prove(one_time, invite.fields, who.id))
    fields: dict[str, Any] = {"key": b64(who.key.public.raw), "name": who.name, "role": role}
    mesh.say(who, "add", member=who.id, invite=b64(invite.blob), proof=proof, **fields)


async def known(broker: MemoryBroker, mesh: Mesh) -> Chain:
    chain = await broker.parts.roster.load(mesh.id)
    assert chain is not None
    return chain


async def refusal(broker: MemoryBroker, device: Device, wish: Wish | None = None) -> str:
    with pytest.raises(MeshError) as caught:
        await join(broker, device, wish=wish or Wish())
    assert caught.value.hint
    return caught.value.code


async def hello(broker: MemoryBroker, mesh: Mesh, who: Person) -> RawPeer:
    return await join(broker, Device(mesh, who, who.name))


async def test_nobody_vouches_under_a_certificate_that_its_member_did_not_sign(
    tmp_path: Path,
) -> None:
    async with a_broker(tmp_path, reach=REACH) as broker:
        mesh, mallory = Mesh(ADA), Person("mallory")
        await join(broker, Device(mesh, ADA, "ada"))
        before = (await known(broker, mesh)).head.seq
        joins(mesh, mallory, ADA)
        # What ada's keys would sign, signed by mallory's; the log is said to go on behind it.
        pretended = Device(mesh, ADA, "desk")
        forged = Certificate.issue(pretended.certificate("ada").fields, mallory.key)
        peer = RawPeer(replace(broker, origin=FAR), pretended, "ada")
        broker.tasks.start_soon(peer.read)
        more = {"head_seq": mesh.chain.head.seq + 1}
        wish = Wish(token=None, certificate=forged, log=mesh.log[-1:], claims=more)
        for _ in range(2):
            with pytest.raises(MeshError) as caught:
                await peer.hello(wish)
            assert caught.value.code == FORBIDDEN
            # Nor does it help to say so under one's own name afterwards.
            peer.device = Device(mesh, mallory, "mallory")
            wish = Wish(token=None, log=mesh.log[-1:])
        assert (await known(broker, mesh)).head.seq == before


def returns_early(mesh: Mesh, _dan: Person) -> None:
    bob = mesh.add("bob")
    mesh.say(ADA, "remove", member=bob.id, expires=NOW + 7 * DAY)
    mesh.say(bob, "return", at=NOW + 7 * DAY)


def returns_late(mesh: Mesh, _dan: Person) -> None:
    bob = mesh.add("bob")
    mesh.say(ADA, "remove", member=bob.id, expires=NOW - HOUR)
    mesh.say(bob, "return")


def comes_by_an_invite(mesh: Mesh, _dan: Person) -> None:
    joins(mesh, BOB, ADA, "admin")


def signs_when_its_time_is_over(mesh: Mesh, dan: Person) -> None:
    key = b64(BOB.key.public.raw)
    mesh.say(dan, "add", member=BOB.id, key=key, name="bob", role="admin", at=NOW)


@pytest.mark.parametrize("role", [Role.OBSERVER, Role.MEMBER])
@pytest.mark.parametrize(
    ("forbidden", "code"),
    [
        (returns_early, "clock"),
        (returns_late, FORBIDDEN),
        (comes_by_an_invite, FORBIDDEN),
        (signs_when_its_time_is_over, FORBIDDEN),
    ],
)
async def test_a_member_brings_no_forbidden_entry_of_another(
    tmp_path: Path, forbidden: Callable[[Mesh, Person], None], code: str, role: Role
) -> None:
    mesh = Mesh(ADA)
    eve, dan = mesh.add("eve", role), mesh.add("dan", Role.ADMIN, expires=NOW + HOUR)
    async with a_broker(tmp_path) as broker:
        await hello(broker, mesh, ADA)
        before = (await known(broker, mesh)).head
        broker.clock.pass_ms(HOUR)
        forbidden(mesh, dan)
        assert await refusal(broker, Device(mesh, eve, "eve")) == code
        assert (await known(broker, mesh)).head == before


async def test_nobody_makes_its_return_due_by_another_time(tmp_path: Path) -> None:
    """Not the owner either: the time in the entry would be a lie for everybody."""
    mesh = Mesh(ADA)
    async with a_broker(tmp_path) as broker:
        await hello(broker, mesh, ADA)
        returns_early(mesh, ADA)
        assert await refusal(broker, Device(mesh, ADA, "ada")) == "clock"


async def test_a_broker_restored_from_a_backup_learns_who_joined_from_an_admin(
    tmp_path: Path,
) -> None:
    mesh = Mesh(ADA)
    eve, dan = mesh.add("eve"), mesh.add("dan", Role.ADMIN)
    async with a_broker(tmp_path) as broker:
        await hello(broker, mesh, ADA)
        joins(mesh, BOB, ADA)
        for who in (eve, BOB):
            assert await refusal(broker, Device(mesh, who, who.name)) == FORBIDDEN
        await hello(broker, mesh, dan)
        for who in (eve, BOB):
            assert (await hello(broker, mesh, who)).handle == who.name


async def test_an_admin_brings_nobody_along_whom_it_could_not_add(tmp_path: Path) -> None:
    mesh = Mesh(ADA)
    dan = mesh.add("dan", Role.ADMIN)
    async with a_broker(tmp_path) as broker:
        await hello(broker, mesh, ADA)
        joins(mesh, BOB, ADA, "owner")
        assert await refusal(broker, Device(mesh, dan, "dan")) == FORBIDDEN
        await hello(broker, mesh, ADA)
        assert (await known(broker, mesh)).member(BOB.id).role is Role.OWNER


async def test_an_admin_whose_time_is_over_brings_nobody_along(tmp_path: Path) -> None:
    mesh = Mesh(ADA)
    dan = mesh.add("dan", Role.ADMIN, expires=NOW + HOUR)
    async with a_broker(tmp_path) as broker:
        await hello(broker, mesh, ADA)
        broker.clock.pass_ms(HOUR)
        joins(mesh, BOB, ADA)
        assert await refusal(broker, Device(mesh, dan, "dan")) == FORBIDDEN


async def charter_of(folder: Path, mesh: Mesh) -> bytes:
    """Let a broker serve the mesh once; its disk is lost then, its key is not."""
    async with a_broker(folder, reach=REACH) as broker:
        return (await hello(broker, mesh, ADA)).charter


async def test_a_log_that_was_lost_whole_is_taken_from_any_member(tmp_path: Path) -> None:
    mesh = Mesh(ADA)
    eve = mesh.add("eve", Role.OBSERVER)
    charter = await charter_of(tmp_path / "before", mesh)
    joins(mesh, BOB, ADA)
    async with a_broker(tmp_path / "after", reach=REACH) as broker:
        far = replace(broker, origin=FAR)
        wish = Wish(token=None, charter=charter)
        await join(far, Device(mesh, eve, "eve"), wish=wish)
        assert (await join(far, Device(mesh, BOB, "bob"), wish=wish)).handle == "bob"


async def test_a_lost_log_brings_nobody_back_before_its_time(tmp_path: Path) -> None:
    mesh = Mesh(ADA)
    eve = mesh.add("eve", Role.OBSERVER)
    charter = await charter_of(tmp_path / "before", mesh)
    returns_early(mesh, eve)
    async with a_broker(tmp_path / "after", reach=REACH) as broker:
        far = replace(broker, origin=FAR)
        wish = Wish(token=None, charter=charter)
        assert await refusal(far, Device(mesh, eve, "eve"), wish) == "clock"


async def test_a_mesh_that_has_ended_is_not_offered_again(tmp_path: Path) -> None:
    mesh = Mesh(ADA)
    eve = mesh.add("eve")
    log = list(mesh.log)
    mesh.say(ADA, "end")
    async with a_broker(tmp_path) as broker:
        assert await refusal(broker, Device(mesh, eve, "eve")) == "mesh_ended"
        assert await broker.sql("SELECT count(*) FROM membership") == [(0,)]
        # Nor by somebody who has not heard of its end.
        mesh.log = log
        assert await refusal(broker, Device(mesh, ADA, "ada")) == "mesh_ended"


async def test_a_broker_restored_from_a_backup_learns_that_a_mesh_has_ended(
    tmp_path: Path,
) -> None:
    mesh = Mesh(ADA)
    eve = mesh.add("eve")
    async with a_broker(tmp_path) as broker:
        ada = await hello(broker, mesh, ADA)
        mesh.say(ADA, "end")
        assert await refusal(broker, Device(mesh, eve, "eve")) == "mesh_ended"
        await ada.until(lambda: ada.closed)
        assert await broker.sql("SELECT count(*) FROM peers") == [(0,)]
