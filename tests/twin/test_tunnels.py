"""Lines between real peers: proved ends, sealed words, and what comes of them when one is gone."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.line import Line, LineEnded, Words
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Mode
from claudemesh_wire.tunnels import DataCame
from tests.support.broker import LIMIT_S
from tests.support.twin import Twin, a_mesh


@pytest.fixture
async def twin(tmp_path: Path) -> AsyncIterator[Twin]:
    async with a_mesh(tmp_path) as made:
        yield made


class Echo:
    """Answers every message of a line with itself, and keeps who was there."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.heard: list[Words] = []
        self.ended = anyio.Event()

    async def __call__(self, line: Line) -> None:
        self.lines.append(line)
        try:
            async for words in line.messages():
                self.heard.append(words)
                await line.send(words)
        finally:
            self.ended.set()


async def offering(twin: Twin, name: str = "bob") -> tuple[Mesh, Echo]:
    mesh, echo = await twin.join(name), Echo()
    mesh.tunnels.taker = echo
    return mesh, echo


async def echoed(line: Line, words: Words) -> Words:
    await line.send(words)
    with anyio.fail_after(LIMIT_S):
        return await anext(line.messages())


async def test_what_is_said_comes_back_and_both_know_whom_they_talk_to(twin: Twin) -> None:
    ada = await twin.join("ada")
    bob, echo = await offering(twin)
    line = await ada.tunnels.open(bob.peer.id)
    assert await echoed(line, {"word": "ünï"}) == {"word": "ünï"}
    assert (line.peer.fields.peer, line.peer.fields.handle) == (bob.peer.id, "bob")
    assert echo.lines[0].peer.fields.handle == "ada"
    await line.close()
    await echo.ended.wait()


@pytest.mark.parametrize("size", [0, 131_072, 5_000_000])
async def test_a_message_may_be_longer_than_a_frame(twin: Twin, size: int) -> None:
    ada = await twin.join("ada")
    bob, _ = await offering(twin)
    line = await ada.tunnels.open(bob.peer.id)
    assert len((await echoed(line, {"text": "x" * size}))["text"]) == size


async def test_a_message_that_is_too_long_is_refused_and_the_line_goes_on(twin: Twin) -> None:
    ada = await twin.join("ada")
    bob, _ = await offering(twin)
    line = await ada.tunnels.open(bob.peer.id)
    with pytest.raises(MeshError) as caught:
        await line.send({"text": "x" * (33 * 1024 * 1024)})
    assert caught.value.code == "message_too_large"
    assert await echoed(line, {"n": 1}) == {"n": 1}


async def test_the_broker_passes_on_nothing_that_it_can_read(twin: Twin) -> None:
    passed: list[str] = []
    twin.lie = lambda text: passed.append(text) or text
    ada = await twin.join("ada")
    bob, _ = await offering(twin)
    line = await ada.tunnels.open(bob.peer.id)
    await echoed(line, {"secret": "the launch code"})
    assert any("tunnels.came" in text for text in passed)
    assert not any("launch" in text or "bGF1bmNo" in text for text in passed)


async def test_a_peer_of_another_member_is_proved_too(twin: Twin) -> None:
    ada = await twin.join("ada")
    guest = await twin.admit("cleo")
    cleo, echo = await guest.join("cleo"), Echo()
    cleo.tunnels.taker = echo
    line = await ada.tunnels.open(cleo.peer.id)
    assert await echoed(line, {"n": 1}) == {"n": 1}
    assert line.peer.fields.member == guest.member


async def test_a_peer_that_offers_nothing_says_so_at_once(twin: Twin) -> None:
    ada, bob = await twin.join("ada"), await twin.join("bob")
    with anyio.fail_after(LIMIT_S), pytest.raises(MeshError) as caught:
        await ada.tunnels.open(bob.peer.id)
    assert caught.value.code == "not_answered"
    assert "offers nothing" in caught.value.reason


async def test_a_peer_that_is_gone_is_away_at_once(twin: Twin) -> None:
    ada = await twin.join("ada")
    async with twin.open("bob") as bob:
        await bob.ready()
        gone = bob.peer.id
    with anyio.fail_after(LIMIT_S), pytest.raises(MeshError) as caught:
        await ada.tunnels.open(gone)
    assert caught.value.code == "peer_offline"


async def test_the_command_line_opens_lines_too(twin: Twin) -> None:
    cli = await twin.join("cli", Mode.CALL)
    bob, _ = await offering(twin)
    line = await cli.tunnels.open(bob.peer.id)
    assert await echoed(line, {"n": 1}) == {"n": 1}


async def test_a_broken_connection_ends_all_its_lines(twin: Twin) -> None:
    ada = await twin.join("ada")
    bob, echo = await offering(twin)
    line = await ada.tunnels.open(bob.peer.id)
    await echoed(line, {"n": 1})
    await twin.cut()
    with anyio.fail_after(LIMIT_S):
        assert [words async for words in line.messages()] == []
        await echo.ended.wait()
    with pytest.raises(LineEnded) as caught:
        await line.send({"n": 2})
    assert (caught.value.left, len(echo.heard)) == (False, 1)
    await ada.ready()
    await bob.ready()
    again = await ada.tunnels.open(bob.peer.id)
    assert await echoed(again, {"n": 3}) == {"n": 3}


async def test_what_was_read_of_a_line_before_it_ended_is_not_lost(twin: Twin) -> None:
    ada = await twin.join("ada")
    bob = await twin.join("bob")

    async def say_and_leave(line: Line) -> None:
        async for words in line.messages():
            await line.send(words)
            await line.send({"more": True})
            return

    bob.tunnels.taker = say_and_leave
    line = await ada.tunnels.open(bob.peer.id)
    await line.send({"n": 1})
    with anyio.fail_after(LIMIT_S):
        said = [words async for words in line.messages()]
    assert said == [{"n": 1}, {"more": True}]


def changing(kind: str, change: Any) -> Any:
    """A broker that changes what it passes on in notices of this kind."""

    def lie(text: str) -> str:
        return change(text) if f" {kind} " in text[:60] else text

    return lie


async def test_an_altered_word_ends_the_line(twin: Twin) -> None:
    ada = await twin.join("ada")
    bob, echo = await offering(twin)
    line = await ada.tunnels.open(bob.peer.id)
    await echoed(line, {"n": 1})
    twin.lie = changing(
        "tunnels.came", lambda text: text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:]
    )
    await line.send({"n": 2})
    with anyio.fail_after(LIMIT_S):
        await echo.ended.wait()
        assert [words async for words in line.messages()] == []
    assert echo.heard == [{"n": 1}]
    assert any(one.code == "tunnel_broken" for one in bob.peer.problems)


async def test_a_played_back_offer_makes_the_callee_say_nothing_to_anybody(twin: Twin) -> None:
    asked: list[str] = []
    twin.lie = changing("tunnels.asked", lambda text: asked.append(text) or text)
    ada = await twin.join("ada")
    bob, echo = await offering(twin)
    line = await ada.tunnels.open(bob.peer.id)
    await echoed(line, {"n": 1})
    twin.clock.pass_ms(10 * 60_000)
    [text] = asked
    # Ten minutes later the broker asks again with the same offer, as number 99.
    number = f'"tunnel":{line.number}'
    twin.links[-1].other.send_now(text.replace(number, '"tunnel":99'))
    with anyio.fail_after(LIMIT_S):
        while not any(one.code == "stale_offer" for one in bob.peer.problems):
            await anyio.lowlevel.checkpoint()
    assert len(echo.lines) == 1


async def test_what_comes_for_a_line_that_was_left_disturbs_no_later_one(twin: Twin) -> None:
    ada = await twin.join("ada")
    bob, _ = await offering(twin)
    # The first that this broker opens is number 1.
    ada.tunnels.hear(DataCame(tunnel=1, data=b"late words"))
    line = await ada.tunnels.open(bob.peer.id)
    assert (line.number, await echoed(line, {"n": 1})) == (1, {"n": 1})


async def test_a_flood_that_nobody_reads_ends_the_line(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudemesh_mcp.line._MOST_UNREAD_BYTES", 1_000_000)
    ada = await twin.join("ada")
    bob = await twin.join("bob")
    never = anyio.Event()

    async def sleep(line: Line) -> None:
        assert line.peer
        await never.wait()

    bob.tunnels.taker = sleep
    line = await ada.tunnels.open(bob.peer.id)
    with anyio.fail_after(LIMIT_S), pytest.raises(LineEnded) as caught:
        await _pour(line)
    assert caught.value.why.code in {"no_tunnel", "line_closed"}


async def _pour(line: Line) -> None:
    while True:
        await line.send({"text": "x" * 100_000})
