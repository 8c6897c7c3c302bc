"""Presence at the broker: handles, certificates, cards, who comes and who goes."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from claudemesh_wire.groups import JoinGroup
from claudemesh_wire.handshake import Mode
from claudemesh_wire.presence import (
    Certify,
    Depart,
    FetchCertificates,
    PresenceChanged,
    Status,
    UpdatePresence,
)
from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import NOW, Device, Mesh, Person
from tests.support.rawpeer import RawPeer, Wish, join

LEASE_MS = 90_000


def told(peer: RawPeer) -> list[tuple[str, str]]:
    return [(notice.change.value, notice.card.handle) for notice in peer.of(PresenceChanged)]


async def hears(peer: RawPeer, *changes: tuple[str, str]) -> None:
    await peer.until(lambda: len(told(peer)) >= len(changes))
    await peer.resolve_nobody()
    assert told(peer) == list(changes)


async def test_coming_and_going_is_told_to_the_others_only(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    await hears(ada, ("joined", "bob"))
    await bob.call(Depart())
    await bob.leave()
    await hears(ada, ("joined", "bob"), ("left", "bob"))
    assert told(bob) == []


async def test_other_meshes_hear_nothing(broker: MemoryBroker, mesh: Mesh, ada: RawPeer) -> None:
    other = Mesh(Person("eve"))
    eve = await join(broker, Device(other, other.founder, "eve"))
    await join(broker, Device(mesh, mesh.founder, "bob"))
    await hears(ada, ("joined", "bob"))
    await hears(eve)


async def test_a_flapping_network_shows_nobody_leaving(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    device = Device(mesh, mesh.founder, "bob")
    bob = await join(broker, device)
    certificate = bob.certificate
    for _ in range(5):
        await bob.leave()
        broker.clock.pass_ms(LEASE_MS - 1)
        await broker.run_due()
        bob = await join(broker, device, wish=Wish(certificate=certificate))
    await hears(ada, ("joined", "bob"))


async def test_the_end_of_a_lease_is_told_once(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    device = Device(mesh, mesh.founder, "bob")
    bob = await join(broker, device)
    await bob.leave()
    broker.clock.pass_ms(LEASE_MS)
    await broker.run_due()
    await broker.run_due()
    await hears(ada, ("joined", "bob"), ("left", "bob"))
    (left,) = [one for one in ada.of(PresenceChanged) if one.change == "left"]
    assert (left.card.online, left.card.last_seen_ms) == (False, NOW)
    await join(broker, device)
    await hears(ada, ("joined", "bob"), ("left", "bob"), ("joined", "bob"))


async def test_a_call_is_no_presence(broker: MemoryBroker, mesh: Mesh, ada: RawPeer) -> None:
    cli = await join(broker, Device(mesh, mesh.founder, "cli"), wish=Wish(mode=Mode.CALL))
    await cli.call(UpdatePresence(summary="typing"))
    await cli.leave()
    await hears(ada)


async def test_a_broker_that_was_killed_starts_the_leases_of_those_it_left(
    tmp_path: Path, mesh: Mesh
) -> None:
    async with a_broker(tmp_path) as broker:
        for name in ("ada", "bob"):
            await join(broker, Device(mesh, mesh.founder, name))
    async with a_broker(tmp_path) as broker:
        await broker.parts.store.write(
            lambda sql: sql.execute(
                "UPDATE peers SET attached = 1, node = 'local', lease_until_ms = NULL"
            )
        )
    async with a_broker(tmp_path) as broker:
        rows = await broker.sql("SELECT attached, lease_until_ms FROM peers")
        assert rows == [(0, NOW + LEASE_MS)] * 2
        carol = await join(broker, Device(mesh, mesh.founder, "carol"))
        broker.clock.pass_ms(LEASE_MS)
        await broker.run_due()
        await carol.until(lambda: len(told(carol)) == 2)
        assert sorted(told(carol)) == [("left", "ada"), ("left", "bob")]


# Handles.


async def test_a_handle_in_use_is_numbered(broker: MemoryBroker, mesh: Mesh, ada: RawPeer) -> None:
    assert ada
    for wished, given in ((("ada",), "ada-2"), (("ada", "ops"), "ops"), (("ada", "ops"), "ada-3")):
        device = Device(mesh, mesh.founder, f"{given}-anchor")
        peer = await join(broker, device, "ada", Wish(handles=wished))
        assert peer.handle == given


async def test_a_long_handle_keeps_its_number(broker: MemoryBroker, mesh: Mesh) -> None:
    long = "a" * 40
    for given in (long, f"{'a' * 38}-2"):
        peer = await join(broker, Device(mesh, mesh.founder, given), long)
        assert peer.handle == given


async def test_a_returning_peer_keeps_its_handle(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    device = Device(mesh, mesh.founder, "second")
    second = await join(broker, device, "ada", Wish(handles=("ada",)))
    await second.leave()
    await ada.leave()
    broker.clock.pass_ms(LEASE_MS)
    for wished in ((), ("ada",), ("ada-2",)):
        name = "ada-2" if wished == () else "ada"
        back = await join(broker, device, name, Wish(handles=wished))
        assert back.handle == "ada-2"
        await back.leave()


async def test_a_new_name_outlasts_the_connection_in_which_it_was_chosen(
    broker: MemoryBroker, mesh: Mesh
) -> None:
    device = Device(mesh, mesh.founder, "first")
    peer = await join(broker, device, "ada", Wish(handles=("ada",)))
    await peer.call(UpdatePresence(handle="eve"))
    for passed_ms in (0, 1, 2 * LEASE_MS):
        await peer.leave()
        broker.clock.pass_ms(passed_ms)
        peer = await join(broker, device, "eve", Wish(handles=("ada",)))
        assert peer.handle == "eve"


async def test_another_wish_gives_another_handle(broker: MemoryBroker, mesh: Mesh) -> None:
    device = Device(mesh, mesh.founder, "first")
    peer = await join(broker, device, "ada", Wish(handles=("ada",)))
    await peer.leave()
    back = await join(broker, device, "ada", Wish(handles=("bob",)))
    assert back.handle == "bob"
    assert (await join(broker, Device(mesh, mesh.founder, "other"), "ada")).handle == "ada"


async def test_the_handle_of_an_absent_peer_of_the_same_member_is_taken_over(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    await ada.leave()
    first = await join(broker, Device(mesh, mesh.founder, "next"), "ada")
    assert first.handle == "ada-2"
    broker.clock.pass_ms(LEASE_MS)
    second = await join(broker, Device(mesh, mesh.founder, "third"), "ada")
    assert second.handle == "ada"
    assert await broker.sql("SELECT handle FROM peers WHERE peer = ?", ada.peer) == [(None,)]
    by_name, by_id = await second.resolve("ada-2"), await second.resolve(ada.peer)
    assert [one.peer for one in by_name.recipients] == [first.peer]
    assert [one.peer for one in by_id.recipients] == [ada.peer]
    assert (await join(broker, ada.device)).handle == "ada-3"


async def test_the_handle_of_another_members_peer_is_never_taken_over(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    await ada.leave()
    broker.clock.pass_ms(20 * 24 * 3600 * 1000)
    bob = await join(broker, Device(mesh, mesh.add("bob"), "b"), "ada")
    assert bob.handle == "ada-2"


# Certificates.


async def test_a_certificate_carries_the_handle_the_broker_gave(
    ada: RawPeer,
) -> None:
    wrong = ada.device.certificate("bob")
    assert (await ada.refused(Certify(certificate=wrong.blob))).code == "wrong_handle"


async def test_a_peer_publishes_its_own_certificate_only(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    assert (
        await ada.refused(Certify(certificate=bob.certificate.blob))
    ).code == "wrong_certificate"


async def test_a_forged_certificate_is_not_published(mesh: Mesh, ada: RawPeer) -> None:
    forged = Device(mesh, Person("eve"), ada.device.anchor).certificate(
        "ada", peer=ada.peer, member=mesh.founder.id
    )
    assert (await ada.refused(Certify(certificate=forged.blob))).code == "certificate_forged"


async def test_a_new_certificate_is_an_update_and_an_old_one_is_none(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    old = bob.certificate
    broker.clock.pass_ms(1)
    await bob.certify()
    await bob.call(Certify(certificate=old.blob))
    await hears(ada, ("joined", "bob"), ("updated", "bob"))
    assert ada.of(PresenceChanged)[-1].card.certificate == bob.certificate.blob
    resolved = await ada.resolve("bob")
    assert resolved.recipients[0].certificate == bob.certificate.blob


async def test_certificates_are_given_by_hash_within_the_mesh(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    other = Mesh(Person("eve"))
    eve = await join(broker, Device(other, other.founder, "eve"))
    names = [bob.certificate.hash, bytes(32), eve.certificate.hash, bob.certificate.hash]
    found = await ada.call(FetchCertificates(hashes=names))
    assert found.certificates == [bob.certificate.blob]


async def test_the_newest_certificate_is_given_to_who_knows_a_peers_id(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    await bob.call(UpdatePresence(visible=False))
    broker.clock.pass_ms(1)
    await bob.certify()
    other = Mesh(Person("eve"))
    eve = await join(broker, Device(other, other.founder, "eve"))
    asked = FetchCertificates(hashes=[], peers=[bob.peer, eve.peer, bob.peer])
    assert (await ada.call(asked)).certificates == [bob.certificate.blob]


# What is shown.


async def test_an_update_shows_what_was_changed_and_leaves_the_rest(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    await bob.call(UpdatePresence(status=Status.WORKING, profile={"langs": ["de"]}))
    card = (await bob.call(UpdatePresence(summary="tests", role="reviewer"))).card
    assert (card.status, card.summary, card.role) == ("working", "tests", "reviewer")
    assert card.profile == {"langs": ["de"]}
    assert (card.member_name, card.type, card.project, card.host) == (
        "ada",
        "claude",
        "mesh",
        "desk",
    )
    assert (card.online, card.first_seen_ms, card.last_seen_ms) == (True, NOW, NOW)
    await bob.call(UpdatePresence(summary="tests"))
    await hears(ada, ("joined", "bob"), ("updated", "bob"), ("updated", "bob"))
    assert ada.of(PresenceChanged)[-1].card == card


async def test_a_new_handle_wants_a_new_certificate(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    card = (await bob.call(UpdatePresence(handle="ada"))).card
    assert card.handle == "ada-2"
    assert (await ada.refusal("ada-2")).code == "not_certified"
    await bob.call(Certify(certificate=bob.device.certificate("ada-2").blob))
    assert (await ada.resolve("ada-2")).recipients[0].peer == bob.peer


async def test_a_handle_that_became_free_is_had_for_the_asking(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    second = await join(broker, Device(mesh, mesh.founder, "second"), "ada")
    await ada.call(UpdatePresence(handle="eve"))
    assert (await second.call(UpdatePresence(handle="ada"))).card.handle == "ada"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"profile": {"x": "y" * 4096}}, "profile_too_large"),
        ({"handle": "p_x"}, "invalid"),
        ({"summary": "x" * 501}, "invalid"),
    ],
)
async def test_what_is_too_large_or_no_value_is_refused(
    ada: RawPeer, fields: dict[str, Any], code: str
) -> None:
    assert (await ada.refused(UpdatePresence.model_construct(**fields))).code == code


async def test_a_session_that_resumes_finds_all_of_itself(broker: MemoryBroker, mesh: Mesh) -> None:
    device = Device(mesh, mesh.founder, "bob")
    bob = await join(broker, device)
    said = UpdatePresence(summary="tests", profile={"a": 1}, role="reviewer")
    await bob.call(said.model_copy(update={"status": Status.DND, "share_cwd": True}))
    await bob.call(JoinGroup(group="ops", role="lead"))
    await bob.leave()
    broker.clock.pass_ms(5 * LEASE_MS)
    await broker.run_due()
    back = await join(broker, device)
    assert back.facts.last_seen == NOW
    card = (await back.call(UpdatePresence())).card
    assert (card.handle, card.summary, card.profile) == ("bob", "tests", {"a": 1})
    assert (card.role, card.status, card.share_cwd) == ("reviewer", "dnd", True)
    assert [(one.name, one.role) for one in card.groups] == [("ops", "lead")]


async def test_the_routes_by_which_a_session_is_reached_are_shown_until_it_comes_anew(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    device = Device(mesh, mesh.founder, "bob")
    bob = await join(broker, device)
    assert (await bob.call(UpdatePresence())).card.routes == []
    card = (await bob.call(UpdatePresence(routes=["hooks", "monitor"]))).card
    assert card.routes == ["hooks", "monitor"]
    assert (await bob.call(UpdatePresence(summary="busy"))).card.routes == ["hooks", "monitor"]
    await hears(ada, ("joined", "bob"), ("updated", "bob"), ("updated", "bob"))
    await bob.leave()
    bob = await join(broker, device, wish=Wish(certificate=bob.certificate))
    assert (await bob.call(UpdatePresence())).card.routes == []


@pytest.mark.parametrize("routes", [["hooks,monitor"], [""], ["Hooks"], ["x"] * 9])
def test_what_is_no_name_of_a_route_is_not_said(routes: list[str]) -> None:
    with pytest.raises(ValidationError):
        UpdatePresence(routes=routes)


async def test_a_card_is_made_among_the_changes_only_for_one_that_hides(
    broker: MemoryBroker, ada: RawPeer
) -> None:
    written: list[str] = []
    writer = broker.parts.store._writer.database
    writer.set_trace_callback(written.append)

    def cards() -> int:
        return sum("FROM groups" in statement for statement in written)

    await ada.call(UpdatePresence(status=Status.WORKING))
    await ada.call(UpdatePresence(status=Status.WORKING))
    assert cards() == 0
    await ada.call(UpdatePresence(visible=False))
    assert cards() == 1
    writer.set_trace_callback(None)
