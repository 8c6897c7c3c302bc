"""Two homes and a broker over TLS between them: four commands, and all that can go wrong."""

import re
import ssl
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.links import InviteLink
from tests.support.hosting import Host, a_guest, a_host, a_host_at_home, ok
from tests.support.shell import Shell
from tests.support.twohomes import joined, link_of, members


def test_four_commands_bring_two_people_together(host: Host, ada: Shell, bob: Shell) -> None:
    assert host.url in host.said
    done = ok(ada.run("invite", "--qr"))
    link = done.out.strip()
    assert "▄" in done.err
    assert link.startswith(f"{host.url}/i/")
    assert "#" in link
    told = ok(bob.run("join", link, "--as", "bob", "--json")).json
    assert (told["mesh"], told["name"], told["role"]) == ("team", "bob", "member")
    assert told["invited_by"] == "max"

    sent = ok(bob.run("send", "max", "The build is green.", "--json")).json
    assert sent["recipients"][0]["e2e"] is True
    (message,) = ok(ada.run("inbox", "--json")).json["messages"]
    assert (message["text"], message["member"], message["trust"]) == (
        "The build is green.",
        "bob",
        "member",
    )
    (row,) = ok(bob.run("message-status", sent["id"], "--json")).json["recipients"]
    assert (row["status"], row["proved"]) == ("seen", True)
    for file in host.folder.rglob("*"):
        assert not file.is_file() or b"The build is green." not in file.read_bytes()


async def test_sessions_of_two_homes_talk(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    async with ada.session("anna") as one, bob.session("bert") as two:
        sent = await one.call("send", to="bob/bert", text="hello")
        (message,) = (await two.call("inbox", wait_s=30))["messages"]
        assert (message["text"], message["member"]) == ("hello", "max")
        found = await two.call("search_peers", query="anna", detail=True)
        assert [row["locality"] for row in found["peers"]] == ["remote"]
        assert sent["recipients"][0]["member"] == "bob"


def test_a_second_join_by_the_same_home_changes_nothing(ada: Shell, bob: Shell) -> None:
    link = link_of(ada)
    ok(bob.run("join", link))
    again = ok(bob.run("join", link, "--json")).json
    assert again["joined"] is False
    assert len(members(ada)) == 2


def test_an_invite_is_good_for_its_uses_alone(ada: Shell, bob: Shell, tmp_path: Path) -> None:
    link = link_of(ada)
    ok(bob.run("join", link))
    with a_guest(tmp_path / "cleo") as cleo:
        refused = cleo.run("join", link, "--json")
        assert (refused.code, refused.error["code"]) == (4, "invite_used_up")
        assert ok(cleo.run("mesh", "list", "--json")).json["meshes"][1:] == []


def test_two_of_one_name_are_told_apart(ada: Shell, bob: Shell, tmp_path: Path) -> None:
    link = link_of(ada, "--uses", "3")
    assert ok(bob.run("join", link, "--json")).json["name"] == "max-2"
    with a_guest(tmp_path / "cleo") as cleo:
        refused = cleo.run("join", link, "--as", "max", "--json")
        assert (refused.code, refused.error["code"]) == (1, "name_taken")
        assert ok(cleo.run("join", link, "--json")).json["name"] == "max-3"


@pytest.mark.parametrize("damage", ["cut", "swapped", "bare", "nonsense"])
def test_a_link_that_is_not_whole_is_refused(ada: Shell, bob: Shell, damage: str) -> None:
    link = link_of(ada)
    head, _, key = link.partition("#")
    texts = {
        "cut": (link[:-4], "bad_invite"),
        "swapped": (f"{head}#{key[:4]}{'A' if key[4] != 'A' else 'B'}{key[5:]}", "unknown_invite"),
        "bare": (head, "bad_invite"),
        "nonsense": ("team", "bad_invite"),
    }
    text, code = texts[damage]
    refused = bob.run("join", text, "--json")
    assert refused.error["code"] == code
    assert refused.error["hint"]


def test_an_invite_that_was_taken_back_brings_nobody_in(ada: Shell, bob: Shell) -> None:
    link = link_of(ada)
    (row,) = ok(ada.run("invites", "--json")).json["invites"]
    ok(ada.run("invites", "--withdraw", row["code"]))
    refused = bob.run("join", link, "--json")
    assert (refused.code, refused.error["code"]) == (3, "unknown_invite")


def test_an_invite_into_another_mesh_is_not_believed(ada: Shell, bob: Shell, host: Host) -> None:
    """A broker that shows another mesh under the link is found out by the mesh's id."""
    link = InviteLink.parse(link_of(ada))
    ok(ada.run("mesh", "create", "other", *host.for_its_admin))
    other = InviteLink.parse(link_of(ada))
    refused = bob.run("join", replace(link, mesh=other.mesh).to_text(), "--json")
    assert (refused.code, refused.error["code"]) == (4, "wrong_mesh")
    assert "ask who gave it to you" in refused.error["hint"]
    refused = bob.run("join", replace(link, seed=other.seed).to_text(), "--json")
    assert refused.error["code"] == "unknown_invite"
    assert len(ok(bob.run("mesh", "list", "--json")).json["meshes"]) == 1


def test_the_address_that_a_broker_prints_makes_a_mesh(tmp_path: Path, bob: Shell) -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - what whoever hosts a mesh types
    words = ("broker", "run", "--bind", everywhere, "--tls", "auto")
    with a_guest(tmp_path / "ada") as ada, a_host_at_home(ada, *words) as host:
        assert re.findall(r"https?://\S+", host.said) == [host.printed_url]
        plain, _, pin = host.printed_url.partition("#")
        assert pin == host.fingerprint
        # Who knows its certificate from elsewhere, and who has it in the own home.
        secret = ("--admin-secret-file", str(host.admin_secret_file))
        ok(bob.run("mesh", "create", "shop", "--broker", host.printed_url, *secret))
        ok(ada.run("mesh", "create", "team", "--broker", plain))
        assert link_of(ada).startswith(f"{plain}/i/")
        # Another home knows nothing of it, and is told what is lacking.
        refused = bob.run("mesh", "create", "work", "--broker", plain, "--json")
        assert (refused.code, refused.error["code"]) == (4, "certificate_invalid")
        assert f"{plain}#SHA256" in refused.error["hint"]


def test_another_home_of_the_machine_makes_a_mesh_by_the_admins_secret_alone(
    host: Host, bob: Shell, tmp_path: Path
) -> None:
    # Whatever hands connections on, as a container's port, comes from here too.
    refused = bob.run("mesh", "create", "shop", "--broker", host.url, "--json")
    assert (refused.code, refused.error["code"]) == (4, "may_not_found")
    assert "--admin-secret-file" in refused.error["hint"]
    secret = tmp_path / "secret"
    secret.write_bytes(host.admin_secret_file.read_bytes())
    secret.chmod(0o644)
    address = f"{host.url}#{host.fingerprint}"
    words = ("mesh", "create", "shop", "--broker", address, "--admin-secret-file", str(secret))
    refused = bob.run(*words, "--json")
    assert (refused.code, refused.error["code"]) == (4, "wrong_mode")
    secret.chmod(0o600)
    assert ok(bob.run(*words, "--json")).json["mesh"] == "shop"


def test_a_broker_of_this_machine_alone_invites_nobody(bob: Shell) -> None:
    for words in (("invite",), ("--mesh", "alone", "invite")):
        if "alone" in words:
            ok(bob.run("mesh", "create", "alone"))
        refused = bob.run(*words)
        assert refused.code == 1
        for command in ("broker run --bind", "mesh create", "invite", "join LINK"):
            assert f"claudemesh {command}" in refused.err


def test_the_secret_of_a_link_is_in_no_file_and_no_log(host: Host, ada: Shell, bob: Shell) -> None:
    link = link_of(ada)
    ok(bob.run("join", link))
    key = link.partition("#")[2].encode()
    for root in (host.folder, ada.home, bob.home):
        for file in root.rglob("*"):
            assert not file.is_file() or key not in file.read_bytes(), file


def test_roles_are_given_and_go_by_who_gives_them(ada: Shell, bob: Shell, tmp_path: Path) -> None:
    joined(ada, bob)
    refused = bob.run("invite", "--json")
    assert (refused.code, refused.error["code"]) == (4, "role")
    ok(ada.run("role", "bob", "admin"))
    link = link_of(bob, "--role", "observer")
    with a_guest(tmp_path / "cleo") as cleo:
        ok(cleo.run("join", link, "--as", "cleo"))
        assert members(ada) == {"max": "owner", "bob": "admin", "cleo": "observer"}
        refused = cleo.run("send", "bob", "may I?", "--json")
        assert (refused.code, refused.error["code"]) == (4, "role")
        assert "." not in refused.error["message"].removesuffix(".")
        assert "observer" in refused.error["message"]
        assert "claudemesh role" in refused.error["hint"]
        refused = bob.run("--json", "role", "max", "member")
        assert (refused.code, refused.error["code"]) == (4, "membership_forbidden")
        refused = ada.run("--json", "role", "bbo", "admin")
        assert (refused.code, refused.error["code"]) == (3, "unknown_member")
        assert "bob" in refused.error["hint"]


def test_a_kicked_member_comes_back_by_itself(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    ok(ada.run("kick", "bob", "--for", "1h"))
    refused = bob.run("peers", "--json")
    assert (refused.code, refused.error["code"]) == (4, "member_removed")
    assert members(ada)["bob"] == "removed"
    ok(ada.run("unban", "bob"))
    assert members(bob) == {"max": "owner", "bob": "member"}
    ok(ada.run("kick", "bob", "--for", "1s"))
    # Until the second is over the answer is the refusal above.
    while bob.run("peers").code:
        pass
    assert members(ada)["bob"] == "member"


def test_a_banned_member_stays_out(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    ok(ada.run("ban", "bob"))
    refused = bob.run("join", link_of(ada), "--json")
    assert (refused.code, refused.error["code"]) == (4, "member_removed")
    assert "claudemesh unban bob" in refused.error["hint"]
    assert bob.run("members").code == 4


async def test_a_session_of_a_removed_member_says_so(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    async with bob.session("bert") as bert:
        await bert.call("search_peers")
        ok(await ada.runs("ban", "bob"))
        info = await bert.call("mesh_info")
        while info["broker"]["connected"] or "member_removed" not in {
            one["code"] for one in info["problems"]
        }:
            info = await bert.call("mesh_info")


def test_a_certificate_that_changed_is_told_and_accepted_on_purpose(
    tmp_path: Path, host: Host, ada: Shell
) -> None:
    host.kill()
    for file in host.folder.glob("broker-tls.*"):
        file.unlink()
    with a_host(host.folder, port=host.port) as renewed:
        refused = ada.run("members", "--json")
        assert (refused.code, refused.error["code"]) == (4, "certificate_changed")
        wrong = ada.run("--json", "mesh", "trust", "team", "--certificate", host.fingerprint)
        assert wrong.error["code"] == "certificate_changed"
        ok(ada.run("mesh", "trust", "team", "--certificate", renewed.fingerprint))
        assert members(ada) == {"max": "owner"}
    assert tmp_path.exists()


def test_a_broker_that_lost_its_disk_is_offered_the_log_again(
    host: Host, ada: Shell, bob: Shell
) -> None:
    joined(ada, bob)
    ok(bob.run("peers"))
    host.kill()
    for file in host.folder.glob("broker.sqlite3*"):
        file.unlink()
    with a_host(host.folder, port=host.port):
        # Bob, who may make no mesh there, brings it back with all its members.
        assert members(bob) == {"max": "owner", "bob": "member"}
        assert members(ada) == {"max": "owner", "bob": "member"}


def test_a_session_is_in_one_mesh_chosen_by_the_nearest_word(ada: Shell) -> None:
    def here(*words: str, **environment: Any) -> str:
        rows = ok(ada.run(*words, "mesh", "list", "--json", **environment)).json["meshes"]
        (chosen,) = [row["name"] for row in rows if row["chosen"]]
        return str(chosen)

    assert here() == "team"
    ok(ada.run("mesh", "create", "spare", "--no-use"))
    ok(ada.run("mesh", "use", "local"))
    assert here() == "local"
    (ada.folder / ".claudemesh.toml").write_text('mesh = "spare"\n')
    assert here() == "spare"
    assert here(CLAUDEMESH_MESH="team") == "team"
    assert here("--mesh", "local", CLAUDEMESH_MESH="team") == "local"
    refused = ada.run("--mesh", "taem", "peers", "--json")
    assert (refused.code, refused.error["code"]) == (3, "unknown_mesh")
    assert "team" in refused.error["hint"]


def test_a_project_that_says_too_much_is_refused(ada: Shell) -> None:
    (ada.folder / ".claudemesh.toml").write_text('key_file = "/etc/passwd"\n')
    refused = ada.run("peers", "--json")
    assert (refused.code, refused.error["code"]) == (2, "config_invalid")


def test_a_mesh_is_renamed_for_all_or_here(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    ok(ada.run("mesh", "rename", "team", "shop"))
    assert ok(ada.run("status", "--json")).json["mesh"] == "shop"
    # Bob's home goes on with its own name, by which its settings choose the mesh.
    seen = ok(bob.run("status", "--json")).json
    assert (seen["mesh"], seen["called"]) == ("team", "shop")
    (_, row) = ok(bob.run("mesh", "list", "--json")).json["meshes"]
    assert (row["name"], row["called"], row["chosen"]) == ("team", "shop", True)
    assert "team (its members: shop)" in ok(bob.run("mesh", "list")).out
    assert ok(bob.run("status")).out.startswith("team (its members: shop)  ")
    ok(bob.run("mesh", "rename", "team", "shop", "--here"))
    assert ok(bob.run("status")).out.startswith("shop  ")
    ok(bob.run("mesh", "rename", "shop", "team", "--here"))
    refused = bob.run("--json", "mesh", "rename", "team", "mine")
    assert (refused.code, refused.error["code"]) == (4, "membership_forbidden")
    ok(bob.run("mesh", "rename", "team", "mine", "--here"))
    assert ok(bob.run("status", "--json")).json["mesh"] == "mine"


def test_who_leaves_may_come_again(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    asked = bob.run("--json", "mesh", "leave", "team")
    assert (asked.code, asked.error["code"]) == (2, "not_confirmed")
    ok(bob.run("mesh", "leave", "team", "--yes"))
    assert members(ada)["bob"] == "left"
    assert len(ok(bob.run("mesh", "list", "--json")).json["meshes"]) == 1
    joined(ada, bob)
    assert members(ada) == {"max": "owner", "bob": "member"}
    refused = ada.run("--json", "mesh", "leave", "team", "--yes")
    assert (refused.code, refused.error["code"]) == (4, "last_owner")


def test_an_owner_ends_a_mesh(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    refused = bob.run("--json", "mesh", "delete", "team", "--yes")
    assert (refused.code, refused.error["code"]) == (4, "membership_forbidden")
    ok(ada.run("mesh", "delete", "team", "--yes"))
    refused = bob.run("peers", "--json")
    assert (refused.code, refused.error["code"]) == (4, "mesh_ended")
    ok(bob.run("mesh", "leave", "team", "--yes"))
    assert len(ok(bob.run("mesh", "list", "--json")).json["meshes"]) == 1


def test_a_link_preview_learns_nothing_and_uses_up_nothing(
    host: Host, ada: Shell, bob: Shell
) -> None:
    link = link_of(ada)
    address, _, key = link.partition("#")
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    pages: set[bytes] = set()
    for url in (address, address, f"{host.url}/i/{'a' * 26}"):
        with urllib.request.urlopen(url, context=trusting) as answer:  # noqa: S310 - ours
            pages.add(answer.read())
            assert answer.headers["Cache-Control"] == "no-store"
    (page,) = pages
    assert key.encode() not in page
    (row,) = ok(ada.run("invites", "--json")).json["invites"]
    assert row["used"] == 0
    ok(bob.run("join", link))


async def test_a_program_is_in_the_mesh_that_it_names(ada: Shell) -> None:
    ok(await ada.runs("mesh", "use", "local"))
    settings = Settings.load({"home": ada.home, "mesh": "team", "keyring": False}, environ={})
    async with Mesh.connect(settings=settings, name="program") as program:
        info = await program.mesh_info()
        assert (info.name, info.me.role, info.me.handle) == ("team", "owner", "program")
