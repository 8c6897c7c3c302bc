"""What is held for its sender's turns is judged again like what waits, before it is released."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from claudemesh_mcp import openrows
from claudemesh_mcp.policy import Policy
from claudemesh_mcp.routes import waking
from claudemesh_wire.errors import Forbidden
from tests.support.twin import until
from tests.support.twopeople import World, kept, two_people


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as world:
        yield world


async def limit(world: World) -> str:
    """Let a message of bob be held at ada's for his turns; gives its id."""
    sent = await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    now_ms = world.ada.peer.now_ms()

    def hold(sql: sqlite3.Connection) -> None:
        for turn in range(3):
            (row,) = openrows.peek(sql, 1, None, now_ms)
            waking.note_pushes(sql, "monitor", [(row, 1, str(turn))], now_ms)
        rows = openrows.peek(sql, 9, None, now_ms)
        assert waking.hold_excess(sql, rows, now_ms) == []

    await world.ada.peer.file.write(hold)
    world.ada.look_again()
    return sent.id


async def test_its_sender_is_told_why_and_that_it_is_delivered_with_a_prompt(world: World) -> None:
    sent = await limit(world)
    assert (await until(world.bob, sent, "held")).reason == "auto_reply_limit"
    now_ms = world.ada.peer.now_ms() + 1_000
    released = await world.ada.peer.file.write(lambda sql: waking.release_excess(sql, now_ms))
    world.ada.look_again()
    assert released == 1
    assert (await until(world.bob, sent, "delivered")).reason is None
    assert [one.text for one in (await world.ada.inbox()).messages] == ["psst"]


async def test_it_is_not_shown_by_its_id_and_says_when_it_will_be(world: World) -> None:
    sent = await limit(world)
    with pytest.raises(Forbidden) as refused:
        await world.ada.inbox(id=sent)
    assert refused.value.code == "held"
    assert "prompt" in refused.value.hint


async def test_a_prompt_releases_nothing_of_who_lost_the_right_meanwhile(world: World) -> None:
    await limit(world)
    await world.revoke("message")
    now_ms, policy = world.ada.peer.now_ms(), Policy(world.ada.peer)
    await world.ada.peer.file.write(lambda sql: policy.review(sql, now_ms))
    assert await world.ada.peer.file.write(lambda sql: waking.release_excess(sql, now_ms)) == 0
    assert await kept(world.ada, 1) == [("psst", "message", 0)]
