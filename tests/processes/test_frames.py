"""Frames that no session sends – repeated, broken, too large – at a real broker beside sessions."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from claudemesh_wire.envelope import Sealed
from claudemesh_wire.errors import MeshError
from claudemesh_wire.exchange import Exchange, Noticed
from claudemesh_wire.handshake import Closing, Hello
from claudemesh_wire.messages import Accepted
from tests.support.live import Live, LiveSession, alive
from tests.support.rawclient import RawClient, id_of, raw_client

MEBIBYTE = 1024 * 1024


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path) as live:
        yield live


@pytest.fixture
async def ada(live: Live) -> LiveSession:
    return await live.join("ada")


async def is_unharmed(session: LiveSession, client: RawClient) -> None:
    """Show that a session still gets what it is sent, and that nothing was wrong for it."""
    send = await client.seal(session.name, "Are you well?")
    await client.ask(send)
    (read,) = await session.read(1)
    assert (read["id"], read["text"]) == (id_of(send), "Are you well?")
    assert (await session.call("mesh_info"))["problems"] == []


async def test_a_send_repeated_byte_for_byte_is_answered_again_and_delivered_once(
    live: Live, ada: LiveSession
) -> None:
    async with raw_client(live.home, live.broker, "eve") as eve:
        send = await eve.seal("ada", "once")
        number, text = eve.exchange.ask(send)
        answers: list[str] = []
        for _ in range(3):
            await eve.socket.send(text)
            answers.append(await eve.answer(number))
        assert len(set(answers)) == 1
        assert " messages.accepted " in answers[0]
    async with raw_client(live.home, live.broker, "eve") as eve:
        accepted = await eve.ask(send)
        assert isinstance(accepted, Accepted)
        assert answers[0].endswith(accepted.model_dump_json(exclude_none=True))
        (read,) = await ada.read(1)
        assert read["id"] == id_of(send)
        await is_unharmed(ada, eve)
    assert (await ada.call("inbox"))["messages"] == []


async def test_a_frame_that_means_nothing_is_refused_by_its_number_and_costs_nobody_anything(
    live: Live, ada: LiveSession
) -> None:
    deep = "[" * 100 + "]" * 100
    refused = {
        "no.such {}": "unsupported",
        "messages.deliver {}": "unsupported",
        "messages.send {}": "invalid",
        "messages.send []": "invalid",
        "messages.send": "invalid",
        "messages.resolve {": "invalid",
        'messages.resolve {"to":7}': "invalid",
        'messages.resolve {"to":["\x00"]}': "invalid",
        f'messages.resolve {{"to":{deep}}}': "invalid",
        "messages.resolve " + "[" * 200_000: "invalid",
        'messages.resolve {"to":["\\ud800"]}': "invalid",
        'messages.send {"envelope":"AAAA","resolved_ms":1}': "malformed",
    }
    async with raw_client(live.home, live.broker, "eve") as eve:
        broker = live.broker
        for number, (text, code) in enumerate(refused.items(), 5_000):
            await eve.socket.send(f"{number} 0 {text}")
            answer = await eve.answer(number)
            assert answer.startswith(f"0 {number} refused "), (text[:40], answer[:200])
            assert f'"code":"{code}"' in answer, (text[:40], answer[:200])
        # Without a number of its own there is nobody to answer; an answer nobody asked for is none.
        for text in ("garbage", "", "\0", "-1 0 x {}", "7 7 x {}", "0 99 messages.accepted {}"):
            await eve.socket.send(text)
        await is_unharmed(ada, eve)
        assert live.broker == broker


async def test_what_is_no_frame_at_all_closes_its_connection_and_no_other(
    live: Live, ada: LiveSession
) -> None:
    async def say(client: RawClient, frame: str | bytes) -> None:
        await client.socket.send(frame)
        while True:
            await client.text()

    deep = "9 0 messages.resolve " + '{"a":' * (MEBIBYTE // 4)
    for frame, code in ((b"\x00\x01", 1003), ("x" * (MEBIBYTE + 1), 1009), (deep, 1009)):
        async with raw_client(live.home, live.broker, "eve") as eve:
            with pytest.raises(ConnectionClosed):
                await say(eve, frame)
            assert eve.socket.close_code == code
    async with raw_client(live.home, live.broker, "eve") as eve:
        await is_unharmed(ada, eve)


async def test_one_who_talks_garbage_for_long_or_says_hello_twice_is_told_why_it_ends(
    live: Live, ada: LiveSession
) -> None:
    hello = Exchange().ask(Hello(claims=b"", certificate=b"", signature=b""))[1]
    for frames in (["garbage"] * 40, ["7 0 x {}"] * 40, [hello]):
        async with raw_client(live.home, live.broker, "eve") as eve:
            for frame in frames:
                await eve.socket.send(frame)
            while not isinstance(event := await eve.event(), Noticed) or not isinstance(
                event.notice, Closing
            ):
                pass
            assert event.notice.code == "protocol"
            with pytest.raises(ConnectionClosed):
                await eve.text()
            assert eve.socket.close_code == 1008
    async with raw_client(live.home, live.broker, "eve") as eve:
        await is_unharmed(ada, eve)


async def test_an_envelope_that_is_not_what_it_says_is_declined_and_the_next_one_is_read(
    live: Live, ada: LiveSession
) -> None:
    async with raw_client(live.home, live.broker, "eve") as eve:
        send = await eve.seal("ada", "changed on its way")
        sealed = Sealed.parse(send.envelope)
        body = sealed.body[:-1] + bytes([sealed.body[-1] ^ 1])
        changed = replace(sealed, body=body).to_bytes()
        await eve.ask(send.model_copy(update={"envelope": changed}))
        for content in (b"", b"\xff" * 9, b"\0\0\0\x02{}\xff"):
            junk = await eve.seal("ada", content)
            await eve.ask(junk)
        good = await eve.seal("ada", "as it was sealed")
        await eve.ask(good)
        (read,) = await ada.read(1)
        assert read["id"] == id_of(good)
        problems = (await ada.call("mesh_info"))["problems"]
        assert {one["code"] for one in problems} == {"bad_signature", "bad_content", "message_gap"}
        me = (await ada.call("mesh_info"))["me"]
        forged = await eve.seal("ada", "from ada?", sender=me["peer"])
        with pytest.raises(MeshError) as refused:
            await eve.ask(forged)
        assert refused.value.code == "wrong_sender"
