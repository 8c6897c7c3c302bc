"""Messages at the broker: who is meant, what is accepted, what is stored, what is handed over."""

from pathlib import Path
from typing import Any

import pytest

from claudemesh_wire.address import direct_conversation
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.envelope import Copy
from claudemesh_wire.errors import MeshError
from claudemesh_wire.grants import SetBlock
from claudemesh_wire.handshake import Mode
from claudemesh_wire.keys import b64, make_id
from claudemesh_wire.messages import Accepted, Deliver, Fetch, Resolve, Send
from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import DAY, NOW, Device, Mesh, Person
from tests.support.rawpeer import RawPeer, Wish, header_of, join

MINUTE = 60_000
ID = make_id("msg_", bytes(16))


def statuses(accepted: Accepted) -> list[str]:
    return [one.status for one in accepted.recipients]


# What is accepted.


async def test_a_message_to_one_who_is_here_is_handed_over(ada: RawPeer, bob: RawPeer) -> None:
    accepted = await ada.send("bob")
    assert statuses(accepted) == ["accepted"]
    assert accepted.accepted_ms == NOW
    assert accepted.expires_ms == NOW + DAY
    (delivery,) = await bob.receive(1)
    assert header_of(delivery).id == accepted.id
    notice = bob.of(Deliver)[0]
    assert [Certificate.parse(one).hash for one in notice.certificates] == [ada.certificate.hash]


async def test_a_senders_certificate_is_sent_along_once(ada: RawPeer, bob: RawPeer) -> None:
    for _ in range(3):
        await ada.send("bob")
    await bob.receive(3)
    assert sum(len(notice.certificates) for notice in bob.of(Deliver)) == 1


async def test_each_reader_gets_its_own_slot_only(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    carol = await join(broker, Device(ada.device.mesh, ada.device.owner, "carol"))
    send = await ada.seal(await ada.resolve("bob", "carol"))
    await ada.call(send)
    copies = [Copy.parse((await one.receive(1))[0].envelope) for one in (bob, carol)]
    assert copies[0].slot != copies[1].slot
    assert copies[0].slot_hashes == copies[1].slot_hashes
    assert all(copies[1].slot not in copy.to_bytes() for copy in copies[:1])


async def test_a_message_to_one_who_is_away_waits(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.leave()
    accepted = await ada.send("bob")
    assert statuses(accepted) == ["queued"]
    back = await join(broker, bob.device)
    assert back.facts.queued == 1
    assert [header_of(one).id for one in await back.receive(1)] == [accepted.id]


async def test_a_repeated_send_gets_the_first_answer_whatever_happened_since(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.leave()
    send = await ada.seal(await ada.resolve("bob"))
    first = await ada.call(send)
    back = await join(broker, bob.device)
    await back.ack(*await back.receive(1))
    broker.clock.pass_ms(DAY)
    assert await ada.call(send) == first
    assert len(back.delivered()) == 1
    assert await broker.sql("SELECT count(*) FROM messages") == [(1,)]


async def test_a_repeated_send_to_one_who_was_here_says_so_again(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    send = await ada.seal(await ada.resolve("bob"))
    first = await ada.call(send)
    await bob.leave()
    broker.clock.pass_ms(1)
    assert statuses(await ada.call(send)) == statuses(first) == ["accepted"]


async def test_the_same_id_for_another_message_is_a_conflict(ada: RawPeer, bob: RawPeer) -> None:
    assert bob
    resolved = await ada.resolve("bob")
    await ada.call(await ada.seal(resolved, id=ID))
    assert (await ada.refused(await ada.seal(resolved, id=ID))).code == "conflict"


async def test_two_senders_may_use_the_same_id(ada: RawPeer, bob: RawPeer) -> None:
    assert (await ada.send("bob", id=ID)).id == ID
    assert (await bob.send("ada", id=ID)).id == ID


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"ts": NOW + 5 * MINUTE + 1}, "clock"),
        ({"ts": NOW - 5 * MINUTE - 1}, "clock"),
        ({"exp": NOW}, "bad_expiry"),
        ({"exp": NOW - 1}, "bad_expiry"),
        ({"exp": NOW + 7 * DAY + 1}, "bad_expiry"),
        ({"sender": "p_" + "a" * 26}, "wrong_sender"),
        ({"mesh": "mesh_" + "a" * 26}, "wrong_mesh"),
        ({"conv": "d_" + "a" * 26}, "wrong_conversation"),
        ({"cert": b64(bytes(32))}, "unknown_certificate"),
        ({"kgen": [2]}, "stale_recipients"),
    ],
)
async def test_what_every_reader_would_refuse_is_refused_at_once(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer, changed: dict[str, Any], code: str
) -> None:
    assert bob
    send = await ada.seal(await ada.resolve("bob"), **changed)
    assert (await ada.refused(send)).code == code
    assert await broker.sql("SELECT * FROM messages") == []


async def test_a_certificate_of_somebody_else_is_refused(ada: RawPeer, bob: RawPeer) -> None:
    send = await ada.seal(await ada.resolve("bob"), cert=b64(bob.certificate.hash))
    assert (await ada.refused(send)).code == "not_certified"


async def test_a_message_to_oneself_is_refused(ada: RawPeer, bob: RawPeer) -> None:
    resolved = await ada.resolve(bob.handle)
    own = resolved.recipients[0].model_copy(
        update={"peer": ada.peer, "certificate": ada.certificate.blob}
    )
    send = await ada.seal(resolved.model_copy(update={"recipients": [own]}))
    assert (await ada.refused(send)).code == "invalid"


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"\x02" + bytes(200), bytes(300)])
async def test_garbage_is_refused_by_a_typed_error(
    ada: RawPeer, bob: RawPeer, garbage: bytes
) -> None:
    assert bob
    error = await ada.refused(Send(envelope=garbage, resolved_ms=NOW))
    assert error.code in {"malformed", "unsupported_version"}


@pytest.mark.parametrize("age_ms", [MINUTE + 1, -1])
async def test_a_resolve_is_good_for_a_minute(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer, age_ms: int
) -> None:
    resolved = await ada.resolve("bob")
    send = await ada.seal(resolved)
    old = send.model_copy(update={"resolved_ms": resolved.resolved_ms - age_ms})
    error = await ada.refused(old)
    assert error.code == "stale_recipients"
    assert error.details == {"recipients": [bob.peer]}
    assert await broker.sql("SELECT * FROM messages") == []


async def test_an_unknown_recipient_is_stale(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    resolved = await ada.resolve("bob")
    stranger = resolved.recipients[0].model_copy(update={"peer": "p_" + "a" * 26})
    both = resolved.model_copy(
        update={
            "recipients": [resolved.recipients[0], stranger],
            "conversation": direct_conversation([ada.peer, bob.peer, stranger.peer]),
        }
    )
    error = await ada.refused(await ada.seal(both))
    assert error.details == {"recipients": [stranger.peer]}
    assert await broker.sql("SELECT * FROM messages") == []


async def test_a_superseded_key_is_good_for_eight_days(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    old = await ada.resolve("bob")
    await bob.leave()
    broker.clock.pass_ms(DAY)
    ada = await join(broker, ada.device)
    renewed = await join(broker, bob.device.renewed())
    await renewed.leave()

    async def again() -> Send:
        resolved = old.model_copy(update={"resolved_ms": broker.clock.now_ms})
        return await ada.seal(resolved)

    assert statuses(await ada.call(await again())) == ["queued"]
    broker.clock.pass_ms(8 * DAY)
    ada = await join(broker, ada.device)
    assert (await ada.refused(await again())).code == "stale_recipients"
    assert statuses(await ada.send("bob")) == ["queued"]


async def test_a_recipient_removed_or_blocking_since_the_resolve_gets_nothing_but_a_word(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    members = {name: mesh.add(name) for name in ("bob", "carol", "dan")}
    peers = {
        name: await join(broker, Device(mesh, member, name)) for name, member in members.items()
    }
    send = await ada.seal(await ada.resolve("bob", "carol", "dan"))
    await peers["bob"].call(SetBlock(member=ada.device.owner.id, blocked=True))
    mesh.say(mesh.founder, "remove", member=members["carol"].id)
    await join(broker, Device(mesh, mesh.founder, "late"))
    first = await ada.call(send)
    assert statuses(first) == ["declined", "declined", "accepted"]
    assert await ada.call(send) == first
    await peers["dan"].receive(1)
    rows = await broker.sql("SELECT status, reason, slot IS NULL FROM deliveries ORDER BY position")
    assert rows == [("declined", "blocked", 1), ("declined", "removed", 1), ("queued", None, 0)]
    assert peers["bob"].delivered() == []


async def test_a_message_that_all_decline_keeps_no_body(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.add("bob"), "bob"))
    send = await ada.seal(await ada.resolve("bob"))
    await bob.call(SetBlock(member=ada.device.owner.id, blocked=True))
    assert statuses(await ada.call(send)) == ["declined"]
    assert await broker.sql("SELECT * FROM envelopes") == []
    assert await broker.sql("SELECT pending FROM messages") == [(0,)]


@pytest.mark.parametrize(("setting", "limit"), [("queue_messages", 2), ("queue_bytes", 2500)])
async def test_a_full_queue_is_named_and_nothing_is_stored_for_anybody(
    tmp_path: Path, mesh: Mesh, setting: str, limit: int
) -> None:
    limits: dict[str, Any] = {setting: limit}
    async with a_broker(tmp_path, **limits) as broker:
        ada = await join(broker, Device(mesh, mesh.founder, "ada"))
        bob = await join(broker, Device(mesh, mesh.founder, "bob"))
        carol = await join(broker, Device(mesh, mesh.founder, "carol"))
        await ada.send("bob")
        await ada.send("bob")
        error = await ada.refused(await ada.seal(await ada.resolve("bob", "carol")))
        assert error.code == "queue_full"
        assert error.details == {"recipients": [bob.peer]}
        assert carol.delivered() == []
        await bob.ack(*await bob.receive(2))
        assert statuses(await ada.send("bob", "carol")) == ["accepted", "accepted"]


# What is handed over.


async def test_a_queue_is_read_without_attaching(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.leave()
    sent = [(await ada.send("bob")).id for _ in range(3)]
    call = await join(broker, bob.device, wish=Wish(mode=Mode.CALL))
    first = await call.call(Fetch(limit=2))
    assert [header_of(one).id for one in first.deliveries] == sent[:2]
    assert first.more
    assert len(first.certificates) == 1
    rest = await call.call(Fetch(after_row=first.deliveries[-1].row))
    assert [header_of(one).id for one in rest.deliveries] == sent[2:]
    assert not rest.more
    assert call.of(Deliver) == []
    await call.ack(*first.deliveries)
    assert [header_of(one).id for one in (await call.call(Fetch())).deliveries] == sent[2:]


async def test_a_peer_of_another_mesh_can_not_take_an_id_and_reads_nothing(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.leave()
    await ada.send("bob")
    elsewhere = Mesh(Person("eve"))
    device = Device(elsewhere, elsewhere.founder, "eve")
    certificate = device.certificate("eve", peer=bob.peer)
    with pytest.raises(MeshError) as caught:
        await join(broker, device, "eve", Wish(certificate=certificate, claims={"peer": bob.peer}))
    assert caught.value.code == "foreign_peer"
    thief = await join(broker, device, "eve")
    assert (await thief.call(Fetch())).deliveries == []
    assert (await thief.refusal("ada")).code == "not_found"


async def test_ten_thousand_addresses_are_refused(ada: RawPeer) -> None:
    assert (await ada.refused(Resolve.model_construct(to=["bob"] * 10_000))).code == "invalid"
