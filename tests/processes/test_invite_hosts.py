"""Invites whose host no pin vouches for: with an authority's certificate, its own or a proxy's."""

import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from claudemesh_wire.links import InviteLink
from tests.support.authority import Authority
from tests.support.hosting import a_guest, a_host, free_port, ok

ANYWHERE = ("--bind", "0.0.0.0")  # noqa: S104 - what is hosted
_GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


def test_an_invite_to_a_host_with_a_certificate_of_its_own_leaves_trust_to_the_authority(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("127.0.0.1")
    port, ca = free_port(), str(authority.file)
    url = f"https://127.0.0.1:{port}"
    own = ("--tls-cert", str(certificate), "--tls-key", str(key), "--public-url", url)
    with (
        a_host(tmp_path / "broker", *ANYWHERE, *own, port=port) as host,
        a_guest(tmp_path / "ada") as ada,
        a_guest(tmp_path / "bob") as bob,
    ):
        assert host.printed_url == url
        secret = ("--admin-secret-file", str(host.admin_secret_file))
        ok(ada.run("mesh", "create", "team", "--broker", url, *secret, SSL_CERT_FILE=ca))
        link = ok(ada.run("invite", SSL_CERT_FILE=ca)).out.strip()
        assert InviteLink.parse(link).pin == b""
        refused = bob.run("join", link, "--json")
        assert (refused.code, refused.error["code"]) == (4, "certificate_invalid")
        ok(bob.run("join", link, "--as", "bob", SSL_CERT_FILE=ca))
        ok(bob.run("send", "max", "vouched for", SSL_CERT_FILE=ca))
        (message,) = ok(ada.run("inbox", "--json", SSL_CERT_FILE=ca)).json["messages"]
        assert (message["text"], message["member"]) == ("vouched for", "bob")


async def test_an_invite_leads_through_the_proxy_before_its_broker(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    port, ca = free_port(), str(authority.file)
    with a_guest(tmp_path / "ada") as ada, a_guest(tmp_path / "bob") as bob:
        async with a_proxy(authority, port) as url:
            words = ("--tls", "proxy", "--public-url", url)
            with a_host(tmp_path / "broker", *words, port=port) as host:
                create = ("mesh", "create", "team", "--broker", url)
                refused = await ada.runs(*create, "--json", SSL_CERT_FILE=ca)
                assert (refused.code, refused.error["code"]) == (4, "may_not_found")
                assert len(ok(await ada.runs("mesh", "list", "--json")).json["meshes"]) == 1
                secret = ("--admin-secret-file", str(host.admin_secret_file))
                ok(await ada.runs(*create, *secret, SSL_CERT_FILE=ca))
                link = ok(await ada.runs("invite", SSL_CERT_FILE=ca)).out.strip()
                assert link.startswith(f"{url}/i/")
                assert InviteLink.parse(link).pin == b""
                ok(await bob.runs("join", link, "--as", "bob", SSL_CERT_FILE=ca))
                ok(await bob.runs("send", "max", "through it", SSL_CERT_FILE=ca))
                (message,) = ok(await ada.runs("inbox", "--json", SSL_CERT_FILE=ca)).json[
                    "messages"
                ]
                assert (message["text"], message["member"]) == ("through it", "bob")
                host.kill()
            for file in host.folder.glob("broker.sqlite3*"):
                file.unlink()
            # Without the broker's own word bob can't bring the mesh back, but go.
            (known,) = bob.home.glob("meshes/mesh_*/mesh.json")
            said = json.loads(known.read_bytes())
            said["broker"]["charter"] = ""
            known.write_text(json.dumps(said))
            with a_host(tmp_path / "broker", *words, port=port):
                done = ok(await bob.runs("mesh", "leave", "team", "--yes", SSL_CERT_FILE=ca))
                assert "does not have it any more" in done.err
                assert len(ok(await bob.runs("mesh", "list", "--json")).json["meshes"]) == 1


@asynccontextmanager
async def a_proxy(authority: Authority, port: int) -> AsyncGenerator[str]:
    """Run a proxy that ends TLS and hands on to a port of this machine; gives its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1"))

    async def serve(client: ByteStream) -> None:
        async def carry(source: ByteStream, target: ByteStream, ended: anyio.CancelScope) -> None:
            with suppress(*_GONE):
                while True:
                    await target.send(await source.receive())
            ended.cancel()

        with suppress(*_GONE):
            async with client, await anyio.connect_tcp("127.0.0.1", port) as broker:
                head, _, rest = (await client.receive()).partition(b"\r\n")
                # As another machine's: that it comes from here is not to be believed.
                await broker.send(head + b"\r\nX-Forwarded-For: 203.0.113.7\r\n" + rest)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(carry, client, broker, tasks.cancel_scope)
                    tasks.start_soon(carry, broker, client, tasks.cancel_scope)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    own = int(listener.extra_attributes[SocketAttribute.local_port]())
    async with (
        TLSListener(listener, context, standard_compatible=False) as secured,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(secured.serve, serve)
        yield f"https://127.0.0.1:{own}"
        tasks.cancel_scope.cancel()
