"""How a broker proves over TLS that it is the one, and that nothing is said to any other."""

import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.connection import websocket
from claudemesh_mcp.tls import fetch_pin
from claudemesh_wire.errors import Invalid, MeshError, Unauthenticated, Unavailable
from tests.support.authority import Authority
from tests.support.otherend import LIMIT_S, PATIENT, OtherEnd, a_server

HOST = "127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Broker:
    """The other end, which notes whatever is said to it."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        self.pin = hashlib.sha256(der).digest()
        self.heard = b""
        self.left = anyio.Event()

    async def greet(self, other: OtherEnd) -> None:
        await other.shake_hands()
        await other.say("hello")
        await other.until_the_end()

    async def listen(self, other: OtherEnd) -> None:
        try:
            while data := await other.reader.read(100):
                self.heard += data
        finally:
            self.left.set()

    @asynccontextmanager
    async def greeting(self) -> AsyncIterator[str]:
        async with a_server(self.greet, self.context) as url:
            yield url


async def greeted(url: str, pin: bytes = b"") -> str:
    async with websocket(url, PATIENT, pin) as link:
        return await link.receive()


async def refused(url: str, pin: bytes = b"") -> MeshError:
    with pytest.raises(MeshError) as caught:
        await greeted(url, pin)
    assert caught.value.hint
    return caught.value


async def test_the_pinned_certificate_is_enough(authority: Authority) -> None:
    broker = Broker(*authority.issue("somewhere.else.example", days=-1))
    async with broker.greeting() as url:
        assert await greeted(url, broker.pin) == "hello"


async def test_to_a_certificate_that_changed_nothing_is_said(authority: Authority) -> None:
    broker, before = Broker(*authority.issue(HOST)), Broker(*authority.issue(HOST))
    async with a_server(broker.listen, broker.context) as url:
        error = await refused(url, before.pin)
        with anyio.fail_after(LIMIT_S):
            await broker.left.wait()
    assert isinstance(error, Unauthenticated)
    assert error.code == "certificate_changed"
    assert error.details == {"shown": broker.pin.hex(), "trusted": before.pin.hex()}
    assert broker.heard == b""


async def test_an_authority_that_is_known_vouches_for_a_broker(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with Broker(*authority.issue(HOST)).greeting() as url:
        assert await greeted(url) == "hello"


@pytest.mark.parametrize(
    ("host", "days", "is_known"),
    [
        pytest.param(HOST, 7, False, id="unknown-authority"),
        pytest.param("other.example", 7, True, id="other-name"),
        pytest.param(HOST, -1, True, id="expired"),
    ],
)
async def test_a_certificate_that_nobody_vouches_for_is_refused(
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    days: int,
    is_known: bool,  # noqa: FBT001 - a case
) -> None:
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with Broker(*authority.issue(host, days=days)).greeting() as url:
        error = await refused(url)
    assert isinstance(error, Unauthenticated)
    assert error.code == "certificate_invalid"


@pytest.mark.parametrize("url", ["http://192.0.2.7:7467", "http://mesh.example.org"])
async def test_in_clear_only_this_machine_is_spoken_to(url: str) -> None:
    error = await refused(url)
    assert isinstance(error, Invalid)
    assert error.code == "tls_required"


async def test_a_pin_is_never_left_out_for_lack_of_tls(authority: Authority) -> None:
    broker = Broker(*authority.issue(HOST))
    async with a_server(broker.listen) as url:
        assert (await refused(url, broker.pin)).code == "tls_required"


async def test_one_who_speaks_no_tls_is_unreachable(authority: Authority) -> None:
    broker = Broker(*authority.issue(HOST))

    async def talk(other: OtherEnd) -> None:
        other.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await other.reader.read()

    async with a_server(talk) as plain:
        url = plain.replace("http", "https")
        for pin in (b"", broker.pin):
            error = await refused(url, pin)
            assert isinstance(error, Unavailable)
            assert error.code == "unreachable"
        with pytest.raises(Unavailable) as caught:
            await fetch_pin(url)
        assert caught.value.code == "unreachable"


async def test_the_certificate_that_is_shown_can_be_asked_for(authority: Authority) -> None:
    broker = Broker(*authority.issue("somewhere.else.example"))
    async with a_server(broker.listen, broker.context) as url:
        assert await fetch_pin(url) == broker.pin
    assert broker.heard == b""
    with pytest.raises(Invalid) as caught:
        await fetch_pin("http://127.0.0.1:1")
    assert caught.value.code == "tls_required"
