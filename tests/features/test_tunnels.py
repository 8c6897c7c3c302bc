"""Tunnels at the broker: who is connected with whom, what is passed on, and how it ends."""

import anyio
import pytest

from claudemesh_wire.grants import SetBlock
from claudemesh_wire.handshake import Mode
from claudemesh_wire.presence import UpdatePresence
from claudemesh_wire.tunnels import (
    MAX_TUNNELS,
    CloseTunnel,
    DataCame,
    OpenTunnel,
    PassData,
    TunnelAsked,
    TunnelEnded,
)
from tests.support.broker import LIMIT_S, MemoryBroker, a_broker
from tests.support.people import Device, Mesh
from tests.support.rawpeer import RawPeer, Wish, join

CERTIFICATE = b"a certificate, which the broker does not look at"


def asking(peer: RawPeer) -> OpenTunnel:
    return OpenTunnel(peer=peer.device.peer, offer=b"an offer", certificate=CERTIFICATE)


async def connected(ada: RawPeer, bob: RawPeer) -> int:
    number = (await ada.call(asking(bob))).tunnel
    await bob.until(lambda: any(one.tunnel == number for one in bob.of(TunnelAsked)))
    return number


async def test_a_peer_is_asked_by_another_and_told_who_that_is(ada: RawPeer, bob: RawPeer) -> None:
    number = await connected(ada, bob)
    [asked] = bob.of(TunnelAsked)
    assert (asked.tunnel, asked.peer) == (number, ada.device.peer)
    assert (asked.offer, asked.certificate) == (b"an offer", CERTIFICATE)


async def test_data_come_to_the_other_end_in_their_order(ada: RawPeer, bob: RawPeer) -> None:
    number = await connected(ada, bob)
    for word in (b"one", b"two", b"three"):
        await ada.call(PassData(tunnel=number, data=word))
    await bob.call(PassData(tunnel=number, data=b"four"))
    await bob.until(lambda: len(bob.of(DataCame)) == 3)
    await ada.until(lambda: len(ada.of(DataCame)) == 1)
    assert [one.data for one in bob.of(DataCame)] == [b"one", b"two", b"three"]
    assert [(one.tunnel, one.data) for one in ada.of(DataCame)] == [(number, b"four")]


async def test_nobody_else_can_pass_data_or_end_it(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    number = await connected(ada, bob)
    other = await join(broker, Device(ada.device.mesh, ada.device.owner, "other"))
    assert (await other.refused(PassData(tunnel=number, data=b"x"))).code == "no_tunnel"
    await other.call(CloseTunnel(tunnel=number))
    await ada.call(PassData(tunnel=number, data=b"x"))


async def test_closing_tells_the_other_end_why(ada: RawPeer, bob: RawPeer) -> None:
    number = await connected(ada, bob)
    await ada.call(CloseTunnel(tunnel=number, reason="done"))
    await bob.until(lambda: bool(bob.of(TunnelEnded)))
    [ended] = bob.of(TunnelEnded)
    assert (ended.tunnel, ended.code, ended.reason) == (number, "closed", "done")
    assert (await bob.refused(PassData(tunnel=number, data=b"x"))).code == "no_tunnel"
    await bob.call(CloseTunnel(tunnel=number))


async def test_the_other_end_hears_at_once_of_a_connection_that_broke(
    ada: RawPeer, bob: RawPeer
) -> None:
    number = await connected(ada, bob)
    await bob.link.close()
    await ada.until(lambda: bool(ada.of(TunnelEnded)))
    [ended] = ada.of(TunnelEnded)
    assert (ended.tunnel, ended.code) == (number, "gone")


async def test_a_peer_in_its_lease_without_a_connection_is_away(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    await bob.link.close()
    await bob.link.served.wait()
    away = await ada.refused(asking(bob))
    assert (away.code, away.category) == ("peer_offline", "unavailable")
    assert away.details == {"host": "desk", "since_ms": broker.clock.now_ms}


async def test_of_one_that_hides_nobody_learns_when_it_was_here(ada: RawPeer, bob: RawPeer) -> None:
    await bob.call(UpdatePresence(visible=False))
    await bob.link.close()
    await bob.link.served.wait()
    away = await ada.refused(asking(bob))
    assert (away.code, away.details) == ("peer_offline", {})


async def test_a_blocked_member_reaches_nobody(broker: MemoryBroker, mesh: Mesh) -> None:
    cleo = await join(broker, Device(mesh, mesh.add("cleo"), "cleo"))
    ada = await join(broker, Device(mesh, mesh.founder, "ada"))
    await ada.call(SetBlock(member=cleo.device.owner.id, blocked=True))
    assert (await cleo.refused(asking(ada))).code == "blocked"
    assert ada.of(TunnelAsked) == []


async def test_there_is_no_line_to_oneself_or_to_nobody(ada: RawPeer) -> None:
    assert (await ada.refused(asking(ada))).code == "invalid"
    nobody = OpenTunnel(peer="p_" + "a" * 26, offer=b"x", certificate=CERTIFICATE)
    assert (await ada.refused(nobody)).code == "not_found"


async def test_a_connection_that_only_calls_can_open_one(
    broker: MemoryBroker, ada: RawPeer, bob: RawPeer
) -> None:
    device = Device(ada.device.mesh, ada.device.owner, "cli")
    cli = await join(broker, device, wish=Wish(mode=Mode.CALL))
    number = await connected(cli, bob)
    await bob.call(PassData(tunnel=number, data=b"for the command line"))
    await cli.until(lambda: bool(cli.of(DataCame)))
    assert (await ada.refused(asking(cli))).code in {"peer_offline", "not_found", "not_certified"}


async def test_so_many_may_be_open_and_no_more(ada: RawPeer, bob: RawPeer) -> None:
    numbers = [(await ada.call(asking(bob))).tunnel for _ in range(MAX_TUNNELS)]
    assert len(set(numbers)) == 256
    assert (await ada.refused(asking(bob))).code == "too_many_tunnels"
    await ada.call(CloseTunnel(tunnel=numbers[0]))
    await ada.call(asking(bob))


async def test_who_passes_too_much_is_told_to_wait(
    tmp_path_factory: pytest.TempPathFactory, ada: RawPeer
) -> None:
    async with a_broker(tmp_path_factory.mktemp("slow"), tunnel_per_s=1, tunnel_burst=2) as broker:
        mesh = ada.device.mesh
        one = await join(broker, Device(mesh, ada.device.owner, "one"))
        two = await join(broker, Device(mesh, ada.device.owner, "two"))
        number = await connected(one, two)
        for _ in range(2):
            await one.call(PassData(tunnel=number, data=b"x"))
        refused = await one.refused(PassData(tunnel=number, data=b"x"))
        assert refused.code == "rate_limited"
        assert refused.retry_after_s
        await two.call(PassData(tunnel=number, data=b"the other end has its own"))


async def test_a_fast_end_waits_for_one_that_does_not_read(ada: RawPeer, bob: RawPeer) -> None:
    number = await connected(ada, bob)
    passed = 0

    async def pour() -> None:
        nonlocal passed
        while True:
            await ada.call(PassData(tunnel=number, data=bytes(200_000)))
            passed += 1

    bob.link.stop_taking()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pour)
        with anyio.fail_after(LIMIT_S):
            # Until nothing moves any more: the broker neither closes it nor takes all of it.
            before = -1
            while before != passed or passed == 0:
                before = passed
                await anyio.wait_all_tasks_blocked()
        assert passed < 16
        bob.link.stop_taking(stuck=False)
        await bob.until(lambda: passed > 20)
        tasks.cancel_scope.cancel()
