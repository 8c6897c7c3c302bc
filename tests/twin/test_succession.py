"""A new session takes the place of one that ended: what it gets, what others see, what survives."""

from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.sdk import Mesh
from tests.support.twin import a_mesh, ended, until
from tests.twin.test_conversations import LIMIT_S, texts

LEASE_MS = 90_000
HOUR_MS = 3_600_000


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


async def test_what_is_sent_to_all_a_fork_and_its_heir_show_and_report_each(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        await ended(twin, "ada", anchor="claude:1")
        heir = await twin.join("ada", anchor="claude:2")
        fork = await twin.join("ada", anchor="claude:1")
        sent = await bob.send("*", "to all")
        assert await texts(heir) == ["to all"]
        await heir.confirm()
        await states(bob, sent.id, {"ada": "seen", "ada-2": "delivered"})
        assert await texts(fork) == ["to all"]
        await fork.confirm()
        await states(bob, sent.id, {"ada": "seen", "ada-2": "seen"})


async def states(mesh: Mesh, message: str, wanted: dict[str, str]) -> None:
    """Wait until each recipient of a message, itself and no heir, has got so far with it."""
    with anyio.fail_after(LIMIT_S):
        while True:
            told = (await mesh.message_status(message)).recipients
            if {one.handle: str(one.status) for one in told} == wanted:
                assert all(one.successor is None for one in told)
                return
            await anyio.lowlevel.checkpoint()


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
