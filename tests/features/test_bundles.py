"""Several envelopes in one request: each is taken or refused by itself, and each counts."""

from pathlib import Path

import pytest

from claudemesh_wire.messages import Outbound, Send, SendBundle, SendOutcome
from tests.support.broker import MemoryBroker, a_broker
from tests.support.people import Device, Mesh, Person
from tests.support.rawpeer import RawPeer, header_of, join


def bundle(*sends: Send) -> SendBundle:
    return SendBundle(
        messages=[Outbound(envelope=one.envelope, resolved_ms=one.resolved_ms) for one in sends]
    )


def words(outcomes: list[SendOutcome]) -> list[str]:
    """Give the id of each that was taken, the code of each that was not."""
    return [
        one.accepted.id if one.accepted else one.refused.code if one.refused else "neither"
        for one in outcomes
    ]


async def sealed(ada: RawPeer, count: int) -> list[Send]:
    resolved = await ada.resolve("bob")
    return [await ada.seal(resolved, f"{number}".encode()) for number in range(count)]


async def test_a_bundle_is_taken_in_its_order(ada: RawPeer, bob: RawPeer) -> None:
    answer = await ada.call(bundle(*await sealed(ada, 5)))
    read = [header_of(one).id for one in await bob.receive(5)]
    assert words(answer.outcomes) == read


async def test_one_that_is_refused_keeps_none_of_the_others_back(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    first, second, third = await sealed(ada, 3)
    stale = second.model_copy(update={"resolved_ms": 0})
    junk = Send(envelope=b"\x01", resolved_ms=first.resolved_ms)
    answer = await ada.call(bundle(first, stale, junk, third))
    told = words(answer.outcomes)
    assert told[1:3] == ["stale_recipients", "malformed"]
    assert [header_of(one).id for one in await bob.receive(2)] == [told[0], told[3]]
    assert await broker.sql("SELECT count(*) FROM messages") == [(2,)]


async def test_a_repeated_bundle_gets_its_first_answers_and_is_stored_once(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    assert bob
    both = bundle(*await sealed(ada, 2))
    assert (await ada.call(both)).outcomes == (await ada.call(both)).outcomes
    assert await broker.sql("SELECT count(*) FROM messages") == [(2,)]


async def test_of_another_peer_nothing_is_taken(ada: RawPeer, bob: RawPeer) -> None:
    (mine,) = await sealed(ada, 1)
    assert words((await bob.call(bundle(mine))).outcomes) == ["wrong_sender"]


async def test_each_of_a_bundle_takes_a_token_of_its_own(tmp_path: Path) -> None:
    async with a_broker(tmp_path, chat_burst=3, chat_per_s=1) as broker:
        mesh = Mesh(Person("ada"))
        ada = await join(broker, Device(mesh, mesh.founder, "ada"))
        await join(broker, Device(mesh, mesh.founder, "bob"))
        answer = await ada.call(bundle(*await sealed(ada, 5)))
        assert words(answer.outcomes)[3:] == ["rate_limited"] * 2
        assert all(one.accepted for one in answer.outcomes[:3])
        refused = [one.refused for one in answer.outcomes[3:] if one.refused]
        assert [one.retry_after_s for one in refused] == [1.0, 1.0]


@pytest.mark.parametrize("count", [0, 65])
async def test_a_bundle_has_one_to_64_envelopes(ada: RawPeer, bob: RawPeer, count: int) -> None:
    assert bob
    many = [Outbound(envelope=b"x", resolved_ms=1)] * count
    error = await ada.refused(SendBundle.model_construct(messages=many))
    assert error.code == "invalid"
