"""Calls over one connection, notices, what can't be understood, and the connection's end."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudemesh_mcp.client import Client
from claudemesh_wire.errors import Invalid, MeshError, NotFound, ProtocolError, TooMuch, Unavailable
from claudemesh_wire.exchange import MAX_PENDING, Answered
from claudemesh_wire.handshake import Closing
from claudemesh_wire.meshes import AskMesh, LogEntries, LogGrew, MeshFacts, ReadLog
from claudemesh_wire.presence import Depart
from tests.support.scripted import LIMIT_S, Broker, Pair, Wire, a_pair, running


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncGenerator[Pair]:
    async with a_pair(tmp_path) as made:
        yield made


MESH_FACTS = MeshFacts(
    name="home", created_ms=0, peers=1, online=1, queued=0, broker_version="1", data_version=1,
    started_ms=0, limits={},
)  # fmt: skip
LOG_ENTRIES = LogEntries(entries=[], head_seq=1, head=bytes(32))


async def test_each_answer_reaches_its_asker_in_any_order(pair: Pair) -> None:
    got: list[str] = []

    async def ask(request: Any) -> None:
        got.append((await pair.client.call(request)).kind)

    async with running(pair) as broker, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, AskMesh())
        first = await broker.asked()
        tasks.start_soon(ask, ReadLog())
        second = await broker.asked()
        await broker.answer(second.number, LOG_ENTRIES)
        await broker.answer(first.number, MESH_FACTS)
    assert got == [LogEntries.kind, MeshFacts.kind]


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (NotFound("No.", code="unknown_peer"), NotFound, "unknown_peer"),
        (TooMuch("Slow.", retry_after_s=3), TooMuch, "too_much"),
        (LOG_ENTRIES, ProtocolError, "protocol_error"),
    ],
)
async def test_a_refusal_or_a_wrong_answer_is_raised(
    pair: Pair, answer: Any, kind: type[MeshError], code: str
) -> None:
    async def refuse() -> None:
        await pair.broker.answer((await pair.broker.asked()).number, answer)

    async with running(pair), anyio.create_task_group() as tasks:
        tasks.start_soon(refuse)
        with pytest.raises(kind) as caught:
            await pair.client.call(AskMesh())
        assert caught.value.code == code
        assert caught.value.retry_after_s == getattr(answer, "retry_after_s", None)


async def test_an_answer_that_does_not_come_in_time_is_not_waited_for_nor_kept(pair: Pair) -> None:
    async with running(pair) as broker:
        with pytest.raises(Unavailable) as caught:
            await pair.client.call(AskMesh(), timeout_s=0.01)
        assert caught.value.code == "timeout"
        late = await broker.asked()
        await broker.answer(late.number, MESH_FACTS)
        await broker.say(Closing(code="draining", reason="bye"))
        assert (await pair.client.notices.receive()).kind == Closing.kind
    assert (pair.client._waiting, pair.client._exchange.pending) == ({}, 0)


async def test_a_call_that_is_cancelled_leaves_nothing_behind(pair: Pair) -> None:
    async with running(pair) as broker:
        asked: list[int] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.client.call, AskMesh())
            asked.append((await broker.asked()).number)
            tasks.cancel_scope.cancel()
        await broker.answer(asked[0], MESH_FACTS)
        assert (pair.client._waiting, pair.client._exchange.pending) == ({}, 0)


async def lost(pair: Pair, request: Any, codes: list[str]) -> None:
    with pytest.raises(Unavailable) as caught:
        await pair.client.call(request)
    codes.append(caught.value.code)


async def test_when_the_connection_ends_every_open_call_fails_and_later_ones_at_once(
    pair: Pair,
) -> None:
    codes: list[str] = []
    async with running(pair) as broker, anyio.create_task_group() as tasks:
        for request in (AskMesh(), ReadLog(), Depart()):
            tasks.start_soon(lost, pair, request, codes)
            await broker.asked()
        broker.wire.cut()
    await lost(pair, AskMesh(), codes)
    assert codes == ["connection_lost"] * 4


async def test_why_a_connection_ended_is_told_to_whoever_waited(pair: Pair) -> None:
    async with running(pair) as broker, anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(Unavailable) as caught:
                await pair.client.call(AskMesh())
            assert "it is being replaced" in caught.value.reason

        tasks.start_soon(ask)
        await broker.asked()
        await broker.say(Closing(code="draining", reason="it is being replaced"))
        broker.wire.cut()
    assert pair.client.closing is not None
    assert pair.client.closing.code == "draining"


async def test_an_answer_that_came_is_one_although_the_connection_ended_behind_it(
    pair: Pair,
) -> None:
    got: list[str] = []

    async def ask() -> None:
        got.append((await pair.client.call(AskMesh())).name)

    async with running(pair) as broker, anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await broker.answer((await broker.asked()).number, MESH_FACTS)
        broker.wire.cut()
    assert got == ["home"]


async def test_a_call_on_a_line_that_is_gone_fails_at_once(pair: Pair) -> None:
    pair.broker.wire.cut()
    codes: list[str] = []
    with anyio.fail_after(LIMIT_S):
        await lost(pair, AskMesh(), codes)
    assert codes == ["connection_lost"]


def grew(seq: int) -> LogGrew:
    return LogGrew(entries=[], head_seq=seq, head=bytes(32))


async def test_notices_come_in_their_order_and_end_with_the_connection(pair: Pair) -> None:
    async with running(pair) as broker:
        for seq in range(1, 500):
            await broker.say(grew(seq))
        broker.wire.cut()
        got = [notice async for notice in pair.client.notices]
    assert got == [grew(seq) for seq in range(1, 500)]


async def test_a_question_to_a_session_is_refused(pair: Pair) -> None:
    async with running(pair) as broker:
        number, text = broker.exchange.ask(AskMesh())
        await broker.raw(text)
        event = await broker.hear()
    assert isinstance(event, Answered)
    assert event.number == number
    assert isinstance(event.outcome, ProtocolError)
    assert event.outcome.code == "unsupported"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "junk",
        "0 0",
        "0 0 nothing.known {}",
        "0 0 messages.deliver {",
        '0 0 messages.deliver {"deliveries": 5}',
        "0 7 meshes.facts {}",
        "0 7 refused 5",
        "0 0 " + "a" * 5000,
    ],
)
async def test_what_can_not_be_understood_does_no_harm(pair: Pair, text: str) -> None:
    async with running(pair) as broker:
        await broker.raw(text)
        await broker.say(grew(1))
        assert await pair.client.notices.receive() == grew(1)


async def test_a_question_that_can_not_be_understood_is_answered_with_why(pair: Pair) -> None:
    async with running(pair) as broker:
        broker.exchange.ask(AskMesh())
        await broker.raw("1 0 no.such_thing {}")
        event = await broker.hear()
    assert isinstance(event, Answered)
    assert isinstance(event.outcome, Invalid)


async def test_an_answer_that_can_not_be_read_breaks_the_protocol_for_its_asker(
    pair: Pair,
) -> None:
    async def answer() -> None:
        number = (await pair.broker.asked()).number
        await pair.broker.raw(f'0 {number} meshes.facts {{"name": 5}}')

    async with running(pair), anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        with pytest.raises(ProtocolError):
            await pair.client.call(AskMesh())


async def test_more_calls_than_may_wait_are_refused_and_may_be_repeated(pair: Pair) -> None:
    async with running(pair), anyio.create_task_group() as tasks:
        for _ in range(MAX_PENDING):
            tasks.start_soon(lost, pair, AskMesh(), [])
        while pair.client._exchange.pending < MAX_PENDING:
            await pair.broker.asked()
        with pytest.raises(TooMuch) as caught:
            await pair.client.call(AskMesh())
        assert caught.value.retry_after_s
        pair.broker.wire.cut()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=60),
            st.from_regex(
                r"[0-9]{1,3} [0-9]{1,3} [a-z.]{1,20} [{}\[\]\",:0-9a-z]{0,30}", fullmatch=True
            ),
        ),
        max_size=8,
    )
)
def test_no_texts_of_any_kind_end_a_connection(texts: list[str]) -> None:
    async def converse() -> None:
        wire = Wire()
        client, broker = Client(wire), Broker(wire)
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.run)
                for text in texts:
                    await broker.raw(text)
                await broker.say(grew(1))
                async for notice in client.notices:
                    if notice == grew(1):
                        break
                wire.cut()
        client.close()
        wire.close()

    anyio.run(converse)
