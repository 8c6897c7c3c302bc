"""The bus of a broker that is one process: a direct call that can't break its publisher."""

import pytest

from claudemesh_broker.bus import Bus, LocalBus
from claudemesh_wire.errors import Unavailable


def test_what_is_published_to_a_node_is_heard_there_only() -> None:
    bus: Bus = LocalBus()
    here, there = list[bytes](), list[bytes]()
    bus.subscribe("here", here.append)
    bus.subscribe("there", there.append)
    bus.publish("here", b"1")
    bus.publish("nowhere", b"2")
    assert (here, there) == ([b"1"], [])


def test_who_unsubscribed_hears_no_more() -> None:
    bus = LocalBus()
    heard = list[bytes]()
    stop = bus.subscribe("here", heard.append)
    stop()
    stop()
    bus.publish("here", b"1")
    assert heard == []


def test_a_listener_that_fails_harms_neither_publisher_nor_others() -> None:
    bus = LocalBus()
    heard = list[bytes]()

    def fail(payload: bytes) -> None:
        raise RuntimeError(payload)

    bus.subscribe("here", fail)
    bus.subscribe("here", heard.append)
    bus.publish("here", b"1")
    assert heard == [b"1"]


async def test_a_request_is_answered_by_the_newest_answerer() -> None:
    bus = LocalBus()

    async def old(payload: bytes) -> bytes:
        return payload + b" old"

    async def new(payload: bytes) -> bytes:
        return payload + b" new"

    stop_old = bus.answer("here", old)
    stop_new = bus.answer("here", new)
    stop_old()
    assert await bus.request("here", b"hello") == b"hello new"
    stop_new()
    with pytest.raises(Unavailable) as caught:
        await bus.request("here", b"hello")
    assert caught.value.code == "node_away"
