"""What becomes of members of another home: revoked keys, removals that change, forged invites."""

import sqlite3
from contextlib import closing

import anyio
import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from claudemesh_wire.invites import Invite
from claudemesh_wire.keys import SigningKey
from tests.support.hosting import Host, ok
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


async def test_a_revoked_session_is_believed_by_nobody(ada: Shell, bob: Shell) -> None:
    joined(ada, bob)
    settings = Settings.load({"home": bob.home, "mesh": "team", "keyring": False}, environ={})
    async with Mesh.connect(settings=settings, name="bert") as bert:
        await bert.send("max", "before")
        ok(await ada.runs("device", "revoke", "bert"))
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
