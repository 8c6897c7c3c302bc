"""A broker that is another one than before: told, accepted on purpose, given what it lost."""

import shutil
from pathlib import Path

from tests.support.hosting import Host, a_guest, a_host, a_host_at_home, ok
from tests.support.shell import Shell
from tests.support.twohomes import joined, link_of, members

EVERYWHERE = ("broker", "run", "--bind", "0.0.0.0", "--tls", "auto")  # noqa: S104 - as a host does


def id_of(shell: Shell) -> str:
    """The broker that is trusted, as the home has it on disk."""
    (file,) = shell.home.glob("meshes/*/mesh.json")
    return file.read_text().partition('"id": "')[2].partition('"')[0]


def test_a_broker_with_another_id_is_refused_until_it_is_accepted(host: Host, ada: Shell) -> None:
    before = id_of(ada)
    host.kill()
    for file in (*host.folder.glob("broker.sqlite3*"), host.folder / "broker.key"):
        file.unlink()
    with a_host(host.folder, port=host.port):
        refused = ada.run("peers", "--json")
        assert (refused.code, refused.error["code"]) == (4, "wrong_broker")
        assert "claudemesh mesh trust team" in refused.error["hint"]
        assert "claudemesh broker restore" in refused.error["hint"]
        # The certificate is the known one; who accepts that alone has not accepted the broker.
        asked = ada.run("--json", "mesh", "trust", "team", "--certificate", host.fingerprint)
        assert (asked.code, asked.error["code"]) == (2, "not_confirmed")
        assert id_of(ada) == before
        said = ok(ada.run("mesh", "trust", "team", "--yes")).err
        assert before in said
        assert id_of(ada) != before
        assert id_of(ada) in said


def test_a_broker_whose_folder_is_gone_is_given_the_log_by_its_admin_secret(
    host: Host, ada: Shell, bob: Shell
) -> None:
    joined(ada, bob)
    host.kill()
    shutil.rmtree(host.folder)
    with a_host(host.folder, port=host.port):
        assert ada.run("peers", "--json").error["code"] == "certificate_changed"
        for one in (ada, bob):
            ok(one.run("mesh", "trust", "team", "--yes"))
            refused = one.run("peers", "--json")
            assert (refused.code, refused.error["code"]) == (4, "may_not_found")
            assert "mesh trust NAME --admin-secret-file" in refused.error["hint"]
        secret = ("--admin-secret-file", str(host.admin_secret_file))
        # Bob, who may invite nobody, brings it back as well as its owner.
        ok(bob.run("mesh", "trust", "team", *secret))
        assert members(ada) == members(bob) == {"max": "owner", "bob": "member"}
        sent = ok(bob.run("send", "max", "after", "--json")).json
        (message,) = ok(ada.run("inbox", "--json")).json["messages"]
        assert (message["id"], message["member"]) == (sent["id"], "bob")


def test_the_own_home_of_a_broker_gives_it_the_log_that_it_lost(tmp_path: Path, bob: Shell) -> None:
    with a_guest(tmp_path / "ada") as ada:
        with a_host_at_home(ada, *EVERYWHERE) as host:
            ok(ada.run("mesh", "create", "team", "--broker", host.url))
            joined(ada, bob)
            # What ada's home has not heard of, it can't give.
            assert members(ada) == {"max": "owner", "bob": "member"}
            port = host.port
        shutil.rmtree(host.folder)
        with a_host_at_home(ada, *EVERYWHERE, "--port", str(port)):
            for one in (ada, bob):
                ok(one.run("mesh", "trust", "team", "--yes"))
            assert members(ada) == members(bob) == {"max": "owner", "bob": "member"}


def test_a_link_of_the_broker_before_is_not_to_be_used(host: Host, ada: Shell, bob: Shell) -> None:
    link = link_of(ada)
    host.kill()
    for file in (*host.folder.glob("broker.sqlite3*"), host.folder / "broker.key"):
        file.unlink()
    with a_host(host.folder, port=host.port):
        refused = bob.run("join", link, "--json")
        assert (refused.code, refused.error["code"]) == (4, "wrong_broker")
        assert "mesh trust" not in refused.error["hint"]


def test_a_broker_that_has_not_changed_is_said_to_be_the_one(host: Host, ada: Shell) -> None:
    said = ok(ada.run("mesh", "trust", "team")).err
    assert f"is trusted: {host.fingerprint}" in said
    assert f"is trusted: {id_of(ada)}" in said
