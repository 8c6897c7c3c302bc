"""Catching up with a broker's membership log: what is fetched, and what is named a lie."""

from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.catchup import catch_up
from claudemesh_wire.errors import MeshError, Unavailable
from claudemesh_wire.membership import Head
from claudemesh_wire.meshes import LogEntries, ReadLog
from tests.support.scripted import Pair, a_pair, running
from tests.wire.world import ADA, BOB, CLEO, DAN, Log


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncGenerator[Pair]:
    """Ada's client; she knows that she founded the mesh and added bob."""
    async with a_pair(tmp_path) as made:
        yield made


def longer() -> Log:
    """What the broker knows: cleo and dan were added since."""
    return Log().bring(BOB).bring(CLEO).bring(DAN)


async def serve(pair: Pair, entries: list[bytes], most: int = 100) -> None:
    """Answer every request for the log with what follows, at most so many entries at once."""
    head = Head(len(entries), bytes(32))
    while True:
        asked = await pair.broker.asked()
        assert isinstance(asked.request, ReadLog)
        after = asked.request.after_seq
        some = entries[after : after + most]
        await pair.broker.answer(
            asked.number, LogEntries(entries=some, head_seq=head.seq, head=head.hash)
        )


async def caught_up(
    pair: Pair, shown: Head, entries: list[bytes], *, most: int = 100, least: int = 0
) -> str:
    """Catch up with a broker that serves these entries; gives the code of what is wrong."""
    code = ""
    async with running(pair), anyio.create_task_group() as tasks:
        tasks.start_soon(serve, pair, entries, most)
        try:
            await catch_up(pair.peer, pair.client, shown.seq, shown.hash, least)
        except MeshError as error:
            code = error.code
        tasks.cancel_scope.cancel()
    return code


@pytest.mark.parametrize("most", [1, 100])
async def test_what_the_broker_knows_more_is_fetched_and_verified(pair: Pair, most: int) -> None:
    log = longer()
    assert not await caught_up(pair, log.chain.head, log.blobs, most=most)
    assert pair.peer.trust.head == log.chain.head
    assert set(pair.peer.trust.chain.members) == {ADA.id, BOB.id, CLEO.id, DAN.id}


async def test_with_a_broker_that_knows_the_same_nothing_is_asked(pair: Pair) -> None:
    async with running(pair):
        head = pair.peer.trust.head
        await catch_up(pair.peer, pair.client, head.seq, head.hash, least=head.seq)
        with pytest.raises(anyio.WouldBlock):
            pair.broker.wire.sent.receive_nowait()


async def test_an_answer_overtaken_by_a_newer_entry_is_no_rollback(pair: Pair) -> None:
    log = longer()
    shown = log.chain.head_at(3)
    assert shown is not None
    assert not await caught_up(pair, shown, log.blobs)
    assert not list(pair.peer.problems)


async def test_a_log_shorter_than_what_the_broker_was_told_is_detected(pair: Pair) -> None:
    shown = pair.peer.trust.chain.head_at(1)
    assert shown is not None
    assert await caught_up(pair, shown, [], least=2) == "membership_rollback"
    assert [one.code for one in pair.peer.problems] == ["membership_rollback"]


async def test_a_longer_log_of_another_history_is_detected(pair: Pair) -> None:
    other = Log().bring(CLEO).bring(BOB).bring(DAN)
    code = await caught_up(pair, other.chain.head, other.blobs)
    assert code.startswith("membership_")
    assert [one.code for one in pair.peer.problems] == [code]
    assert CLEO.id not in pair.peer.trust.chain.members


async def test_an_entry_that_nobody_may_sign_is_detected(pair: Pair) -> None:
    log = Log().bring(BOB)
    stolen = log.entry("remove", BOB, member=ADA.id)
    code = await caught_up(pair, Head(3, bytes(32)), [*log.blobs, stolen])
    assert code == "membership_forbidden"
    assert pair.peer.trust.head == log.chain.head


async def test_a_head_that_its_own_entries_do_not_lead_to_is_detected(pair: Pair) -> None:
    log = longer()
    assert await caught_up(pair, Head(4, bytes(32)), log.blobs) == "membership_rollback"


async def test_a_broker_that_speaks_of_entries_and_shows_none_is_not_asked_for_ever(
    pair: Pair,
) -> None:
    assert await caught_up(pair, Head(9, bytes(32)), []) == Unavailable.category
