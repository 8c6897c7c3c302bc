"""What waits for a link: how much may gather, and what comes of it when it ends."""

import anyio

from claudemesh_broker.outgoing import MAX_TEXTS, SLOW_READER, LinkClosed, Outgoing
from claudemesh_wire.errors import MeshError
from claudemesh_wire.exchange import Answered, Exchange, Noticed
from claudemesh_wire.handshake import Closing
from claudemesh_wire.meshes import AskMesh
from tests.support.broker import LIMIT_S, MemoryLink, link_pair


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


async def test_a_reader_for_whom_too_much_gathers_is_closed() -> None:
    here, there = link_pair()
    outgoing = Outgoing(here, 5)
    for _ in range(MAX_TEXTS + 2):
        outgoing.put("0 0 x {}")
    outgoing.end(Closing(code="draining", reason=""))
    with anyio.fail_after(LIMIT_S):
        await outgoing.write()
    assert outgoing.closing is not None
    assert outgoing.closing.code == SLOW_READER
    await here.close()
    assert codes(await heard(there)) == [SLOW_READER]


async def test_what_an_abandoned_connection_had_to_say_is_dropped() -> None:
    here, there = link_pair()
    outgoing = Outgoing(here, 5)
    outgoing.put("0 0 x {}")
    outgoing.abandon()
    await outgoing.write()
    await here.close()
    assert await heard(there) == []


async def test_a_broken_link_ends_the_writer() -> None:
    here, there = link_pair()
    outgoing = Outgoing(here, 5)
    await there.close()
    outgoing.put("0 0 x {}")
    with anyio.fail_after(LIMIT_S):
        await outgoing.write()
