"""Meshes at the broker: the log, its growth, blocks, and what the mesh is."""

import pytest

from claudemesh_wire import DATA_VERSION, VERSION
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Closing, Mode
from claudemesh_wire.keys import b64
from claudemesh_wire.meshes import AppendEntry, AskMesh, LogGrew, ReadLog
from tests.support.broker import MemoryBroker
from tests.support.people import NOW, Device, Mesh, Person
from tests.support.rawpeer import RawPeer, Wish, join


async def refused(peer: RawPeer, entry: bytes) -> str:
    with pytest.raises(MeshError) as caught:
        await peer.call(AppendEntry(entry=entry))
    return caught.value.code


def adding(mesh: Mesh, name: str) -> bytes:
    who = Person(name)
    key = b64(who.key.public.raw)
    return mesh.entry(mesh.founder, "add", member=who.id, key=key, name=name, role="member")


async def test_the_log_is_read_behind_an_entry(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    for name in ("bob", "carol"):
        mesh.add(name)
    await join(broker, Device(mesh, mesh.founder, "late"))
    found = await ada.call(ReadLog(after_seq=1, limit=1))
    assert found.entries == [mesh.log[1]]
    assert (found.head_seq, found.head) == (3, mesh.chain.head.hash)
    assert (await ada.call(ReadLog(after_seq=3))).entries == []


async def test_an_appended_entry_is_told_to_the_mesh(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    entry = adding(mesh, "carol")
    answer = await ada.call(AppendEntry(entry=entry))
    assert answer.head_seq == 2
    for peer in (ada, bob):
        await peer.until(lambda peer=peer: bool(peer.of(LogGrew)))
        assert peer.of(LogGrew)[0].entries == [entry]


async def test_of_two_entries_for_one_place_the_first_is_taken(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    first = ada.asked(AppendEntry(entry=adding(mesh, "carol")))
    second = bob.asked(AppendEntry(entry=adding(mesh, "dan")))
    assert (await first()).head_seq == 2
    with pytest.raises(MeshError) as caught:
        await second()
    assert caught.value.code == "membership_moved"
    assert await refused(bob, adding(mesh, "dan")) == "membership_gap"


async def test_an_entry_that_its_signer_had_no_right_to_is_refused(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = mesh.add("bob")
    await join(broker, Device(mesh, bob, "bob"))
    eve = Person("eve")
    entry = mesh.entry(
        bob, "add", member=eve.id, key=b64(eve.key.public.raw), name="eve", role="member"
    )
    assert await refused(ada, entry) == "membership_forbidden"
    assert await refused(ada, b"garbage" * 20) == "malformed"


async def test_a_removed_member_is_out_at_once(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = mesh.add("bob")
    device = Device(mesh, bob, "bob")
    attached = await join(broker, device)
    call = await join(broker, device, wish=Wish(mode=Mode.CALL))
    await ada.call(AppendEntry(entry=mesh.entry(mesh.founder, "remove", member=bob.id)))
    await attached.until(lambda: attached.closed)
    assert [one.code for one in attached.of(Closing)] == ["removed"]
    with pytest.raises(MeshError) as caught:
        await call.call(AskMesh())
    assert caught.value.code == "member_removed"


async def test_a_revoked_device_is_out_at_once(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    device = Device(mesh, mesh.founder, "bob")
    attached = await join(broker, device)
    call = await join(broker, device, wish=Wish(mode=Mode.CALL))
    fingerprint = b64(device.sign.public.fingerprint)
    entry = mesh.entry(mesh.founder, "revoke_device", member=mesh.founder.id, device=fingerprint)
    await ada.call(AppendEntry(entry=entry))
    await attached.until(lambda: attached.closed)
    with pytest.raises(MeshError) as caught:
        await call.call(AskMesh())
    assert caught.value.code == "device_revoked"
    assert await ada.call(AskMesh())


async def test_a_mesh_says_what_it_is(broker: MemoryBroker, mesh: Mesh, ada: RawPeer) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    await bob.leave()
    broker.clock.pass_ms(90_000)
    facts = await ada.call(AskMesh())
    assert (facts.name, facts.created_ms, facts.peers, facts.online) == ("home", NOW, 2, 1)
    assert (facts.broker_version, facts.data_version) == (VERSION, DATA_VERSION)
    assert (facts.started_ms, facts.queued) == (NOW, 0)
    assert facts.limits["queue_messages"] == 10_000
