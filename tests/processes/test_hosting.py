"""A broker for other machines, over real sockets: TLS of each kind, and what is refused."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.protocol import State
from websockets.uri import parse_uri

from claudemesh_broker.reach import main_address
from claudemesh_mcp.brokerinfo import BrokerInfo
from claudemesh_mcp.connection import Patience, websocket
from claudemesh_mcp.sdk import Mesh
from claudemesh_mcp.tls import fetch_pin
from claudemesh_wire.errors import MeshError, TooMuch
from claudemesh_wire.exchange import Answered, Exchange, Noticed
from claudemesh_wire.handshake import Challenge, Closing, Hello
from tests.support.authority import Authority
from tests.support.foreground import LIMIT_S, Hosted, hosted, run_to_its_end, settings_of

ANYWHERE = ("--bind", "0.0.0.0")  # noqa: S104 - what is hosted
PUBLIC = "https://mesh.example.org"
PROXY = ("--tls", "proxy", "--public-url", PUBLIC)
Headers = dict[str, str]
PATIENT = Patience(ping_interval_s=60)


async def talk(home: Path) -> None:
    """Have two sessions of a home exchange a message."""
    async with (
        Mesh.connect(settings=settings_of(home), name="ada") as ada,
        Mesh.connect(settings=settings_of(home), name="bob", resume="bob") as bob,
    ):
        with anyio.fail_after(LIMIT_S):
            await ada.send("bob", "sealed, and then some")
            async for message in bob.messages():
                assert message.text == "sealed, and then some"
                break


async def challenged(info: BrokerInfo, pin: bytes) -> str:
    """Connect and give the id of the broker that answers."""
    async with websocket(info.url, PATIENT, pin) as link:
        return broker_in(await link.receive())


def broker_in(frame: str) -> str:
    event = Exchange().receive(frame)
    assert isinstance(event, Noticed)
    assert isinstance(event.notice, Challenge)
    return event.notice.broker


async def refusal(info: BrokerInfo, pin: bytes = b"") -> MeshError:
    with pytest.raises(MeshError) as caught:
        await challenged(info, pin)
    assert caught.value.hint
    return caught.value


async def test_sessions_talk_over_a_certificate_that_the_broker_made(tmp_path: Path) -> None:
    with hosted(tmp_path, *ANYWHERE, "--tls", "auto") as broker:
        info = broker.info
        assert info.url.startswith("https://127.0.0.1:")
        assert await fetch_pin(info.url) == info.pin
        await talk(broker.home)
        assert broker.end() == 0
        secret = (broker.data / "admin.secret").read_text().strip()
    assert broker.says.startswith("claudemesh broker listens on 0.0.0.0:")
    assert "others reach it at https://" in broker.says
    assert info.pin.hex() in broker.says
    assert str(broker.data / "admin.secret") in broker.says
    logged = (broker.data / "broker.log").read_text()
    assert secret not in broker.says + logged
    assert "Traceback" not in broker.says + logged


@pytest.mark.parametrize(
    "bind",
    [
        pytest.param("", id="one-address"),
        pytest.param("::", id="both-versions"),
    ],
)
async def test_sessions_of_its_machine_find_it_wherever_it_listens(
    tmp_path: Path, bind: str
) -> None:
    address = bind or main_address(4)
    if address is None or (bind and not socket.has_dualstack_ipv6()):
        pytest.skip("this machine has no such address")
    with hosted(tmp_path, "--bind", address, "--tls", "auto") as broker:
        await talk(broker.home)
        if bind:
            url = f"https://127.0.0.1:{broker.info.port}"
            assert await fetch_pin(url) == broker.info.pin
        else:
            assert broker.info.host == address


async def test_the_pin_holds_over_restarts_and_a_new_certificate_is_refused(
    tmp_path: Path,
) -> None:
    with hosted(tmp_path, *ANYWHERE, "--tls", "auto") as broker:
        first = broker.info
    with hosted(tmp_path, *ANYWHERE, "--tls", "auto") as broker:
        assert broker.info.pin == first.pin
        assert await challenged(broker.info, first.pin) == first.id
        assert (await refusal(broker.info)).code == "certificate_invalid"
    for name in ("broker-tls.crt", "broker-tls.key"):
        (broker.data / name).unlink()
    with hosted(tmp_path, *ANYWHERE, "--tls", "auto") as broker:
        assert (await refusal(broker.info, first.pin)).code == "certificate_changed"
        assert await challenged(broker.info, broker.info.pin) == first.id


async def test_an_authority_vouches_for_a_certificate_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("mesh.example.org", "127.0.0.1")
    own = ("--tls-cert", str(certificate), "--tls-key", str(key))
    with hosted(tmp_path, *ANYWHERE, *own) as broker:
        assert (await refusal(broker.info)).code == "certificate_invalid"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert await challenged(broker.info, b"") == broker.info.id
        await talk(broker.home)
        assert broker.end() == 0
    assert "others reach it at https://mesh.example.org:" in broker.says


def test_a_wider_bind_without_tls_is_refused(tmp_path: Path) -> None:
    done = run_to_its_end(tmp_path / "home", "run", *ANYWHERE, "--port", "0")
    assert done.returncode == 2
    assert "--tls auto" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--tls", "banana"),
        ("--bind", ""),
        ("--bind", "999.1.1.1"),
        ("--public-url", "http://mesh.example.org"),
    ],
)
def test_a_flag_that_makes_no_sense_is_a_wrong_use(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run_to_its_end(tmp_path / "home", "run", *words, "--port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


async def test_who_speaks_no_tls_gets_nothing_and_disturbs_nobody(tmp_path: Path) -> None:
    with hosted(tmp_path, *ANYWHERE, "--tls", "auto") as broker:
        info = broker.info
        for said in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"x" * 5000):
            with socket.create_connection(("127.0.0.1", info.port)) as plain:
                plain.send(said)
                answer = b""
                with suppress(ConnectionError):
                    while data := plain.recv(1000):
                        answer += data
                assert b"HTTP" not in answer
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        too_old = pytest.raises((ssl.SSLError, ConnectionError))
        with socket.create_connection(("127.0.0.1", info.port)) as line, too_old:
            old.wrap_socket(line)
        assert await challenged(info, info.pin) == info.id
        broker.end()
    assert "Traceback" not in broker.says + (broker.data / "broker.log").read_text()


def unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@asynccontextmanager
async def dialed(url: str, headers: Headers | None = None) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket with headers of one's own choice."""
    parts, sent = urlsplit(url), dict(headers or {})
    address = f"{parts.scheme.replace('http', 'ws')}://{sent.pop('Host', parts.netloc)}/ws"
    more: dict[str, Any] = {"ssl": unchecked()} if parts.scheme == "https" else {}
    more |= {"host": parts.hostname, "port": parts.port, "max_size": None, "compression": None}
    async with connect(address, proxy=None, additional_headers=sent, **more) as link:
        yield link


async def heard(link: ClientConnection) -> str:
    with anyio.fail_after(LIMIT_S):
        return await link.recv(decode=True)


async def test_over_tls_a_broker_ends_and_limits_as_it_does_without(tmp_path: Path) -> None:
    with hosted(tmp_path, *ANYWHERE, "--tls", "auto") as broker:
        async with dialed(broker.info.url) as link:
            broker_in(await heard(link))
            await link.send("x" * (1024 * 1024 + 1))
            with pytest.raises(ConnectionClosed), anyio.fail_after(LIMIT_S):
                await link.recv()
            assert link.close_code == 1009
        async with dialed(broker.info.url) as link:
            broker_in(await heard(link))
            broker.popen.terminate()
            event = Exchange().receive(await heard(link))
            assert isinstance(event, Noticed)
            assert isinstance(event.notice, Closing)
            with pytest.raises(ConnectionClosed), anyio.fail_after(LIMIT_S):
                await link.recv()
            assert link.close_code == 1012
        assert broker.popen.wait(LIMIT_S) == 0


async def test_whoever_is_leaving_and_keeps_the_line_open_does_not_spoil_the_end(
    tmp_path: Path,
) -> None:
    with (
        hosted(tmp_path, *ANYWHERE, "--tls", "auto") as broker,
        socket.create_connection(("127.0.0.1", broker.info.port)) as line,
        unchecked().wrap_socket(line) as link,
    ):
        client = ClientProtocol(parse_uri(f"wss://127.0.0.1:{broker.info.port}/ws"))
        client.send_request(client.connect())
        link.sendall(b"".join(client.data_to_send()))
        while client.state is not State.OPEN:
            client.receive_data(link.recv(65536))
        client.send_close()
        link.sendall(b"".join(client.data_to_send()))
        while client.close_rcvd is None:
            client.receive_data(link.recv(65536))
        # It has its answer, and does not hang up: for the broker, it is still there.
        assert broker.end() == 0
    assert "Traceback" not in broker.says + (broker.data / "broker.log").read_text()


async def test_another_name_and_another_sites_page_are_kept_out(tmp_path: Path) -> None:
    with hosted(tmp_path, *ANYWHERE, "--tls", "auto", "--public-url", PUBLIC) as broker:
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            with pytest.raises(InvalidStatus) as caught:
                async with dialed(broker.info.url, headers):
                    pass
            assert caught.value.response.status_code == 403
        async with dialed(broker.info.url, {"Origin": PUBLIC}) as link:
            assert broker_in(await heard(link)) == broker.info.id


async def says_hello(broker: Hosted, headers: dict[str, str]) -> MeshError:
    """Give how a hello that proves nothing is refused: by its rate, or because it is looked at."""
    async with dialed(broker.info.url, headers) as link:
        exchange = Exchange()
        exchange.receive(await heard(link))
        junk = Hello(
            claims=b"{}", certificate=b"{}", signature=bytes(64), token_mac=bytes(32), log=[]
        )
        await link.send(exchange.ask(junk)[1])
        event = exchange.receive(await heard(link))
    assert isinstance(event, Answered)
    assert isinstance(event.outcome, MeshError)
    return event.outcome


ONE_HELLO = {
    "CLAUDEMESH_BROKER_AUTH_BURST": "1",
    "CLAUDEMESH_BROKER_AUTH_PER_S": "0.01",
}


async def test_behind_a_proxy_each_client_has_the_rate_of_its_own_address(tmp_path: Path) -> None:
    with hosted(tmp_path, *PROXY, **ONE_HELLO) as broker:
        assert broker.info.url.startswith("http://127.0.0.1:")
        # What a client writes itself stands before what the proxy adds.
        for forged, address, is_limited in (
            ("203.0.113.1", "198.51.100.1", False),
            ("203.0.113.2", "198.51.100.1", True),
            ("203.0.113.2", "198.51.100.2", False),
        ):
            headers = {"Host": "mesh.example.org", "X-Forwarded-For": f"{forged}, {address}"}
            assert isinstance(await says_hello(broker, headers), TooMuch) is is_limited


async def test_without_a_proxy_a_forged_address_is_ignored(tmp_path: Path) -> None:
    with hosted(tmp_path, *ANYWHERE, "--tls", "auto", **ONE_HELLO) as broker:
        for address, is_limited in (("198.51.100.1", False), ("198.51.100.2", True)):
            for name in ("X-Forwarded-For", "Forwarded"):
                told = address if name == "X-Forwarded-For" else f"for={address}"
                error = await says_hello(broker, {name: told})
                assert isinstance(error, TooMuch) is (is_limited or name == "Forwarded")


async def test_one_that_connects_and_says_nothing_is_hung_up_on(tmp_path: Path) -> None:
    with hosted(tmp_path, CLAUDEMESH_BROKER_AUTH_TIMEOUT_S="0.2") as broker:
        for said in (b"", b"GET /health HTTP/1.1\r\nHost: local"):
            with anyio.fail_after(LIMIT_S):
                async with await anyio.connect_tcp("127.0.0.1", broker.info.port) as line:
                    if said:
                        await line.send(said)
                    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                        await line.receive()
