"""The roster: chains as they are in the store, certificates at hand and not."""

import pytest

from claudemesh_broker.roster import MAX_LOG_LOAD_BYTES, Roster, entries_after, read_card
from claudemesh_wire.errors import MeshError
from claudemesh_wire.membership import Chain
from claudemesh_wire.messages import Deliver
from tests.support.broker import MemoryBroker
from tests.support.people import Device, Mesh, Person
from tests.support.rawpeer import RawPeer, join


@pytest.fixture
async def ada(broker: MemoryBroker) -> RawPeer:
    mesh = Mesh(Person("ada"))
    mesh.add("bob")
    return await join(broker, Device(mesh, mesh.founder, "ada"))


async def test_a_chain_is_read_and_walked_again_after_a_restart(
    broker: MemoryBroker, ada: RawPeer
) -> None:
    fresh = Roster(broker.parts.store)
    mesh = ada.device.mesh
    with pytest.raises(MeshError) as caught:
        fresh.chain(mesh.id)
    assert caught.value.code == "unknown_mesh"
    assert await fresh.load("mesh_unknown") is None
    chain = await fresh.load(mesh.id)
    assert chain is not None
    assert chain.head == mesh.chain.head
    assert fresh.chain(mesh.id) is chain


async def test_the_longest_chain_is_kept(broker: MemoryBroker, ada: RawPeer) -> None:
    mesh = ada.device.mesh
    shorter = Chain(mesh.id).extend(mesh.log[:1])
    assert broker.parts.roster.learn(shorter).head.seq == 2


async def test_a_certificate_is_at_hand_or_in_the_store(broker: MemoryBroker, ada: RawPeer) -> None:
    name = ada.certificate.hash
    assert broker.parts.roster.known_certificate(name) is not None
    fresh = Roster(broker.parts.store)
    assert fresh.known_certificate(name) is None
    found = await fresh.certificate(name)
    assert found is not None
    assert found.blob == ada.certificate.blob
    assert fresh.known_certificate(name) is found
    assert await fresh.certificate(bytes(32)) is None


async def test_only_so_many_certificates_are_at_hand(
    broker: MemoryBroker, ada: RawPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudemesh_broker.roster.MAX_CERTIFICATES", 2)
    made = [ada.device.certificate("ada", anchor_changes) for anchor_changes in range(1, 4)]
    for certificate in made:
        broker.parts.roster.remember(certificate)
    kept = [broker.parts.roster.known_certificate(one.hash) is not None for one in made]
    assert kept == [False, True, True]


async def test_a_message_under_a_certificate_that_is_not_at_hand_is_sent_in_its_turn(
    broker: MemoryBroker, ada: RawPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await join(broker, Device(ada.device.mesh, ada.device.owner, "bob"))
    resolved = await ada.resolve("bob")
    old = await ada.seal(resolved)
    await ada.certify()
    monkeypatch.delitem(broker.parts.roster._certificates, ada.certificate.hash)
    new = await ada.seal(resolved)
    answers = [ada.asked(one) for one in (old, new)]
    ids = [(await answer()).id for answer in answers]
    delivered = await bob.receive(2)
    assert [one.row for one in delivered] == sorted(one.row for one in delivered)
    assert len({*ids}) == 2
    assert sum(len(one.certificates) for one in bob.of(Deliver)) == 1


def test_entries_that_fit_into_no_frame_are_left_for_later() -> None:
    chain = Chain("mesh", entries=(bytes(MAX_LOG_LOAD_BYTES // 2),) * 4)
    assert len(entries_after(chain, 0, 10)) == 2
    assert len(entries_after(chain, 3, 10)) == 1
    assert entries_after(chain, 4, 10) == []


async def test_an_unknown_peer_has_no_card(broker: MemoryBroker, ada: RawPeer) -> None:
    chain = ada.device.mesh.chain
    with pytest.raises(MeshError) as caught:
        await broker.parts.store.read(lambda sql: read_card(sql, chain, "p_nobody", 1))
    assert caught.value.code == "unknown_peer"
