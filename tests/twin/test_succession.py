"""A new session takes the place of one that ended: what it gets, what others see, what survives."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import reports, succession
from claudemesh_mcp.results import RecipientStatus
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import Unavailable
from tests.support import letters
from tests.support.twin import Twin, a_mesh
from tests.twin.test_conversations import LIMIT_S, Tokens, texts

LEASE_MS = 90_000
HOUR_MS = 3_600_000


async def ended(twin: Twin, name: str, **more: Any) -> str:
    """Have a session that was here once and is gone for good; gives its peer's id."""
    async with twin.open(name, **more) as mesh:
        await mesh.ready()
        peer = mesh.peer.id
    await twin.end_leases()
    return peer


async def until(mesh: Mesh, message: str, wanted: str) -> RecipientStatus:
    with anyio.fail_after(LIMIT_S):
        while True:
            (row,) = (await mesh.message_status(message)).recipients
            if row.status == wanted:
                return row
            await anyio.lowlevel.checkpoint()


async def test_it_gets_handle_groups_profile_and_what_waited(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        async with twin.open("ada", anchor="claude:1") as ada:
            await ada.ready()
            late = ada.peer.id
            await ada.join("@ops", "lead")
            await ada.set_profile(
                role="reviewer", summary="tests", profile={"title": "T"}, share_cwd=True
            )
            await ada.send("bob", "I am here")
        await twin.end_leases()
        first_seen = (await bob.search_peers("bob", detail=True)).peers[0].first_seen
        sent = await bob.send("ada", "unread")
        assert sent.recipients[0].status == "queued"
        heir = await twin.join("ada", anchor="claude:2")
        info = await heir.mesh_info()
        assert (info.me.handle, info.me.groups, info.me.summary) == ("ada", ["@ops"], "tests")
        assert (info.me.profile, info.me.share_cwd) == ({"title": "T"}, True)
        assert info.me.stats is not None
        assert (info.me.stats.sessions, info.me.stats.sent) == (2, 1)
        assert info.me.peer != late
        assert await texts(heir) == ["unread"]
        await heir.confirm()
        row = await until(bob, sent.id, "seen")
        assert (row.peer, row.proved) == (late, True)
        assert row.successor is not None
        assert (row.successor.peer, row.successor.handle) == (heir.peer.id, "ada")
        (found,) = (await bob.search_peers("ada", detail=True)).peers
        assert (found.peer, found.role, found.first_seen) == (heir.peer.id, "reviewer", first_seen)


async def test_others_are_told_that_the_handle_is_back(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        await ended(twin, "ada", anchor="claude:1")
        twin.clock.pass_ms(2 * HOUR_MS - LEASE_MS)
        heir = await twin.join("ada", anchor="claude:2")
        with anyio.fail_after(LIMIT_S):
            while len(news := (await bob.mesh_info()).news) < 3:
                await anyio.lowlevel.checkpoint()
        assert [one.text for one in news] == [
            "ada joined",
            "ada left",
            "ada is back, last seen 2 h ago",
        ]
        assert (await heir.mesh_info()).me.last_seen is not None


@pytest.mark.parametrize("more", [{"cwd": "/work/other"}, {"host": "laptop"}, {"type": "sdk"}])
async def test_in_another_folder_or_host_it_gets_the_handle_and_nothing_else(
    tmp_path: Path, more: dict[str, str]
) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        async with twin.open("ada", anchor="claude:1") as ada:
            await ada.ready()
            await ada.join("@ops")
        await twin.end_leases()
        await bob.send("ada", "for the first one")
        other = await twin.join("ada", anchor="claude:2", about=more)
        info = await other.mesh_info()
        assert (info.me.handle, info.me.groups, info.unread) == ("ada", [], 0)
        assert (await other.inbox()).messages == []
        first = await twin.join("x", anchor="claude:1")
        assert await texts(first) == ["for the first one"]


async def test_a_live_holder_keeps_everything(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        ada = await twin.join("ada", anchor="claude:1")
        await ada.join("@ops")
        second = await twin.join("ada", anchor="claude:2")
        info = await second.mesh_info()
        assert (info.me.handle, info.me.groups) == ("ada-2", [])
        await bob.send("ada", "to the first")
        assert await texts(ada) == ["to the first"]
        assert (await second.inbox()).messages == []
        assert (await ada.mesh_info()).me.groups == ["@ops"]


async def test_one_in_its_lease_is_a_live_holder(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        async with twin.open("ada", anchor="claude:1") as ada:
            await ada.ready()
        second = await twin.join("ada", anchor="claude:2")
        assert second.peer.handle == "ada-2"


async def test_one_that_comes_back_after_all_is_a_fork_with_nothing(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        late = await ended(twin, "ada", anchor="claude:1")
        await bob.send("ada", "to whoever is ada")
        heir = await twin.join("ada", anchor="claude:2")
        await heir.join("@ops")
        await bob.send(late, "by the old id")
        with anyio.fail_after(LIMIT_S):
            while (await heir.mesh_info()).unread < 2:
                await anyio.lowlevel.checkpoint()
        fork = await twin.join("ada", anchor="claude:1")
        assert (fork.peer.id, fork.peer.handle) == (late, "ada-2")
        info = await fork.mesh_info()
        assert (info.me.groups, info.unread) == ([], 0)
        assert (await fork.inbox()).messages == []
        assert sorted(await texts(heir)) == ["by the old id", "to whoever is ada"]
        await bob.send(late, "to the fork")
        assert await texts(fork) == ["to the fork"]
        assert (await heir.inbox()).messages == []


async def test_the_heir_of_an_heir_has_all_of_it(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        first = await ended(twin, "ada", anchor="claude:1")
        one = await bob.send(first, "one")
        twin.online = False
        async with twin.open("ada", anchor="claude:2"):  # sees nobody, takes nothing
            pass
        twin.online = True
        second = await ended(twin, "ada", anchor="claude:2")
        two = await bob.send(first, "two")
        three = await bob.send(second, "three")
        heir = await twin.join("ada", anchor="claude:3")
        assert sorted(await texts(heir)) == ["one", "three", "two"]
        await heir.confirm()
        for sent in (one, two, three):
            row = await until(bob, sent.id, "seen")
            assert row.successor is not None
            assert row.successor.peer == heir.peer.id


async def test_one_that_comes_back_when_its_heir_is_gone_has_its_things_again(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        first = await ended(twin, "ada", anchor="claude:1")
        async with twin.open("ada", anchor="claude:2") as heir:
            await heir.ready()
            await heir.join("@ops")
        await twin.end_leases()
        await bob.send("ada", "one")
        await bob.send(first, "two")
        back = await twin.join("ada", anchor="claude:1")
        info = await back.mesh_info()
        assert (info.me.peer, info.me.handle, info.me.groups) == (first, "ada", ["@ops"])
        assert sorted(await texts(back)) == ["one", "two"]


async def test_a_message_to_both_is_shown_once(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        late = await ended(twin, "ada", anchor="claude:1")
        heir = await twin.join("ada", anchor="claude:2")
        sent = await bob.send(["ada", late], "once")
        assert len(sent.recipients) == 2
        assert await texts(heir) == ["once"]
        with anyio.fail_after(LIMIT_S):
            while await twin.broker.sql("SELECT 1 FROM deliveries WHERE status = 'queued'"):
                await anyio.lowlevel.checkpoint()
        assert (await heir.inbox()).messages == []


# What lies in the file of the one that ended.


async def test_what_it_had_but_not_shown_moves_and_what_it_may_have_shown_is_marked(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        async with twin.open("ada", anchor="claude:1") as ada:
            await ada.ready()
            for text in ("seen", "printed, perhaps", "unread"):
                await bob.send("ada", text)
            await unread(ada, 3)
            await ada.inbox(limit=1)
            await ada.confirm()
            await ada.inbox(limit=1, call=Tokens())
        await twin.end_leases()
        heir = await twin.join("ada", anchor="claude:2")
        shown = (await heir.inbox()).messages
        assert [(one.text, one.redelivered) for one in shown] == [
            ("printed, perhaps", True),
            ("unread", None),
        ]
        fork = await twin.join("ada", anchor="claude:1")
        assert (await fork.inbox()).messages == []


async def test_what_was_seen_and_not_reported_is_reported_and_not_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        with monkeypatch.context() as patch:
            # Killed before it reports anything.
            patch.setattr(reports, "due", lambda _: {})
            async with twin.open("ada", anchor="claude:1") as ada:
                await ada.ready()
                sent = await bob.send("ada", "seen")
                await unread(ada, 1)
                await ada.inbox()
                await ada.evidence(["1"])
        await twin.end_leases()
        heir = await twin.join("ada", anchor="claude:2")
        row = await until(bob, sent.id, "seen")
        assert row.successor is not None
        assert (await heir.inbox()).messages == []


async def test_a_move_that_was_cut_short_loses_nothing_and_shows_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        await left_unread(twin, bob)
        with monkeypatch.context() as patch:
            patch.setattr(succession, "end", killed)
            async with twin.open("ada", anchor="claude:2") as heir:
                await heir.ready()
                assert await texts(heir) == ["unread"]
                await heir.confirm()
        heir = await twin.join("ada", anchor="claude:2")
        assert (await heir.inbox()).messages == []
        assert await states(twin, "claude:1") == [("seen", "heir")]


async def test_a_move_that_was_cut_short_marks_what_both_may_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        await left_unread(twin, bob)
        with monkeypatch.context() as patch:
            patch.setattr(succession, "end", killed)
            heir = await twin.join("ada", anchor="claude:2")
        fork = await twin.join("ada", anchor="claude:1")
        assert [one.redelivered for one in (await heir.inbox()).messages] == [None]
        assert [one.redelivered for one in (await fork.inbox()).messages] == [True]


async def test_a_move_that_never_began_to_copy_is_done_by_the_next_start_unmarked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        await left_unread(twin, bob)
        with monkeypatch.context() as patch:
            patch.setattr(succession, "keep", killed)
            async with twin.open("ada", anchor="claude:2") as heir:
                await heir.ready()
                assert (await heir.inbox()).messages == []
        heir = await twin.join("ada", anchor="claude:2")
        (message,) = (await heir.inbox()).messages
        assert (message.text, message.redelivered) == ("unread", None)


async def test_the_file_of_one_that_lives_after_all_is_left_alone(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        late = await twin.join("ada", anchor="claude:1")
        await bob.send("ada", "mine")
        await unread(late, 1)
        twin.online = False
        gone = [*twin.links]
        await twin.cut()
        for link in gone:
            await link.served.wait()
        await twin.end_leases()
        twin.online = True
        lock = late.peer.folder / "attached.lock"
        assert lock.exists()
        heir = await twin.join("ada", anchor="claude:2")
        assert (await heir.inbox()).messages == []
        assert [one.text for one in (await late.inbox()).messages] == ["mine"]


async def test_a_damaged_file_keeps_nobody_from_what_waits_at_the_broker(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        late = await ended(twin, "ada", anchor="claude:1")
        path = bob.peer.home.sessions / late / "peer.db"
        path.write_bytes(b"no database" * 1000)
        await bob.send("ada", "hello")
        heir = await twin.join("ada", anchor="claude:2")
        assert await texts(heir) == ["hello"]
        problems = [one.code for one in (await heir.mesh_info()).problems]
        assert problems == ["database_damaged"]


async def test_keys_that_are_lost_are_told_to_the_sender(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        late = await ended(twin, "ada", anchor="claude:1")
        sent = await bob.send("ada", "hello")
        (bob.peer.home.sessions / late / "device.key").unlink()
        heir = await twin.join("ada", anchor="claude:2")
        row = await until(bob, sent.id, "declined")
        assert (row.reason, row.proved) == ("no_key", True)
        assert (await heir.inbox()).messages == []


async def left_unread(twin: Twin, bob: Mesh) -> None:
    """Leave one unread message in the file of a session that ended."""
    async with twin.open("ada", anchor="claude:1") as ada:
        await ada.ready()
        sent = await bob.send("ada", "unread")
        await unread(ada, 1)
        await until(bob, sent.id, "delivered")
    await twin.end_leases()


async def unread(mesh: Mesh, count: int) -> None:
    """Wait until so many messages lie in a session's file."""
    with anyio.fail_after(LIMIT_S):
        while (await mesh.peer.file.read(lambda sql: letters.unread(sql, 0))) < count:
            await anyio.lowlevel.checkpoint()


async def states(twin: Twin, anchor: str) -> list[tuple[str, str]]:
    """Give state and route of what lies in the file of a session that ended."""
    async with twin.open("x", anchor=anchor) as mesh:
        rows = await mesh.peer.file.read(
            lambda sql: sql.execute("SELECT state, route FROM inbox").fetchall()
        )
        return [tuple(row) for row in rows]


def killed(*_: object, **__: object) -> None:
    """Stand for the end of the process at this step."""
    raise Unavailable("The process was killed here.", code="killed")
