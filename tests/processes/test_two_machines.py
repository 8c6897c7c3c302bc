"""Two machines: a host and a guest in network namespaces of their own, and the four commands."""

from pathlib import Path

import pytest

from tests.support.hosting import Guest, a_guest, a_host, ok
from tests.support.netns import HOST, a_cable, is_possible

PORT = 7467


@pytest.mark.skipif(not is_possible(), reason="network namespaces take root, Linux and `ip`")
def test_four_commands_join_two_machines(tmp_path: Path) -> None:
    with a_cable() as cable, a_guest(tmp_path / "ada") as ada_here:
        ada = Guest(ada_here.folder, tuple(cable.at_host()))
        everywhere = "0.0.0.0"  # noqa: S104 - what whoever hosts a mesh types
        words = ("--bind", everywhere, "--tls", "auto", "--public-url", f"https://{HOST}:{PORT}")
        with (
            a_host(tmp_path / "broker", *words, port=PORT, through=cable.at_host()) as host,
            a_guest(tmp_path / "bob") as bob_here,
        ):
            bob = Guest(bob_here.folder, tuple(cable.at_guest()))
            ok(ada.run("mesh", "create", "team", *host.for_its_admin))
            link = ok(ada.run("invite")).out.strip()
            assert link.startswith(f"https://{HOST}:{PORT}/i/")
            ok(bob.run("join", link, "--as", "bob"))
            ok(bob.run("send", "max", "from another machine"))
            (message,) = ok(ada.run("inbox", "--json")).json["messages"]
            assert (message["text"], message["member"]) == ("from another machine", "bob")

            # A stranger on another machine makes no mesh here without the admin's secret.
            address = f"https://{HOST}:{PORT}#{host.fingerprint}"
            refused = bob.run("mesh", "create", "mine", "--broker", address, "--json")
            assert (refused.code, refused.error["code"]) == (4, "may_not_found")
            # Nor does anybody reach a certificate that nobody vouched for.
            bare = address.partition("#")[0]
            refused = bob.run("mesh", "create", "mine", "--broker", bare, "--json")
            assert (refused.code, refused.error["code"]) == (4, "certificate_invalid")
            secret = str(host.admin_secret_file)
            made = ("mesh", "create", "mine", "--broker", address, "--admin-secret-file", secret)
            assert ok(bob.run(*made, "--json")).json["mesh"] == "mine"
