"""What becomes of members of another home: revoked keys, removals that change, forged invites."""

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from claudemesh_wire.invites import Invite
from claudemesh_wire.keys import SigningKey
from tests.support.hosting import Host, a_guest, ok
from tests.support.shell import Shell
from tests.support.twohomes import joined, link_of, members

LIMIT_S = 60


def test_a_kicked_member_is_banned_or_given_longer(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    sent = ok(bob.run("send", "max", "before", "--json")).json
    ok(ada.run("kick", "bob", "--for", "1s"))
    ok(ada.run("kick", "bob", "--for", "7d"))
    assert bob.run("peers", "--json").error["code"] == "member_removed"
    # What was said before is on the own disk.
    (message,) = ok(bob.run("history", "before", "--json")).json["messages"]
    assert (message["id"], message["text"]) == (sent["id"], "before")
    assert "when it is back" in ok(ada.run("role", "bob", "observer")).err
    assert "for good" in ok(ada.run("ban", "bob")).err
    (row,) = [
        row
        for row in ok(ada.run("members", "--all", "--json")).json["members"]
        if row["name"] == "bob"
    ]
    assert (row["state"], row["returns_at"], row["role"]) == ("removed", None, "observer")
    ok(ada.run("unban", "bob"))
    assert members(bob) == {"max": "owner", "bob": "observer"}


@pytest.mark.parametrize("words", [("kick", "bob", "--for", "1h"), ("ban", "bob")])
def test_nobody_joins_under_the_name_of_who_was_removed(
    ada: Shell, bob: Shell, tmp_path: Path, words: tuple[str, ...]
) -> None:
    joined(ada, bob)
    ok(ada.run(*words))
    link = link_of(ada)
    with a_guest(tmp_path / "cleo") as cleo:
        refused = cleo.run("join", link, "--as", "bob", "--json")
        assert (refused.code, refused.error["code"]) == (1, "name_taken")
        assert "--as NAME" in refused.error["hint"]
        ok(cleo.run("join", link, "--as", "cleo"))
    ok(ada.run("unban", "bob"))
    assert members(bob) == {"max": "owner", "bob": "member", "cleo": "member"}


def test_who_is_kicked_and_leaves_comes_by_an_invite_when_it_is_over(
    ada: Shell, bob: Shell
) -> None:
    joined(ada, bob)
    ok(ada.run("kick", "bob", "--for", "1s"))
    ok(bob.run("mesh", "leave", "team", "--yes"))
    link = link_of(ada)
    # Until the second is over it is refused.
    while (done := bob.run("join", link, "--as", "bob", "--json")).code:
        assert done.error["code"] == "member_removed"
    assert members(bob) == {"max": "owner", "bob": "member"}


def test_a_link_of_who_is_no_admin_any_more_is_dead(ada: Shell, bob: Shell, tmp_path: Path) -> None:
    joined(ada, bob)
    ok(ada.run("role", "bob", "admin"))
    link = link_of(bob)
    ok(ada.run("role", "bob", "member"))
    with a_guest(tmp_path / "cleo") as cleo:
        refused = cleo.run("join", link, "--json")
        assert (refused.code, refused.error["code"]) == (4, "invite_dead")
        assert "claudemesh invite" in refused.error["hint"]


async def test_a_hidden_session_is_revoked_by_its_id(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    async with bob.session("bert") as bert:
        await bert.call("set_profile", visible=False)
        peer = (await bert.call("mesh_info"))["me"]["peer"]
        refused = await ada.runs("--json", "device", "revoke", "bob/bert")
        assert (refused.code, refused.error["code"]) == (3, "not_found")
        assert "whole id" in refused.error["hint"]
        ok(await ada.runs("device", "revoke", peer))
        again = await ada.runs("--json", "device", "revoke", peer)
        assert (again.code, again.error["code"]) == (4, "device_revoked")


async def test_a_revoked_session_is_believed_by_nobody(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    settings = Settings.load({"home": bob.home, "mesh": "team", "keyring": False}, environ={})
    async with Mesh.connect(settings=settings, name="bert") as bert:
        await bert.send("max", "before")
        ok(await ada.runs("device", "revoke", "bob/bert"))
        with anyio.fail_after(LIMIT_S):
            while "device_revoked" not in {one.code for one in (await bert.mesh_info()).problems}:
                await anyio.lowlevel.checkpoint()
        with pytest.raises(MeshError) as refused:
            await bert.ready()
        assert refused.value.code == "device_revoked"
        assert refused.value.hint
    assert ok(await ada.runs("inbox", "--json")).json["messages"] == []


def test_a_command_line_whose_keys_were_revoked_goes_on_as_another_peer(
    ada: Shell, bob: Shell
) -> None:
    joined(ada, bob)
    own = ada.run("--json", "device", "revoke", "max")
    assert (own.code, own.error["code"]) == (2, "self")
    before = ok(bob.run("send", "max", "before", "--json")).json
    ok(ada.run("device", "revoke", "bob"))
    assert ok(bob.run("send", "max", "after", "--json")).json["id"] != before["id"]
    # What was sealed with the keys that others may have is believed no more.
    (message,) = ok(ada.run("inbox", "--json")).json["messages"]
    assert (message["text"], message["member"]) == ("after", "bob")
    assert ok(bob.run("doctor", "--json")).json["checks"]
    (message, *_) = ok(bob.run("history", "--json")).json["messages"]
    assert message["text"] == "after"
    ok(bob.run("mesh", "leave", "team", "--yes"))
    assert members(ada)["bob"] == "left"


def test_a_joiner_believes_no_invite_that_no_admin_signed(
    host: Host, ada: Shell, bob: Shell
) -> None:
    """Whoever can write to the broker's file gives no roles by that."""
    link = link_of(ada)
    with closing(sqlite3.connect(host.folder / "broker.sqlite3")) as sql, sql:
        ((genuine,),) = sql.execute("SELECT invite FROM invites").fetchall()
        fields = Invite.parse(genuine).fields.model_copy(update={"role": "admin"})
        forged = Invite.issue(fields, SigningKey(bytes(32))).blob
        sql.execute("UPDATE invites SET invite = ?", (forged,))
    refused = bob.run("join", link, "--json")
    assert (refused.code, refused.error["code"]) == (4, "invite_forged")
    assert refused.error["hint"]
    assert len(ok(bob.run("mesh", "list", "--json")).json["meshes"]) == 1
    refused = ada.run("invites", "--json")
    assert (refused.code, refused.error["code"]) == (4, "invite_forged")
    assert members(ada) == {"max": "owner"}
