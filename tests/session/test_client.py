"""The handshake of one connection: what is proved, what is never said, and the lies in it."""

import base64
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_wire import canonical
from claudemesh_wire.errors import MeshError, NotFound, ProtocolError, Unauthenticated, Unavailable
from claudemesh_wire.exchange import Asked
from claudemesh_wire.handshake import (
    Claims,
    Closing,
    Hello,
    Welcome,
    is_hello_signed,
    write_welcome,
)
from claudemesh_wire.keys import b64, broker_id
from tests.support.scripted import BROKER, NONCE, OTHER, TOKEN, Pair, a_pair, challenge, facts


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncGenerator[Pair]:
    async with a_pair(tmp_path) as made:
        yield made


async def code_of_greeting(pair: Pair, kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught:
        await pair.greet()
    return caught.value.code


async def test_a_hello_proves_everything_and_gives_no_secret_away(pair: Pair) -> None:
    texts: list[str] = []

    async def listen() -> None:
        await pair.broker.say(challenge())
        texts.append(await pair.broker.wire.sent.receive())
        pair.broker.wire.cut()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        assert await code_of_greeting(pair, Unavailable) == "connection_lost"
    event = pair.broker.exchange.receive(texts[0])
    assert isinstance(event, Asked)
    hello = event.request
    assert isinstance(hello, Hello)
    claims = canonical.decode(hello.claims, Claims, "claims")
    assert is_hello_signed(hello, pair.peer.device.sign.public)
    assert (claims.peer, claims.mesh) == (pair.peer.id, pair.peer.trust.mesh)
    assert claims.head_seq == 2
    assert hello.log == []
    written = {TOKEN.hex(), b64(TOKEN), base64.b64encode(TOKEN).decode()}
    assert not any(secret in texts[0] for secret in written)


async def greeted(pair: Pair, welcome: Any) -> None:
    """Play the broker's part: challenge, hear the hello, answer with what is given for it."""
    await pair.broker.say(challenge())
    number, hello, claims = await pair.broker.hello()
    await pair.broker.answer(number, welcome(hello, claims))


def honest(hello: Hello, claims: Claims) -> Welcome:
    return write_welcome(facts(claims), hello.claims, BROKER, TOKEN, [b"entry"])


async def test_a_welcome_that_is_signed_and_fresh_is_believed(pair: Pair) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(greeted, pair, honest)
        told, entries = await pair.greet()
        assert (told.handle, entries) == ("ada-2", [b"entry"])


@pytest.mark.parametrize(
    "lie",
    [
        {"broker": broker_id(OTHER.public), "key": OTHER.public.raw},
        {"key": OTHER.public.raw},
        {"key": b"no key"},
        {"key": bytes(32)},
        {"nonce": b"short"},
    ],
)
async def test_another_broker_than_the_expected_one_hears_no_hello(
    pair: Pair, lie: dict[str, Any]
) -> None:
    await pair.broker.say(challenge(**lie))
    assert await code_of_greeting(pair, Unauthenticated) == "wrong_broker"
    await pair.broker.silence()


async def test_a_broker_of_another_protocol_asks_for_an_update(pair: Pair) -> None:
    await pair.broker.say(challenge(protocol=2))
    assert await code_of_greeting(pair, ProtocolError) == "unsupported_version"


@pytest.mark.parametrize(
    "forge",
    [
        lambda hello, claims: write_welcome(facts(claims), hello.claims, OTHER, TOKEN, []),
        lambda hello, claims: write_welcome(facts(claims), hello.claims, BROKER, None, []),
        lambda hello, claims: write_welcome(facts(claims), hello.claims, BROKER, NONCE, []),
        lambda _hello, claims: write_welcome(facts(claims), b"{}", BROKER, TOKEN, []),
        lambda hello, claims: write_welcome(
            facts(claims, cn=claims.bn), hello.claims, BROKER, TOKEN, []
        ),
        lambda hello, claims: write_welcome(
            facts(claims, peer="p_" + "a" * 26), hello.claims, BROKER, TOKEN, []
        ),
        lambda hello, claims: honest(hello, claims).model_copy(update={"facts": b"{}"}),
        lambda hello, claims: honest(hello, claims).model_copy(update={"signature": bytes(64)}),
    ],
)
async def test_a_forged_welcome_is_refused_and_nothing_more_is_sent(pair: Pair, forge: Any) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(greeted, pair, forge)
        assert await code_of_greeting(pair, Unauthenticated) == "wrong_broker"
    await pair.broker.silence()


async def test_a_welcome_of_an_earlier_hello_is_refused(pair: Pair) -> None:
    earlier: list[Welcome] = []

    def keep(hello: Hello, claims: Claims) -> Welcome:
        earlier.append(honest(hello, claims))
        return earlier[0]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(greeted, pair, keep)
        await pair.greet()
        tasks.start_soon(greeted, pair, lambda *_: earlier[0])
        assert await code_of_greeting(pair, Unauthenticated) == "wrong_broker"


async def test_a_broker_that_lost_the_mesh_is_offered_the_log(pair: Pair) -> None:
    async def forgetful() -> None:
        await pair.broker.say(challenge())
        number, _, _ = await pair.broker.hello()
        await pair.broker.answer(number, NotFound("There is no such mesh.", code="unknown_mesh"))
        number, hello, claims = await pair.broker.hello()
        assert hello.log == list(pair.peer.trust.chain.entries)
        await pair.broker.answer(number, honest(hello, claims))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(forgetful)
        told, _ = await pair.greet()
        assert told.handle == "ada-2"


async def test_a_hello_that_is_refused_says_why(pair: Pair) -> None:
    async with anyio.create_task_group() as tasks:
        refusal = Unauthenticated("The certificate has expired.", code="certificate_expired")
        tasks.start_soon(greeted, pair, lambda *_: refusal)
        assert await code_of_greeting(pair, Unauthenticated) == "certificate_expired"


@pytest.mark.parametrize("words", [Closing(code="draining", reason="bye"), None])
async def test_a_broker_that_ends_instead_of_beginning_is_lost(
    pair: Pair, words: Closing | None
) -> None:
    if words:
        await pair.broker.say(words)
    else:
        pair.broker.wire.cut()
    assert await code_of_greeting(pair, Unavailable) == "connection_lost"
    assert pair.client.closing == words


async def test_a_broker_that_closes_on_the_hello_is_lost(pair: Pair) -> None:
    async def refuse() -> None:
        await pair.broker.say(challenge())
        await pair.broker.hello()
        await pair.broker.say(Closing(code="removed", reason="gone"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refuse)
        assert await code_of_greeting(pair, Unavailable) == "connection_lost"
    assert pair.client.closing is not None


@pytest.mark.parametrize("text", ["0 0 presence.departed {}", "junk", "1 0 meshes.info {}"])
async def test_a_broker_that_does_not_begin_with_a_challenge_breaks_the_protocol(
    pair: Pair, text: str
) -> None:
    await pair.broker.raw(text)
    assert await code_of_greeting(pair, ProtocolError) == "protocol_error"


async def test_a_broker_that_keeps_silent_is_not_waited_for(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudemesh_mcp.client.HANDSHAKE_TIMEOUT_S", 0.01)
    with pytest.raises(Unavailable):
        await pair.greet()
