"""SIGKILL of the broker and of sessions, as the clients of the sessions see it."""

import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError

from tests.support.live import LIMIT_S, Live, LiveSession, alive

SENDS = 40


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path) as live:
        yield live


def ids(messages: list[dict[str, Any]]) -> list[str]:
    return [message["id"] for message in messages]


async def nothing_more(session: LiveSession) -> None:
    assert (await session.call("inbox"))["messages"] == []


# The broker


async def test_a_broker_that_is_killed_between_two_sends_is_hardly_noticed(live: Live) -> None:
    ada, bob = await live.join_all("ada", "bob")
    first = await ada.call("send", to="bob", text="first")
    read = await bob.read(1)
    killed = live.broker
    waited: list[dict[str, Any]] = []
    sent: list[dict[str, Any]] = []

    async def wait() -> None:
        waited.extend(await bob.read(1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        # It answers the second call, so it waits in the first while the broker dies.
        await bob.call("mesh_info")
        live.kill_broker()
        sent.append(await ada.call("send", to="bob", text="second"))
    (second,) = sent
    assert second["recipients"][0]["status"] in {"accepted", "queued", "pending"}
    read += waited
    assert ids(read) == [first["id"], second["id"]]
    assert not any(message.get("redelivered") for message in read)
    await nothing_more(bob)
    assert (await ada.reached("seen", second))["proved"]
    assert live.broker.id == killed.id
    assert live.broker.pid != killed.pid
    assert (ada.status, bob.status) == (None, None)


async def test_what_was_sent_while_the_broker_died_is_read_once_or_was_refused(
    live: Live,
) -> None:
    ada, bob = await live.join_all("ada", "bob")
    sent: list[str] = []
    refused: list[str] = []

    async def send(number: int) -> None:
        result = await ada.result("send", to="bob", text=f"number {number}")
        assert result.structured_content is not None
        if result.is_error:
            refused.append(result.structured_content["error"]["code"])
            return
        sent.append(result.structured_content["id"])
        if len(sent) == SENDS // 8:
            live.kill_broker()

    async with anyio.create_task_group() as tasks:
        for number in range(SENDS):
            tasks.start_soon(send, number)
    assert len(sent) + len(refused) == SENDS
    assert set(refused) <= {"connection_lost", "not_connected"}
    read = ids(await bob.read(len(sent), limit=7))
    assert sorted(read) == sorted(sent)
    await nothing_more(bob)
    assert (await ada.call("mesh_info"))["pending"] == 0


async def test_sessions_find_a_broker_that_comes_back_on_another_port(live: Live) -> None:
    ada, bob = await live.join_all("ada", "bob")
    before = live.broker
    await live.stop_broker()
    # Whoever has the old port now: sessions do not take it for their broker.
    with socket.create_server(("127.0.0.1", before.port)):
        sent = await ada.call("send", to="bob", text="found you")
        assert ids(await bob.read(1)) == [sent["id"]]
        assert live.broker.port != before.port
    for session in (ada, bob):
        peer = (await session.call("mesh_info"))["me"]["peer"]
        assert live.log.count(f" connected peer={peer}") == 2


async def test_a_broker_that_hangs_keeps_nobody_from_ending_well_and_loses_nothing(
    live: Live,
) -> None:
    ada, bob = await live.join_all("ada", "bob")
    await ada.call("send", to="bob", text="so that ada knows bob")
    sent: list[dict[str, Any]] = []

    async def send() -> None:
        sent.append(await ada.call("send", to="bob", text="while it hung"))

    async with anyio.create_task_group() as tasks:
        os.kill(live.broker.pid, signal.SIGSTOP)
        tasks.start_soon(send)
        # Its client waits for 2 s, asks by SIGTERM, and kills after 2 s more.
        assert await bob.end() == 0
        assert not sent
        os.kill(live.broker.pid, signal.SIGCONT)
    again = await live.join("bob")
    assert [one["text"] for one in await again.read(2)][1] == "while it hung"
    assert (await ada.reached("delivered", sent[0]))["proved"]


async def test_when_everything_is_killed_at_once_what_was_accepted_is_there(live: Live) -> None:
    ada, bob = await live.join_all("ada", "bob")
    sent = [await ada.call("send", to="bob", text=f"number {number}") for number in range(5)]
    live.kill_broker()
    ada.signal(signal.SIGKILL)
    bob.signal(signal.SIGKILL)
    await ada.ended()
    await bob.ended()
    ada, bob = await live.join_all("ada", "bob")
    assert ids(await bob.read(5)) == ids(sent)
    await nothing_more(bob)
    assert (await ada.reached("seen", sent[-1]))["proved"]


# Sessions


async def test_a_session_that_is_killed_while_idle_comes_back_as_the_same_peer(
    live: Live,
) -> None:
    async def self_of(session: LiveSession) -> dict[str, Any]:
        found = await session.call("search_peers", detail=True)
        (row,) = [row for row in found["peers"] if row.get("self")]
        changing = {"last_seen", "certificate", "cwd", "project"}
        del row["stats"]["online_s"]
        return {name: row[name] for name in row if name not in changing}

    ada, bob = await live.join_all("ada", "bob")
    await bob.call("set_profile", role="reviewer", summary="Reads", profile={"speaks": ["py"]})
    await bob.call("join", address="@team", role="lead")
    before = await self_of(bob)
    assert (before["groups"], before["profile"]) == (["@team"], {"speaks": ["py"]})
    await bob.kill()
    sent = [
        await ada.call("send", to=to, text=f"to {to}", thread="t") for to in ("bob", "@team", "*")
    ]
    again = await live.join("bob")
    assert await self_of(again) == before
    assert (await again.call("mesh_info"))["me"]["last_seen"]
    assert sorted(ids(await again.read(3))) == sorted(ids(sent))
    await again.kill()
    # And so it does by its id, from another Claude session that wishes for another handle.
    resumed = await live.join("eve", "--resume", before["peer"], session="another")
    me = (await resumed.call("mesh_info"))["me"]
    assert (me["peer"], me["groups"]) == (before["peer"], ["@team"])


async def test_what_was_printed_before_the_kill_comes_again_with_a_mark(live: Live) -> None:
    ada, bob = await live.join_all("ada", "bob")
    sent = await ada.call("send", to="bob", text="Did you see this?")
    (printed,) = await bob.read(1)
    await bob.kill()
    later = await ada.call("send", to="bob", text="And this?")
    again = await live.join("bob")
    # The later one must not come before the one that waits for its proof.
    read = await again.read(2)
    assert ids(read) == ids([sent, later])
    assert "redelivered" not in printed
    assert [message.get("redelivered") for message in read] == [True, None]
    await nothing_more(again)
    assert (await ada.reached("seen", sent))["proved"]


async def test_a_session_that_is_killed_while_it_waits_for_a_message_loses_none(
    live: Live,
) -> None:
    ada, bob = await live.join_all("ada", "bob")

    async def wait() -> None:
        with pytest.raises(MCPError):
            await bob.call("inbox", wait_s=LIMIT_S)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        # It answers the second call, so it has taken the first.
        await bob.call("mesh_info")
        await bob.kill()
    sent = await ada.call("send", to="bob", text="Are you there?")
    again = await live.join("bob")
    (read,) = await again.read(1)
    assert read["id"] == sent["id"]
    assert "redelivered" not in read
    await nothing_more(again)
