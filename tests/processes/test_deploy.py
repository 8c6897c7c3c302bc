"""The files of ``broker/deploy``: a unit that systemd takes, a real Caddy before a real broker."""

import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect

from claudemesh_mcp.connection import Patience, websocket
from claudemesh_wire.errors import MeshError, TooMuch
from claudemesh_wire.exchange import Answered, Exchange, Noticed
from claudemesh_wire.handshake import Challenge, Hello
from tests.support.authority import Authority
from tests.support.checkout import ROOT
from tests.support.foreground import LIMIT_S, environment, hosted
from tests.support.hosting import a_guest, ok

UNIT = ROOT / "broker" / "deploy" / "claudemesh-broker.service"
README = ROOT / "broker" / "README.md"
CADDYFILE = ROOT / "broker" / "deploy" / "Caddyfile"
PROGRAM = "/var/lib/claudemesh/.local/bin/claudemesh"
DATA = "/var/lib/claudemesh/broker"
NAME = "mesh.example.org"
needs_caddy = pytest.mark.skipif(not shutil.which("caddy"), reason="needs caddy")


def test_the_unit_runs_the_broker_and_gives_it_nothing_else() -> None:
    lines = UNIT.read_text().splitlines()
    said = [line for line in lines if line and not line.startswith(("#", "["))]
    assert all("=" in line for line in said)
    started = next(line for line in said if line.startswith("ExecStart="))
    assert started.split()[:3] == [f"ExecStart={PROGRAM}", "broker", "run"]
    assert "User=claudemesh" in said
    closed = {
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateDevices=yes",
        "CapabilityBoundingSet=",
        "RestrictNamespaces=yes",
        "SystemCallFilter=@system-service",
        "UMask=0077",
        "StateDirectoryMode=0700",
    }
    assert closed <= set(said)
    assert not [line for line in said if "secret" in line.lower() or "token" in line.lower()]


def test_what_the_unit_starts_listens_as_it_says(tmp_path: Path) -> None:
    said = [line.partition("=") for line in UNIT.read_text().splitlines()]
    (words,) = [shlex.split(value) for name, _, value in said if name == "ExecStart"]
    told = [pair for name, _, value in said if name == "Environment" for pair in value.split()]
    variables = dict(pair.split("=", 1) for pair in told) | {"CLAUDEMESH_BROKER_PORT": "0"}
    own = {PROGRAM: [sys.executable, "-m", "claudemesh_mcp"], DATA: [str(tmp_path / "broker")]}
    assert own.keys() <= set(words)
    with subprocess.Popen(
        [part for word in words for part in own.get(word, [word])],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(**variables, HOME=str(tmp_path)),
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        process.terminate()
        process.communicate(timeout=LIMIT_S)
    assert first.startswith("claudemesh broker listens on 0.0.0.0:")
    assert second.startswith("others reach it at https://")
    assert process.returncode == 0
    assert (tmp_path / "broker" / "broker-tls.crt").exists()


def test_the_check_of_a_service_has_its_program_data_and_settings() -> None:
    lines = UNIT.read_text().splitlines()
    (settings,) = [line for line in lines if line.startswith("EnvironmentFile=")]
    (check,) = [block for block in README.read_text().split("```") if "systemd-run" in block]
    for said in (f"--property={settings}", "--uid=claudemesh", f"{PROGRAM} broker check", DATA):
        assert said in check


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_the_unit_as_it_is(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # It also looks for the program, which is installed elsewhere here.
    unit.write_text(UNIT.read_text().replace(PROGRAM, shutil.which("true") or ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (
        0,
        [],
    )


@needs_caddy
def test_caddy_takes_the_example_as_it_is(tmp_path: Path) -> None:
    words = ["caddy", "validate", "--adapter", "caddyfile", "--config", str(CADDYFILE)]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=environment(XDG_DATA_HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path)),
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def caddy(folder: Path, broker_port: int, authority: Authority) -> Iterator[int]:
    """Run the example, with a certificate of the tests' own and on other ports; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    certificate, key = authority.issue(NAME, "localhost")
    site = f"https://{NAME}:{port}, https://localhost:{port} {{\n\ttls {certificate} {key}\n"
    text = CADDYFILE.read_text()
    assert text.count(f"{NAME} {{") == text.count("127.0.0.1:7467") == 1
    text = text.replace(f"{NAME} {{", site).replace("127.0.0.1:7467", f"127.0.0.1:{broker_port}")
    # Without its own port for orders, and without port 80.
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    (folder / "Caddyfile").write_text(options + text)
    log = folder / "caddy.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")],
            stderr=written,
            env=environment(XDG_DATA_HOME=str(folder), XDG_CONFIG_HOME=str(folder)),
        )
    try:
        while b"serving initial configuration" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.terminate()
        process.wait(LIMIT_S)


async def hello_from(address: str, port: int, authority: Authority, **headers: str) -> MeshError:
    """Say a hello that proves nothing to Caddy; gives how the broker refuses it."""
    async with connect(
        f"wss://{NAME}:{port}/ws",
        host="127.0.0.1",
        port=port,
        local_addr=(address, 0),
        ssl=ssl.create_default_context(cafile=authority.file),
        server_hostname=NAME,
        proxy=None,
        additional_headers=headers,
    ) as link:
        return await refused_hello(link)


async def refused_hello(link: ClientConnection) -> MeshError:
    exchange = Exchange()
    with anyio.fail_after(LIMIT_S):
        exchange.receive(await link.recv(decode=True))
        junk = Hello(
            claims=b"{}", certificate=b"{}", signature=bytes(64), token_mac=bytes(32), log=[]
        )
        await link.send(exchange.ask(junk)[1])
        event = exchange.receive(await link.recv(decode=True))
    assert isinstance(event, Answered)
    assert isinstance(event.outcome, MeshError)
    return event.outcome


@needs_caddy
async def test_a_client_that_trusts_the_authority_is_challenged_through_caddy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    public = ("--tls", "proxy", "--public-url", f"https://{NAME}")
    with hosted(tmp_path, *public) as broker, caddy(tmp_path, broker.info.port, authority) as port:
        async with websocket(f"https://localhost:{port}", Patience(60)) as link:
            event = Exchange().receive(await link.receive())
        assert isinstance(event, Noticed)
        assert isinstance(event.notice, Challenge)
        assert event.notice.broker == broker.info.id


@needs_caddy
async def test_two_sessions_talk_through_caddy(tmp_path: Path) -> None:
    public = ("--tls", "proxy", "--public-url", f"https://{NAME}")
    with (
        hosted(tmp_path, *public) as broker,
        caddy(tmp_path, broker.info.port, Authority(tmp_path)) as port,
        a_guest(tmp_path / "ada") as ada,
    ):
        secret = str(broker.data / "admin.secret")
        made = ("mesh", "create", "team", "--broker", f"https://localhost:{port}")
        ok(await ada.runs(*made, "--admin-secret-file", secret))
        async with ada.session("anna") as one, ada.session("bert") as two:
            sent = await one.call("send", to="bert", text="through the proxy")
            assert [row["e2e"] for row in sent["recipients"]] == [True]
            (message,) = (await two.call("inbox", wait_s=30))["messages"]
            assert message["text"] == "through the proxy"


@needs_caddy
async def test_through_caddy_each_client_counts_by_its_own_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    public = ("--tls", "proxy", "--public-url", f"https://{NAME}")
    one = {"CLAUDEMESH_BROKER_AUTH_BURST": "1", "CLAUDEMESH_BROKER_AUTH_PER_S": "0.01"}
    with (
        hosted(tmp_path, *public, **one) as broker,
        caddy(tmp_path, broker.info.port, authority) as port,
    ):
        for address, is_limited in (
            ("127.0.0.2", False),
            ("127.0.0.2", True),
            ("127.0.0.3", False),
        ):
            error = await hello_from(address, port, authority)
            assert isinstance(error, TooMuch) is is_limited
        for name, told in (("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.9")):
            forged = {name: told}
            assert isinstance(await hello_from("127.0.0.2", port, authority, **forged), TooMuch)
