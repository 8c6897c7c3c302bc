"""One connection: what may be said when, in which order, and how it ends."""

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_broker.delivery import Attachment, Feed, Outlet
from claudemesh_broker.outgoing import SLOW_READER, LinkClosed
from claudemesh_broker.service import Parts
from claudemesh_broker.session import MAX_MALFORMED
from claudemesh_wire.errors import MeshError
from claudemesh_wire.exchange import Answered, Exchange, Noticed
from claudemesh_wire.handshake import Challenge, Closing
from claudemesh_wire.keys import broker_id
from claudemesh_wire.meshes import AskMesh
from claudemesh_wire.messages import Deliver
from claudemesh_wire.presence import UpdatePresence
from tests.support.broker import BROKER_KEY, LIMIT_S, MemoryBroker, MemoryLink, a_broker
from tests.support.people import NOW, Device, Mesh
from tests.support.rawpeer import RawPeer, Wish, header_of, join


async def heard(link: MemoryLink) -> list[object]:
    """Everything the broker says until it closes, as notices and outcomes."""
    exchange, events = Exchange(), list[object]()
    exchange.ask(AskMesh())
    with anyio.fail_after(LIMIT_S):
        try:
            while True:
                event = exchange.receive(await link.receive())
                if isinstance(event, Noticed):
                    events.append(event.notice)
                elif isinstance(event, Answered):
                    events.append(event.outcome)
        except LinkClosed:
            return events


def codes(events: list[object]) -> list[str]:
    return [one.code for one in events if isinstance(one, (MeshError, Closing))]


# Before the hello.


async def test_the_broker_speaks_first(broker: MemoryBroker) -> None:
    link = broker.dial()
    event = Exchange().receive(await link.receive())
    assert isinstance(event, Noticed)
    challenge = event.notice
    assert isinstance(challenge, Challenge)
    assert challenge.broker == broker_id(BROKER_KEY.public)
    assert (len(challenge.nonce), challenge.now_ms) == (32, NOW)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 0 meshes.info {}", ["unauthenticated", "protocol"]),
        ("1 0 no.such {}", ["unsupported", "protocol"]),
        ("garbage", ["protocol"]),
        ("1 0 handshake.hello {}", ["invalid", "protocol"]),
    ],
)
async def test_what_is_no_hello_ends_the_connection(
    broker: MemoryBroker, text: str, said: list[str]
) -> None:
    link = broker.dial()
    link.send_now(text)
    assert codes(await heard(link)) == said


async def test_a_notice_before_the_hello_is_passed_over(broker: MemoryBroker, mesh: Mesh) -> None:
    peer = RawPeer(broker, Device(mesh, mesh.founder, "ada"), "ada")
    peer.link.send_now('0 0 handshake.closing {"code":"x","reason":"y"}')
    broker.tasks.start_soon(peer.read)
    assert (await peer.hello(Wish())).handle == "ada"


async def test_a_connection_that_says_nothing_is_closed(tmp_path: Path) -> None:
    async with a_broker(tmp_path, auth_timeout_s=0.01) as broker:
        link = broker.dial()
        assert codes(await heard(link)) == ["protocol"]
        assert link.other.close_code == 1008
        assert link.other.close_reason == "protocol"


async def test_three_hellos_are_enough(broker: MemoryBroker, mesh: Mesh) -> None:
    peer = RawPeer(broker, Device(mesh, mesh.founder, "ada"), "ada")
    broker.tasks.start_soon(peer.read)
    for _ in range(3):
        with pytest.raises(MeshError):
            await peer.hello(Wish(token=None))
    await peer.until(lambda: peer.closed)
    assert [one.code for one in peer.of(Closing)] == ["protocol"]


# Afterwards.


async def test_a_second_hello_ends_the_connection(ada: RawPeer) -> None:
    with pytest.raises(LinkClosed):
        await ada.hello(Wish())
    assert [one.code for one in ada.of(Closing)] == ["protocol"]


async def test_an_unknown_kind_is_answered_and_costs_nothing_else(ada: RawPeer) -> None:
    number, _ = ada.exchange.ask(AskMesh())
    ada.link.send_now(f"{number} 0 files.share {{}}")
    with pytest.raises(MeshError) as caught:
        await ada.answer_to(number)
    assert caught.value.code == "unsupported"
    assert await ada.call(AskMesh())


async def test_a_wrong_field_is_named(ada: RawPeer) -> None:
    number, _ = ada.exchange.ask(AskMesh())
    ada.link.send_now(f'{number} 0 messages.resolve {{"to":"bob"}}')
    with pytest.raises(MeshError) as caught:
        await ada.answer_to(number)
    assert caught.value.code == "invalid"
    assert "to" in caught.value.reason


async def test_one_who_talks_garbage_for_long_is_closed(ada: RawPeer) -> None:
    for _ in range(MAX_MALFORMED + 1):
        ada.link.send_now("garbage")
    await ada.until(lambda: ada.closed)
    assert [one.code for one in ada.of(Closing)] == ["protocol"]


async def test_garbage_of_one_does_not_touch_another(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    for text in ("", "\0", "9" * 100, "1 1 a {}", "[" * 100, "1 0 messages.send {}" * 3):
        bob.link.send_now(text)
    assert await ada.call(AskMesh())
    assert await bob.call(AskMesh())


async def test_sends_are_stored_in_the_order_they_were_written(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    resolved = await ada.resolve("bob")
    sends = [await ada.seal(resolved) for _ in range(200)]
    answers = [ada.asked(send) for send in sends]
    ids = [(await answer()).id for answer in answers]
    delivered = await bob.receive(200)
    assert [header_of(one).id for one in delivered] == ids
    assert [one.row for one in delivered] == sorted(one.row for one in delivered)


async def test_a_message_whose_sender_is_gone_is_handed_over_all_the_same(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    ada.asked(await ada.seal(await ada.resolve("bob")))
    await ada.link.close()
    assert len(await bob.receive(1)) == 1


async def test_an_internal_error_has_a_number_and_no_details(
    broker: MemoryBroker, ada: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.parts.store.write(lambda sql: sql.execute("DROP TABLE blocks"))
    with caplog.at_level(logging.ERROR), pytest.raises(MeshError) as caught:
        await ada.resolve("bob")
    assert caught.value.code == "internal"
    number = caught.value.reason.partition("(")[2].rstrip(")")
    assert [number in record.getMessage() for record in caplog.records] == [True]
    assert "blocks" not in caught.value.reason
    assert await ada.call(AskMesh())


async def test_a_request_is_one_line_without_its_body(
    ada: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "claudemesh_broker.service"):
        await ada.call(UpdatePresence(summary="a-secret-plan"))
        await ada.resolve_nobody()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert all(ada.peer in line for line in lines)
    assert "outcome=done" in lines[0]
    assert "outcome=not_found" in lines[1]
    assert "a-secret-plan" not in "".join(lines)


async def test_too_many_requests_of_a_member_are_told_when_to_come_again(
    tmp_path: Path, mesh: Mesh
) -> None:
    async with a_broker(tmp_path, rpc_burst=2, rpc_per_s=1) as broker:
        ada = await join(broker, Device(mesh, mesh.founder, "ada"))
        bob = await join(broker, Device(mesh, mesh.founder, "bob"))
        await ada.resolve("bob")
        await bob.resolve("ada")
        with pytest.raises(MeshError) as caught:
            await bob.resolve("ada")
        assert (caught.value.code, caught.value.retry_after_s) == ("rate_limited", 1.0)
        broker.clock.pass_ms(1000)
        assert await ada.resolve("bob")


async def test_what_concerns_a_peer_alone_is_counted_by_itself(tmp_path: Path, mesh: Mesh) -> None:
    async with a_broker(tmp_path, chat_burst=2, chat_per_s=1) as broker:
        ada = await join(broker, Device(mesh, mesh.founder, "ada"))
        readers = [await join(broker, Device(mesh, mesh.founder, f"r{one}")) for one in range(5)]
        await ada.send("*")
        for reader in readers:
            assert (await reader.ack(*await reader.receive(1))).taken == 1
        await ada.send("*")
        with pytest.raises(MeshError) as caught:
            await ada.send("*")
        assert caught.value.code == "rate_limited"


async def test_no_more_is_read_while_too_much_is_unanswered(tmp_path: Path, mesh: Mesh) -> None:
    async with a_broker(tmp_path, in_flight=1) as broker:
        ada = await join(broker, Device(mesh, mesh.founder, "ada"))
        answers = [ada.asked(AskMesh()) for _ in range(20)]
        assert [await answer() for answer in answers]


async def test_an_answer_that_fits_into_no_frame_is_refused(
    broker: MemoryBroker, ada: RawPeer
) -> None:
    large = {"x": "y" * 1_100_000}
    await broker.parts.store.write(
        lambda sql: sql.execute("UPDATE peers SET profile = ?", str(large).replace("'", '"'))
    )
    with pytest.raises(MeshError) as caught:
        await ada.call(UpdatePresence())
    assert caught.value.code == "frame_too_large"
    assert await ada.call(AskMesh())


# Slow readers.


async def test_a_reader_that_takes_nothing_is_closed(tmp_path: Path, mesh: Mesh) -> None:
    async with a_broker(tmp_path, send_deadline_s=0.02) as broker:
        ada = await join(broker, Device(mesh, mesh.founder, "ada"))
        bob = await join(broker, Device(mesh, mesh.founder, "bob"))
        bob.link.stop_taking()
        sent = await ada.send("bob")
        with anyio.fail_after(LIMIT_S):
            await bob.link.served.wait()
        assert (bob.link.other.close_code, bob.link.other.close_reason) == (1008, SLOW_READER)
        back = await join(broker, bob.device)
        assert [header_of(one).id for one in await back.receive(1)] == [sent.id]


# The end.


async def test_a_replaced_connection_asks_for_nothing_more(
    broker: MemoryBroker, mesh: Mesh, ada: RawPeer
) -> None:
    bob = await join(broker, Device(mesh, mesh.founder, "bob"))
    newer = await join(broker, ada.device)
    await ada.until(lambda: ada.closed)
    with pytest.raises(LinkClosed):
        await ada.call(AskMesh())
    await bob.send("ada")
    assert len(await newer.receive(1)) == 1
    assert ada.of(Deliver) == []


async def test_a_lease_begins_when_the_connection_ends(broker: MemoryBroker, ada: RawPeer) -> None:
    broker.clock.pass_ms(5)
    await ada.leave()
    rows = await broker.sql("SELECT attached, node, lease_until_ms, last_seen_ms FROM peers")
    assert rows == [(0, None, NOW + 5 + 90_000, NOW + 5)]


async def test_a_replaced_connection_that_ends_begins_no_lease(
    broker: MemoryBroker, ada: RawPeer
) -> None:
    await join(broker, ada.device)
    with anyio.fail_after(LIMIT_S):
        await ada.link.served.wait()
    assert await broker.sql("SELECT attached, fence FROM peers") == [(1, 2)]


async def test_a_hello_that_was_overtaken_is_told_so(
    broker: MemoryBroker, ada: RawPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its commit and its attach another hello of the peer went all the way."""
    deliveries = broker.parts.deliveries
    attach = deliveries.attach

    def overtaken(place: Attachment, outlet: Outlet) -> Feed:
        attach(replace(place, fence=place.fence + 1), outlet)
        return attach(place, outlet)

    monkeypatch.setattr(deliveries, "attach", overtaken)
    late = RawPeer(broker, ada.device, "ada")
    broker.tasks.start_soon(late.read)
    with pytest.raises(LinkClosed):
        await late.hello(Wish())
    assert "replaced" in [one.code for one in late.of(Closing)]


async def test_a_hello_cut_off_behind_its_commit_leaves_nobody_attached(
    broker: MemoryBroker, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, committed, go_on = Parts.commit, anyio.Event(), anyio.Event()

    async def held(parts: Parts, change: Any) -> Any:
        outcome = await commit(parts, change)
        committed.set()
        await go_on.wait()
        return outcome

    monkeypatch.setattr(Parts, "commit", held)
    peer = RawPeer(broker, Device(mesh, mesh.founder, "ada"), "ada")
    broker.tasks.start_soon(peer.read)

    async def attempt() -> None:
        with suppress(LinkClosed):
            await peer.hello(Wish())

    broker.tasks.start_soon(attempt)
    with anyio.fail_after(LIMIT_S):
        await committed.wait()
        await peer.link.close()
        go_on.set()
        await peer.link.served.wait()
    rows = await broker.sql("SELECT attached, lease_until_ms IS NOT NULL FROM peers")
    assert rows == [(0, 1)]


async def test_a_store_that_ends_first_ends_the_sessions_in_good_order(
    tmp_path: Path, mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_broker(tmp_path, window_messages=1) as broker:
        ada = await join(broker, Device(mesh, mesh.founder, "ada"))
        bob = await join(broker, Device(mesh, mesh.founder, "bob"))
        await ada.send("bob")
        await ada.send("bob")
        await bob.receive(1)
        await broker.parts.store.close()
        feed = broker.parts.deliveries.feed(mesh.id, bob.peer)
        assert feed is not None
        feed.settle([bob.delivered()[0].row])
        await bob.until(lambda: bob.closed)
        assert [one.code for one in bob.of(Closing)] == ["draining"]
        with pytest.raises(MeshError) as caught:
            await ada.resolve("bob")
        assert caught.value.code == "draining"
        await ada.leave()
    assert "lease was not begun" in caplog.text
