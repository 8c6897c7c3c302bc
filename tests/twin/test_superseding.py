"""What a sender takes back before it is shown, and what is for one commit alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.policy import Policy
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, MeshError, NotFound
from claudemesh_wire.handshake import Mode
from claudemesh_wire.keys import make_id
from tests.support.lies import changed
from tests.support.repository import commit, git, repository
from tests.support.twin import Tokens, a_mesh, ended, until

LIMIT_S = 20
UNKNOWN = make_id("msg_", bytes(16))


async def texts(mesh: Mesh, **how: Any) -> list[str]:
    """Read what has come."""
    return [one.text for one in (await mesh.inbox(wait_s=LIMIT_S, **how)).messages]


async def delivered(sender: Mesh, message: str) -> None:
    """Wait until it is in the reader's inbox."""
    await until(sender, message, "delivered")


async def refused(mesh: Mesh, kind: type[MeshError], to: str = "bob", **how: Any) -> str:
    """Have a send refused; gives the code, and there is always a hint."""
    with pytest.raises(kind) as caught:
        await mesh.send(to, "again", **how)
    assert caught.value.hint
    return caught.value.code


async def test_of_two_messages_the_later_one_alone_is_shown(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        first = await ada.send("bob", "deploy at two")
        second = await ada.send("bob", "deploy at three", supersedes=first.id)
        await delivered(ada, second.id)
        found = await bob.inbox(wait_s=LIMIT_S)
        assert [(one.text, one.supersedes) for one in found.messages] == [("deploy at three", None)]
        assert found.unread == 0
        row = await until(ada, first.id, "withheld")
        assert (row.reason, row.proved, row.seen_at) == ("superseded", True, None)
        assert row.withheld_at
        await bob.confirm()
        assert (await until(ada, second.id, "seen")).withheld_at is None


async def test_what_was_shown_before_is_named_by_what_takes_its_place(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        first = await ada.send("bob", "deploy at two")
        assert await texts(bob) == ["deploy at two"]
        await bob.confirm()
        await ada.send("bob", "deploy at three", supersedes=first.id)
        (one,) = (await bob.inbox(wait_s=LIMIT_S)).messages
        assert (one.text, one.supersedes) == ("deploy at three", first.id)
        assert (await until(ada, first.id, "seen")).reason is None


async def test_what_was_withheld_stays_in_the_history_and_says_so(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        first = await ada.send("bob", "deploy at two")
        second = await ada.send("bob", "deploy at three", supersedes=first.id)
        await delivered(ada, second.id)
        await texts(bob)
        found = (await bob.history("deploy two")).messages
        assert [(one.id, one.withheld) for one in found] == [(first.id, "superseded")]
        (shown,) = (await bob.inbox(id=first.id)).messages
        assert (shown.text, shown.withheld) == ("deploy at two", "superseded")


@pytest.mark.parametrize("way", ["inbox", "peek", "messages"])
async def test_no_way_out_of_the_inbox_shows_what_was_superseded(tmp_path: Path, way: str) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        first = await ada.send("bob", "old")
        await delivered(ada, (await ada.send("bob", "new", supersedes=first.id)).id)
        if way == "messages":
            async for one in bob.messages():
                assert one.text == "new"
                break
        else:
            assert await texts(bob, peek=way == "peek") == ["new"]
        await until(ada, first.id, "withheld")


async def test_a_call_without_presence_withholds_too(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        await ended(twin, "bob")
        bob = await twin.join("bob", Mode.CALL)
        first = await ada.send("bob", "old")
        await ada.send("bob", "new", supersedes=first.id)
        assert await texts(bob) == ["new"]
        await bob.report()
        await until(ada, first.id, "withheld")


async def test_what_is_being_shown_is_seen_although_it_is_superseded_meanwhile(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        first, call = await ada.send("bob", "old"), Tokens()
        await bob.inbox(wait_s=LIMIT_S, call=call)
        await delivered(ada, (await ada.send("bob", "new", supersedes=first.id)).id)
        (one,) = (await bob.inbox(wait_s=LIMIT_S)).messages
        assert one.supersedes == first.id
        await bob.evidence(call.taken)
        await until(ada, first.id, "seen")


async def test_a_message_to_a_group_is_superseded_for_each_who_has_not_read_it(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob, cleo = [await twin.join(name) for name in ("ada", "bob", "cleo")]
        for one in (bob, cleo):
            await one.join("@team")
        first = await ada.send("@team", "old")
        assert await texts(bob) == ["old"]
        await bob.confirm()
        sent = await ada.send("@team", "new", supersedes=first.id, wait_for="delivered")
        assert sent.reached
        assert [(one.text, one.supersedes) for one in (await bob.inbox()).messages] == [
            ("new", first.id)
        ]
        assert [(one.text, one.supersedes) for one in (await cleo.inbox()).messages] == [
            ("new", None)
        ]


async def test_another_session_of_the_sender_s_member_supersedes_nothing(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, eve, bob = [await twin.join(name) for name in ("ada", "eve", "bob")]
        first = await ada.send("bob", "old")
        assert await refused(eve, NotFound, supersedes=first.id) == "not_found"
        await delivered(ada, first.id)
        # A session that lies to itself: its own outbox has a message of that id.
        await eve.send("bob", "eve's own")
        await eve.peer.file.write(lambda sql: sql.execute("UPDATE outbox SET id = ?", (first.id,)))
        await delivered(eve, (await eve.send("bob", "new", supersedes=first.id)).id)
        assert await texts(bob) == ["old", "eve's own", "new"]


async def test_a_reader_that_began_anew_is_told_by_the_same_name(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        async with twin.open("bob", anchor="claude:one") as bob:
            await bob.ready()
        first = await ada.send("bob", "old")
        await twin.end_leases()
        heir = await twin.join("bob", anchor="claude:two")
        second = await ada.send("bob", "new", supersedes=first.id)
        await delivered(ada, second.id)
        assert await texts(heir) == ["new"]
        row = await until(ada, first.id, "withheld")
        assert row.successor is not None
        assert row.successor.peer == heir.peer.id


async def test_what_can_not_be_superseded_is_refused_and_not_sent(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob, _ = [await twin.join(name) for name in ("ada", "bob", "cleo")]
        first = await ada.send("bob", "old")
        assert await refused(ada, NotFound, supersedes=UNKNOWN) == "not_found"
        assert await refused(ada, Invalid, supersedes="msg_1") == "bad_supersedes"
        assert await refused(ada, Conflict, "cleo", supersedes=first.id) == "other_audience"
        assert await refused(ada, Conflict, "*", supersedes=first.id) == "other_audience"
        await bob.confirm()
        assert await texts(bob) == ["old"]


# For one commit.


async def test_a_message_for_a_commit_is_shown_where_that_is_checked_out(tmp_path: Path) -> None:
    here, there = repository(tmp_path / "here"), repository(tmp_path / "there")
    later = commit(there)
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        bob = await twin.join("bob", folder=here)
        cleo = await twin.join("cleo", folder=there / ".." / "there")
        sent = await ada.send(["bob", "cleo"], "line 7 is wrong", valid_if={"git_sha": later[:7]})
        await ada.send(["bob", "cleo"], "for all")
        assert await texts(cleo) in (["line 7 is wrong", "for all"], ["line 7 is wrong"])
        await cleo.confirm()
        while await texts(bob) != ["for all"]:
            pass
        told = await ada.send("bob", "done?", wait_for="delivered")
        assert told.reached
        rows = {one.handle: one for one in (await ada.message_status(sent.id)).recipients}
        assert (rows["bob"].status, rows["bob"].reason) == ("withheld", "stale")
        assert rows["bob"].proved
        assert rows["cleo"].status == "seen"


async def test_what_is_checked_out_matters_when_the_message_is_shown(tmp_path: Path) -> None:
    shop = repository(tmp_path / "shop")
    first = git(shop, "rev-parse", "HEAD")
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob", folder=shop)
        condition: Any = {"git_sha": first.upper()}
        sent = await ada.send("bob", "review this", valid_if=condition, wait_for="delivered")
        assert sent.reached
        commit(shop)
        assert (await bob.inbox()).messages == []
        assert (await until(ada, sent.id, "withheld")).reason == "stale"


async def test_judging_by_grants_alone_withholds_nothing(tmp_path: Path) -> None:
    shop = repository(tmp_path / "shop")
    first = git(shop, "rev-parse", "HEAD")
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob", folder=shop)
        sent = await ada.send("bob", "review", valid_if={"git_sha": first}, wait_for="delivered")
        assert sent.reached
        commit(shop)
        await bob.peer.file.write(lambda sql: Policy(bob.peer).keep_back(sql, twin.clock()))
        git(shop, "switch", "--detach", first)
        assert await texts(bob) == ["review"]


async def test_outside_of_git_a_message_for_a_commit_is_withheld(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob", folder=tmp_path)
        sent = await ada.send(
            "bob", "review this", valid_if={"git_sha": "0" * 40}, wait_for="delivered"
        )
        assert sent.reached
        assert (await bob.inbox()).messages == []
        assert (await until(ada, sent.id, "withheld")).reason == "no_checkout"


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"branch": "main"},
        {"git_sha": "0" * 40, "branch": "main"},
        {"git_sha": "012345"},
        {"git_sha": "0" * 65},
        {"git_sha": "HEAD~1"},
        {"git_sha": 1234567},
        {"git_sha": None},
    ],
)
async def test_a_condition_that_makes_no_sense_is_refused(
    tmp_path: Path, condition: dict[str, Any]
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        asked: Any = condition
        assert await refused(ada, Invalid, valid_if=asked) == "bad_valid_if"


async def test_the_broker_sees_neither_what_is_superseded_nor_the_commit(tmp_path: Path) -> None:
    sha = "5eed5eed5eed"
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        await ended(twin, "bob")
        first = await ada.send("bob", "old")
        await ada.send("bob", "new", supersedes=first.id, valid_if={"git_sha": sha})
        rows = await twin.broker.sql("SELECT header, body FROM envelopes ORDER BY seq")
    kept = [header + body for header, body in rows]
    assert [first.id.encode() in one for one in kept] == [True, False]
    assert all(sha.encode() not in one for one in kept)


# Whose word it is.


async def test_an_invented_withheld_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        await ended(twin, "bob")
        sent = await ada.send("bob", "hello")

        def invent(body: dict[str, Any]) -> None:
            body["recipients"][0]["status"] = "withheld"

        twin.lie = changed("receipts.status_found", invent)
        with pytest.raises(Forbidden) as caught:
            await ada.message_status(sent.id)
        assert caught.value.code == "forged_receipt"


@pytest.mark.parametrize("change", ["reason", "status"])
async def test_a_withheld_that_says_something_else_than_was_signed_is_named(
    tmp_path: Path, change: str
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        first = await ada.send("bob", "old")
        await delivered(ada, (await ada.send("bob", "new", supersedes=first.id)).id)
        await texts(bob)
        await until(ada, first.id, "withheld")

        def forge(body: dict[str, Any]) -> None:
            row = body["recipients"][0]
            text = json.dumps(row["withheld"])
            if change == "reason":
                row["withheld"] = json.loads(text.replace("superseded", "stale"))
            else:
                row["status"], row["seen"] = "seen", json.loads(text.replace("withheld", "seen"))

        twin.lie = changed("receipts.status_found", forge)
        with pytest.raises(Forbidden) as caught:
            await ada.message_status(first.id)
        assert caught.value.code == "forged_receipt"
