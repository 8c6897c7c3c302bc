"""What a peer tells of itself, through the client: kept per peer, shown, and never mixed up."""

from pathlib import Path

import anyio

from claudemesh_mcp.sdk import Mesh
from tests.support.twin import a_mesh

LIMIT_S = 20


async def test_two_sessions_of_one_member_never_overwrite_each_other(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")

        async def tell(mesh: Mesh, name: str) -> None:
            for number in range(10):
                await mesh.set_profile(
                    role=f"{name} {number}", summary=name, profile={"title": name, "n": number}
                )
                await mesh.join(f"@{name}{number}", name)
                await mesh.join("@both", f"{name} {number}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tell, ada, "ada")
            tasks.start_soon(tell, bob, "bob")
        for mesh, name in ((ada, "ada"), (bob, "bob")):
            me = (await mesh.mesh_info()).me
            assert (me.summary, me.profile) == (name, {"title": name, "n": 9})
            assert set(me.groups) == {"@both", *(f"@{name}{number}" for number in range(10))}
            shown = await mesh.set_profile()
            assert shown.role == f"{name} 9"
            groups = await twin.broker.sql(
                "SELECT DISTINCT role FROM groups WHERE peer = ? AND name = 'both'", mesh.peer.id
            )
            assert groups == [(f"{name} 9",)]


async def test_a_session_that_resumes_has_its_groups_profile_and_counts(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        async with twin.open("ada") as ada:
            await ada.ready()
            await ada.set_profile(status="dnd", profile={"title": "T"}, visible=False)
            await ada.join("@ops", "lead")
            await ada.send("bob", "one")
        await twin.end_leases()
        me = (await (await twin.join("ada")).mesh_info()).me
        assert (me.groups, me.profile, me.visible) == (["@ops"], {"title": "T"}, False)
        assert me.stats is not None
        assert (me.stats.sessions, me.stats.sent) == (2, 1)
        assert (await bob.search_peers("ada")).peers == []
        assert [one.text for one in (await bob.mesh_info()).news] == ["ada joined", "ada left"]


async def test_title_and_capabilities_are_found(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        await bob.set_profile(profile={"title": "Release Manager", "capabilities": ["rust", "sql"]})
        for query in ("release", "SQL", "rus"):
            assert [one.handle for one in (await ada.search_peers(query)).peers] == ["bob"]
        (row,) = (await ada.search_peers("bob", detail=True)).peers
        assert row.profile == {"title": "Release Manager", "capabilities": ["rust", "sql"]}
        assert row.stats is not None
        assert row.stats.sessions == 1


async def test_what_is_heard_is_told_as_it_comes(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        news = ada.news()
        for visible, sentence in ((False, "bob left"), (True, "bob joined")):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda shown=visible: bob.set_profile(visible=shown))
                with anyio.fail_after(LIMIT_S):
                    assert await anext(news) == sentence


async def test_only_the_last_20_news_are_kept(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        for _ in range(11):
            await bob.set_profile(visible=False)
            await bob.set_profile(visible=True)
        with anyio.fail_after(LIMIT_S):
            while len(news := (await ada.mesh_info()).news) < 20:
                await anyio.lowlevel.checkpoint()
        assert {one.text for one in news} == {"bob left", "bob joined"}
        assert len(news) == 20


async def test_who_is_on_this_machine_is_told_by_proof_and_not_by_the_name_of_a_host(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob", about={"host": "laptop"})
        eve = await (await twin.admit("eve")).join("eve")
        for mesh, near in ((ada, {"ada", "bob"}), (bob, {"ada", "bob"}), (eve, {"eve"})):
            found = (await mesh.search_peers()).peers
            told = {one.handle: one.locality for one in found}
            assert told == {
                name: "here" if name in near else "remote" for name in ("ada", "bob", "eve")
            }


async def test_a_new_name_outlasts_the_connection_and_the_session(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        async with twin.open("ada") as ada:
            await ada.ready()
            await ada.set_profile(handle="eve")
            await twin.cut()
            await ada.ready()
            assert (await ada.mesh_info()).me.handle == "eve"
        await twin.end_leases()
        back = await twin.join("ada")
        assert (await back.mesh_info()).me.handle == "eve"
        assert [one.handle for one in (await bob.search_peers("eve")).peers] == ["eve"]
