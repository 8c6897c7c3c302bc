"""Lines between a session and its broker that freeze, thaw and break, without either being told."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.live import Live, LiveSession, alive
from tests.support.proxy import End, Proxy, proxy_to

PINGS = {"CLAUDEMESH_BROKER_PING_INTERVAL_S": "0.5", "CLAUDEMESH_PING_INTERVAL_S": "0.5"}


@pytest.fixture
def settings() -> dict[str, str]:
    """What both sides are told; by default nothing, so that no ping comes in a test's time."""
    return {}


@pytest.fixture
async def live(tmp_path: Path, settings: dict[str, str]) -> AsyncIterator[Live]:
    async with alive(tmp_path, **settings) as live:
        yield live


@pytest.fixture
async def ada(live: Live) -> LiveSession:
    """A session with a line of its own to the broker."""
    return await live.join("ada")


@pytest.fixture
async def proxy(live: Live, ada: LiveSession) -> AsyncIterator[Proxy]:
    """Stands before the broker for every session that starts from now on."""
    assert ada.pid
    async with proxy_to(live.broker) as proxy:
        proxy.stand_in(live.home)
        yield proxy


@pytest.fixture
async def bob(live: Live, proxy: Proxy) -> LiveSession:
    """A session behind the proxy."""
    assert proxy.port
    return await live.join("bob")


def ids(messages: list[dict[str, Any]]) -> list[str]:
    return [message["id"] for message in messages]


async def sent_at_last(session: LiveSession, **message: Any) -> dict[str, Any]:
    """Send as a model does that follows the hint of a refusal, which is to try again."""
    while True:
        result = await session.result("send", **message)
        assert result.structured_content is not None
        if not result.is_error:
            return result.structured_content
        assert result.structured_content["error"]["code"] == "connection_lost"


@pytest.mark.parametrize("settings", [PINGS])
async def test_both_sides_notice_a_frozen_line_and_a_new_one_loses_nothing(
    live: Live, ada: LiveSession, bob: LiveSession, proxy: Proxy
) -> None:
    first = await proxy.line(0)
    first.freeze()
    # The next one too, until both have noticed: a new attachment would end the old one.
    proxy.opens_frozen = True
    to_bob = [await ada.call("send", to="bob", text=f"number {number}") for number in range(3)]
    await first.given_up_by(End.SESSION)
    await first.given_up_by(End.BROKER)
    second = await proxy.line(1)
    second.thaw()
    proxy.opens_frozen = False
    to_ada = await sent_at_last(bob, to="ada", text="Do you hear me?", idempotency_key="once")
    assert "why=replaced" not in live.log
    assert ids(await bob.read(3)) == ids(to_bob)
    assert ids(await ada.read(1)) == [to_ada["id"]]
    # What was on its way all that time comes too late for anybody to believe it.
    first.thaw()
    for session, sent in ((ada, to_bob[-1]), (bob, to_ada)):
        other = bob if session is ada else ada
        assert (await other.call("inbox"))["messages"] == []
        assert (await session.reached("seen", sent))["proved"]


async def test_a_line_that_thaws_in_time_is_used_on_and_loses_nothing(
    ada: LiveSession, bob: LiveSession, proxy: Proxy
) -> None:
    line = await proxy.line(0)
    line.freeze()
    to_bob = [await ada.call("send", to="bob", text=f"number {number}") for number in range(3)]
    to_ada: list[dict[str, Any]] = []

    async def send() -> None:
        to_ada.append(await bob.call("send", to="ada", text="Do you hear me?"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await line.keeps(End.SESSION)
        await line.keeps(End.BROKER)
        line.thaw()
    assert ids(await bob.read(3)) == ids(to_bob)
    assert ids(await ada.read(1)) == ids(to_ada)
    assert len(proxy.lines) == 1


async def test_an_answer_that_is_lost_with_its_line_makes_no_second_message(
    ada: LiveSession, bob: LiveSession, proxy: Proxy
) -> None:
    # Resolved beforehand, so that the next thing the broker says is that it took the message.
    before = await bob.call("send", to="ada", text="first")
    assert ids(await ada.read(1)) == [before["id"]]
    await bob.reached("delivered", before)
    line = await proxy.line(0)
    sent: list[dict[str, Any]] = []
    read: list[dict[str, Any]] = []

    async def send() -> None:
        sent.append(await bob.call("send", to="ada", text="second"))

    async with anyio.create_task_group() as tasks:
        line.freeze(End.SESSION)
        tasks.start_soon(send)
        read += await ada.read(1)
        assert not sent
        await line.cut()
    await proxy.line(1)
    assert ids(sent) == ids(read)
    assert sent[0]["recipients"][0]["status"] == "accepted"
    assert (await ada.call("inbox"))["messages"] == []


async def test_receipts_that_are_lost_with_their_line_are_told_on_the_next(
    ada: LiveSession, bob: LiveSession, proxy: Proxy
) -> None:
    line = await proxy.line(0)
    line.freeze(End.BROKER)
    sent = await ada.call("send", to="bob", text="Seen?")
    assert ids(await bob.read(1)) == [sent["id"]]
    assert (await bob.call("inbox"))["messages"] == []
    await line.cut()
    await proxy.line(1)
    seen = await ada.reached("seen", sent)
    assert seen["proved"]
    assert seen["delivered_at"]
    assert (await bob.call("inbox"))["messages"] == []
