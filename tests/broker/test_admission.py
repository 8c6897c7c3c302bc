"""Who is let in: the hello, claim by claim, and the attach that follows it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claudemesh_broker.admission import Origin
from claudemesh_wire.certificate import LIFETIME_MS
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Closing, Mode
from claudemesh_wire.keys import SigningKey, b64
from claudemesh_wire.membership import Head
from tests.broker.test_gate import DENIES, SAYS, proxied, scope
from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import DAY, NOW, Device, Mesh, Person
from tests.support.rawpeer import RawPeer, Wish, join

FAR = Origin("192.0.2.7", is_local=False)


@pytest.fixture
def device(mesh: Mesh) -> Device:
    return Device(mesh, mesh.founder, "ada")


async def refusal(
    broker: MemoryBroker, device: Device, wish: Wish | None = None, name: str = ""
) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await join(broker, device, name, wish)
    return caught.value


async def test_the_first_hello_of_a_home_founds_its_mesh(
    broker: MemoryBroker, device: Device
) -> None:
    peer = await join(broker, device)
    assert peer.facts.handle == "ada"
    assert peer.facts.fence == 1
    assert peer.facts.last_seen is None
    assert peer.facts.lease == 90_000
    assert peer.facts.credit == 256
    assert peer.facts.queued == 0
    head = device.mesh.chain.head
    assert (peer.facts.head_seq, peer.facts.head) == (head.seq, b64(head.hash))


async def test_an_unknown_mesh_is_named_and_its_log_asked_for(
    broker: MemoryBroker, device: Device
) -> None:
    peer = RawPeer(broker, device, "ada")
    broker.tasks.start_soon(peer.read)
    with pytest.raises(MeshError) as caught:
        await peer.hello(Wish(log=()))
    assert caught.value.code == "unknown_mesh"
    facts = await peer.hello(Wish())
    assert facts.handle == "ada"


async def test_only_this_machine_founds_a_mesh(broker: MemoryBroker, device: Device) -> None:
    broker.origin = FAR
    assert (await refusal(broker, device)).code == "may_not_found"


async def test_a_broker_without_a_token_founds_no_mesh(tmp_path: Path, device: Device) -> None:
    async with a_broker(tmp_path, token=None) as broker:
        assert (await refusal(broker, device)).code == "may_not_found"


@pytest.mark.parametrize("token", [None, bytes(32)])
async def test_a_hello_without_the_token_is_refused(
    broker: MemoryBroker, device: Device, token: bytes | None
) -> None:
    assert (await refusal(broker, device, Wish(token=token))).code == "bad_token"
    assert await broker.sql("SELECT * FROM peers") == []


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"broker": "b_" + "a" * 26}, "wrong_broker"),
        ({"bn": b64(bytes(32))}, "wrong_broker"),
        ({"cert": b64(bytes(32))}, "wrong_certificate"),
        ({"peer": "p_" + "a" * 26}, "wrong_certificate"),
        ({"mesh": "mesh_" + "a" * 26}, "wrong_certificate"),
        ({"v": 2}, "unsupported_version"),
        ({"mode": "listen"}, "malformed"),
        ({"handles": ["a"] * 9}, "malformed"),
        ({"head": b64(bytes(32))}, "membership_fork"),
        ({"head_seq": 7}, "membership_behind"),
    ],
)
async def test_a_claim_that_is_not_right_is_refused(
    broker: MemoryBroker, device: Device, claims: dict[str, Any], code: str
) -> None:
    assert (await refusal(broker, device, Wish(claims=claims))).code == code
    assert await broker.sql("SELECT * FROM peers") == []


async def test_a_hello_signed_by_another_device_is_refused(
    broker: MemoryBroker, device: Device
) -> None:
    certificate = device.certificate("ada")
    thief = replace(device, sign=SigningKey(bytes(32)))
    refused = await refusal(broker, thief, Wish(certificate=certificate))
    assert refused.code == "bad_signature"


async def test_a_certificate_signed_by_nobody_of_the_mesh_is_refused(
    broker: MemoryBroker, device: Device
) -> None:
    stranger = Person("eve")
    forged = replace(device, owner=Person("ada", stranger.key))
    refused = await refusal(broker, forged)
    assert refused.code == "not_a_member"


async def test_a_certificate_forged_under_a_members_name_is_refused(
    broker: MemoryBroker, device: Device
) -> None:
    stranger = Device(device.mesh, Person("eve"), device.anchor)
    forged = stranger.certificate("ada", member=device.owner.id, peer=device.peer)
    wish = Wish(certificate=forged, claims={"peer": device.peer})
    assert (await refusal(broker, stranger, wish)).code == "certificate_forged"


@pytest.mark.parametrize("late_ms", [-1, LIFETIME_MS + 1])
async def test_a_certificate_holds_at_the_brokers_time_only(
    broker: MemoryBroker, device: Device, late_ms: int
) -> None:
    certificate = device.certificate("ada")
    broker.clock.pass_ms(late_ms)
    refused = await refusal(broker, device, Wish(certificate=certificate))
    assert refused.code == "certificate_expired"
    assert refused.details == {"now_ms": broker.clock.now_ms}


async def test_a_removed_member_is_refused(broker: MemoryBroker, mesh: Mesh) -> None:
    bob = mesh.add("bob")
    await join(broker, Device(mesh, bob, "bob"))
    mesh.say(mesh.founder, "remove", member=bob.id)
    assert (await refusal(broker, Device(mesh, bob, "bob"))).code == "member_removed"


async def test_a_member_whose_time_is_over_is_refused(broker: MemoryBroker, mesh: Mesh) -> None:
    bob = mesh.add("bob", expires=NOW + DAY)
    await join(broker, Device(mesh, bob, "bob"))
    broker.clock.pass_ms(DAY)
    assert (await refusal(broker, Device(mesh, bob, "bob"))).code == "member_expired"


async def test_a_revoked_device_is_refused(broker: MemoryBroker, mesh: Mesh) -> None:
    device = Device(mesh, mesh.founder, "ada")
    await join(broker, device)
    fingerprint = b64(device.sign.public.fingerprint)
    mesh.say(mesh.founder, "revoke_device", member=mesh.founder.id, device=fingerprint)
    assert (await refusal(broker, device)).code == "device_revoked"


async def test_no_other_member_can_certify_a_peer(broker: MemoryBroker, mesh: Mesh) -> None:
    device = Device(mesh, mesh.founder, "ada")
    await join(broker, device)
    eve = Device(mesh, mesh.add("eve"), "eve")
    stolen = eve.certificate("eve", peer=device.peer)
    refused = await refusal(broker, eve, Wish(certificate=stolen, claims={"peer": device.peer}))
    assert refused.code == "foreign_peer"


async def test_a_longer_log_is_taken_over_and_told(broker: MemoryBroker, mesh: Mesh) -> None:
    await join(broker, Device(mesh, mesh.founder, "ada"))
    bob = mesh.add("bob")
    peer = await join(broker, Device(mesh, bob, "bob"))
    assert peer.facts.head_seq == 2
    assert await broker.sql("SELECT count(*) FROM membership") == [(2,)]


async def test_a_log_that_was_lost_is_offered_again(tmp_path: Path, mesh: Mesh) -> None:
    mesh.add("bob")
    async with a_broker(tmp_path / "first") as broker:
        await join(broker, Device(mesh, mesh.founder, "ada"))
    async with a_broker(tmp_path / "second") as broker:
        peer = await join(broker, Device(mesh, mesh.founder, "ada"))
        assert peer.facts.head_seq == 2


async def test_a_client_with_a_shorter_log_gets_what_it_lacks(
    broker: MemoryBroker, mesh: Mesh
) -> None:
    bob = mesh.add("bob")
    await join(broker, Device(mesh, mesh.founder, "ada"))
    first = mesh.chain.head_at(1)
    assert isinstance(first, Head)
    behind = {"head_seq": 1, "head": b64(first.hash)}
    peer = await join(broker, Device(mesh, bob, "bob"), wish=Wish(claims=behind))
    assert peer.entries == mesh.log[1:]


async def test_another_history_of_the_same_length_is_a_fork(
    broker: MemoryBroker, mesh: Mesh
) -> None:
    bob = mesh.add("bob")
    await join(broker, Device(mesh, mesh.founder, "ada"))
    mesh.log.pop()
    mesh.say(
        mesh.founder, "add", member=bob.id, key=b64(bob.key.public.raw), name="b", role="admin"
    )
    refused = await refusal(broker, Device(mesh, bob, "bob"))
    assert refused.code == "membership_fork"


async def test_eight_sessions_that_start_at_once_found_one_mesh(
    broker: MemoryBroker, mesh: Mesh
) -> None:
    peers = [RawPeer(broker, Device(mesh, mesh.founder, f"p{one}"), "ada") for one in range(8)]
    for peer in peers:
        broker.tasks.start_soon(peer.read)
        broker.tasks.start_soon(peer.hello, Wish())
    for peer in peers:
        await peer.until(lambda peer=peer: hasattr(peer, "facts"))
    handles = sorted(peer.handle for peer in peers)
    assert handles == ["ada", *(f"ada-{number}" for number in range(2, 9))]
    assert await broker.sql("SELECT count(*) FROM membership") == [(1,)]


async def test_the_newest_attach_replaces_the_older(broker: MemoryBroker, device: Device) -> None:
    older = await join(broker, device)
    newer = await join(broker, device)
    await older.until(lambda: older.closed)
    assert [notice.code for notice in older.of(Closing)] == ["replaced"]
    assert newer.facts.fence == 2
    assert newer.facts.last_seen == NOW
    await newer.resolve_nobody()


async def test_a_call_disturbs_nobody(broker: MemoryBroker, device: Device) -> None:
    attached = await join(broker, device)
    calls = [await join(broker, device, wish=Wish(mode=Mode.CALL)) for _ in range(10)]
    assert {call.facts.fence for call in calls} == {1}
    assert attached.of(Closing) == []
    for call in calls:
        await call.leave()
    await attached.resolve_nobody()
    assert await broker.sql("SELECT attached, fence FROM peers") == [(1, 1)]


async def test_a_peer_that_only_calls_has_a_row_and_a_handle(
    broker: MemoryBroker, device: Device
) -> None:
    peer = await join(broker, device, wish=Wish(mode=Mode.CALL))
    assert peer.handle == "ada"
    assert await broker.sql("SELECT attached, departed_ms FROM peers") == [(0, NOW)]


async def test_a_call_does_not_change_the_handle_of_the_attached_session(
    broker: MemoryBroker, device: Device
) -> None:
    attached = await join(broker, device)
    wish = Wish(mode=Mode.CALL, handles=("other",))
    assert (await join(broker, device, wish=wish)).handle == attached.handle


async def test_hellos_of_one_address_are_counted(tmp_path: Path, device: Device) -> None:
    async with a_broker(tmp_path, auth_burst=2, auth_per_s=1) as broker:
        await join(broker, device)
        await join(broker, device)
        refused = await refusal(broker, device)
        assert refused.code == "rate_limited"
        assert refused.retry_after_s == 1.0


async def test_those_of_whom_a_proxy_says_two_things_use_up_nobody_else_s_rate(
    tmp_path: Path, device: Device
) -> None:
    async with a_broker(tmp_path, auth_burst=2, auth_per_s=1) as broker:
        await join(broker, device)
        here = broker.origin
        broker.origin = proxied().origin_of(scope(here.address, SAYS, DENIES))
        for _ in range(2):
            await join(broker, device)
        assert (await refusal(broker, device)).code == "rate_limited"
        broker.origin = here
        await join(broker, device)
