"""The WebSocket to a broker over real sockets: texts, limits, and an other end that hangs."""

import asyncio

import anyio
import pytest
from websockets.frames import Opcode
from websockets.http11 import Request

from claudemesh_mcp.connection import Link, LinkClosed, Patience, websocket
from claudemesh_wire.errors import Unavailable
from claudemesh_wire.frame import MAX_FRAME_BYTES
from tests.support.otherend import LIMIT_S, PATIENT, OtherEnd, Script, a_server, connected

HASTY = Patience(ping_interval_s=0.2)


async def echo(other: OtherEnd) -> None:
    while True:
        await other.say(bytes((await other.frame()).data).decode())


async def hear_out(other: OtherEnd) -> None:
    await other.until_the_end()


@pytest.mark.parametrize("text", ["", "hello", "grüße 👋", "x" * MAX_FRAME_BYTES])
async def test_a_text_arrives_as_it_was_sent(text: str) -> None:
    async with connected(echo) as link:
        await link.send(text)
        assert await link.receive() == text


async def test_texts_keep_their_order(anyio_backend_name: str) -> None:
    assert anyio_backend_name == "asyncio"
    texts = [f"text {number}" for number in range(500)]
    async with connected(echo) as link, anyio.create_task_group() as tasks:

        async def send() -> None:
            for text in texts:
                await link.send(text)

        tasks.start_soon(send)
        assert [await link.receive() for _ in texts] == texts


async def test_a_text_in_fragments_is_one_text() -> None:
    async def fragments(other: OtherEnd) -> None:
        word = "grüße".encode()
        other.protocol.send_text(word[:3], fin=False)
        other.protocol.send_ping(b"between")
        other.protocol.send_continuation(word[3:], fin=True)
        await other.write()
        assert (await other.frame(Opcode.PONG)).data == b"between"
        await other.until_the_end()

    async with connected(fragments) as link:
        assert await link.receive() == "grüße"


async def test_what_arrived_before_the_end_is_given_before_it() -> None:
    async def say_and_leave(other: OtherEnd) -> None:
        other.protocol.send_text(b"one")
        other.protocol.send_text(b"two")
        other.protocol.send_close(1012, "restarting")
        await other.write()
        await other.until_the_end()

    async with connected(say_and_leave) as link:
        assert [await link.receive(), await link.receive()] == ["one", "two"]
        with pytest.raises(LinkClosed):
            await link.receive()
        with pytest.raises(LinkClosed):
            await link.send("too late")


async def test_a_line_that_is_cut_ends_the_link_for_both() -> None:
    async def cut(other: OtherEnd) -> None:
        await other.frame()

    async with connected(cut) as link:
        await link.send("go")
        with pytest.raises(LinkClosed):
            await link.receive()
        with pytest.raises(LinkClosed):
            await link.send("anybody there?")


async def test_a_cancelled_receive_loses_nothing() -> None:
    async with connected(echo) as link:
        with anyio.move_on_after(0):
            await link.receive()
        await link.send("still here")
        assert await link.receive() == "still here"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        # A header that announces 2 MiB is refused before any of them is waited for.
        pytest.param(b"\x81\x7f" + (2 * MAX_FRAME_BYTES).to_bytes(8, "big"), 1009, id="large"),
        pytest.param(b"\x82\x01x", 1003, id="binary"),
        pytest.param(b"\x81\x01\xff", 1007, id="no-text"),
        pytest.param(b"\x80\x01x", 1002, id="out-of-order"),
        pytest.param(b"\xc1\x01x", 1002, id="compressed"),
    ],
)
async def test_what_is_no_text_of_the_protocol_ends_the_link(frame: bytes, code: int) -> None:
    told: list[int] = []

    async def misbehave(other: OtherEnd) -> None:
        other.writer.write(frame)
        closing = await other.frame(Opcode.CLOSE)
        told.append(int.from_bytes(closing.data[:2], "big"))

    async with connected(misbehave) as link:
        with pytest.raises(LinkClosed):
            await link.receive()
    assert told == [code]


async def test_fragments_are_limited_as_a_whole() -> None:
    async def dribble(other: OtherEnd) -> None:
        half = b"x" * (MAX_FRAME_BYTES // 2)
        other.protocol.send_text(half, fin=False)
        other.protocol.send_continuation(half, fin=False)
        other.protocol.send_continuation(b"x", fin=True)
        await other.write()
        await other.frame(Opcode.CLOSE)

    async with connected(dribble) as link:
        with pytest.raises(LinkClosed):
            await link.receive()


async def test_a_silent_other_end_is_pinged_and_kept_while_it_answers() -> None:
    async def answer_pings(other: OtherEnd) -> None:
        for _ in range(2):
            await other.frame(Opcode.PING)
        await other.say("still here")
        await other.until_the_end()

    async with connected(answer_pings, HASTY) as link:
        assert await link.receive() == "still here"


async def test_an_other_end_that_answers_nothing_is_given_up() -> None:
    pinged = anyio.Event()

    async def hang(other: OtherEnd) -> None:
        # As a half-open line does: what arrives is read by the system and by nobody else.
        while await other.reader.read(65_536):
            pinged.set()

    async with connected(hang, HASTY) as link:
        with pytest.raises(LinkClosed):
            await link.receive()
        assert pinged.is_set()
        with pytest.raises(LinkClosed):
            await link.send("anybody there?")


async def test_an_other_end_that_reads_nothing_is_given_up_after_a_while() -> None:
    async def hold(other: OtherEnd) -> None:
        assert other.request
        await asyncio.Event().wait()

    async def send_on(link: Link) -> None:
        while True:
            await link.send("x" * MAX_FRAME_BYTES)

    async with connected(hold, Patience(60, send_s=0.05)) as link:
        with pytest.raises(LinkClosed):
            await send_on(link)
        with pytest.raises(LinkClosed):
            await link.receive()


async def test_a_sender_waits_for_an_other_end_that_reads_late() -> None:
    late = asyncio.Event()
    texts = ["x" * MAX_FRAME_BYTES] * 12

    async def read_late(other: OtherEnd) -> None:
        await late.wait()
        for _ in texts:
            await other.frame()
        await other.say("all of them")
        await other.until_the_end()

    async with connected(read_late) as link:
        sent = 0
        with anyio.move_on_after(0.1):
            for text in texts:
                await link.send(text)
                sent += 1
        assert sent < len(texts)
        late.set()
        for text in texts[sent + 1 :]:
            await link.send(text)
        assert await link.receive() == "all of them"


async def test_an_other_end_that_sends_more_than_is_taken_has_to_wait() -> None:
    text, many = "x" * 65_536, 2000
    stuck = anyio.Event()

    async def flood(other: OtherEnd) -> None:
        for _ in range(many):
            with anyio.move_on_after(0.1):
                await other.say(text)
                continue
            stuck.set()
            await other.writer.drain()
        await other.until_the_end()

    async with connected(flood) as link:
        await stuck.wait()
        for _ in range(many):
            assert await link.receive() == text


async def test_the_block_ends_with_a_goodbye() -> None:
    told: list[bytes] = []

    async def hear(other: OtherEnd) -> None:
        told.append(bytes((await other.frame(Opcode.CLOSE)).data))
        await other.until_the_end()

    async with connected(hear):
        pass
    assert told == [(1000).to_bytes(2, "big")]


async def test_a_goodbye_that_is_not_answered_is_not_waited_for() -> None:
    async def ignore(other: OtherEnd) -> None:
        assert other.request
        await asyncio.Event().wait()

    async with connected(ignore, Patience(60, close_s=0.01)) as link:
        await link.send("hello")


async def test_a_goodbye_gets_through_what_was_not_taken() -> None:
    async def say_much(other: OtherEnd) -> None:
        await other.say(*["x" * 1000] * 200)
        await other.frame(Opcode.CLOSE)
        await other.until_the_end()

    async with connected(say_much, Patience(60, close_s=LIMIT_S)) as link:
        assert await link.receive()


async def test_nobody_listening_is_unreachable() -> None:
    async with a_server(hear_out) as url:
        pass
    with pytest.raises(Unavailable) as refused:
        async with websocket(url, PATIENT):
            pass
    assert refused.value.code == "unreachable"


async def _not_found(other: OtherEnd) -> None:
    await other.reader.readuntil(b"\r\n\r\n")
    other.writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
    await other.reader.read()


async def _garbage(other: OtherEnd) -> None:
    other.writer.write(b"SSH-2.0-OpenSSH_9\r\n")
    await other.reader.read()


async def _end(other: OtherEnd) -> None:
    await other.reader.readuntil(b"\r\n\r\n")


async def _forged(other: OtherEnd) -> None:
    await other.reader.readuntil(b"\r\n\r\n")
    head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    other.writer.write(f"{head}Sec-WebSocket-Accept: x\r\n\r\n".encode())
    await other.reader.read()


async def _silence(other: OtherEnd) -> None:
    await other.reader.readuntil(b"\r\n\r\n")
    await other.reader.read()


@pytest.mark.parametrize("script", [_not_found, _garbage, _end, _forged, _silence])
async def test_what_is_no_websocket_is_unreachable(script: Script) -> None:
    async with a_server(script) as url:
        with pytest.raises(Unavailable) as refused:
            async with websocket(url, Patience(60, open_s=0.2)):
                pass
        assert refused.value.code == "unreachable"


async def test_the_broker_is_asked_directly_and_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    asked: list[Request] = []

    async def note(other: OtherEnd) -> None:
        assert other.request
        asked.append(other.request)
        await other.until_the_end()

    async with connected(note):
        pass
    (request,) = asked
    assert request.path == "/ws"
    assert "Sec-WebSocket-Extensions" not in request.headers
