"""Where the hooks of a client find its session, and which peer a session's id leads back to."""

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.routes import records
from tests.support.live import LIMIT_S, Live, LiveSession, alive


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path) as live:
        yield live


def parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid"))


async def who(session: LiveSession) -> tuple[str, str]:
    me = (await session.call("mesh_info"))["me"]
    return me["peer"], me["handle"]


async def test_a_session_is_found_by_its_client_until_it_ends(live: Live) -> None:
    ada = await live.join("ada", session="one")
    peer, _ = await who(ada)
    client = parent(ada.pid)
    (record,) = live.records()
    assert (record["v"], record["pid"], record["server"]) == (1, client, ada.pid)
    assert (record["peer"], record["session"], record["mesh"]) == (peer, "one", "local")
    assert Path(record["file"]) == live.home.sessions / peer / "peer.db"
    found = records.find(live.home.data, client)
    assert found is not None
    assert found.peer == peer
    (path,) = (live.home.data / "run" / "clients").glob("*")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await ada.end() == 0
    assert live.records() == []


async def test_a_record_of_a_client_that_is_gone_is_swept_by_the_next_session(live: Live) -> None:
    ada = await live.join("ada")
    await ada.kill()
    assert [one["server"] for one in live.records()] == [ada.pid]
    bob = await live.join("bob")
    assert [one["server"] for one in live.records()] == [bob.pid]


async def test_a_session_id_is_the_same_peer_again(live: Live) -> None:
    first = await live.join("ada", session="one")
    before = await who(first)
    assert await first.end() == 0
    assert await who(await live.join("ada", session="one")) == before


async def test_an_alias_leads_back_to_the_peer_and_its_inbox(live: Live) -> None:
    ada, bob = await live.join_all("ada", "bob")
    before = await who(ada)
    # As the SessionStart hook does behind /clear, /resume and /branch.
    records.alias(live.home.data, "the id behind /clear", before[0])
    assert await ada.end() == 0
    sent = await bob.call("send", to="ada", text="for later")
    again = await live.join("ada", session="the id behind /clear")
    assert await who(again) == before
    assert [one["id"] for one in await again.read(1)] == [sent["id"]]


@pytest.mark.parametrize("session", ["session of ada", "the id behind /clear"])
async def test_a_session_that_another_client_still_has_is_forked(live: Live, session: str) -> None:
    ada, bob = await live.join_all("ada", "bob")
    peer, handle = await who(ada)
    records.alias(live.home.data, "the id behind /clear", peer)
    fork = await live.join("ada", session=session)
    forked, name = await who(fork)
    assert forked != peer
    assert (handle, name) == ("ada", "ada-2")
    sent = await bob.call("send", to=["ada", "ada-2"], text="both of you")
    for one in (ada, fork):
        assert [message["id"] for message in await one.read(1)] == [sent["id"]]
    # Who goes on with the session later is who had it first, with all that waits there.
    (mesh,) = {one["mesh_id"] for one in live.records()}
    assert records.peer_of(live.home.data, session, mesh) == peer


async def test_an_alias_of_a_peer_that_this_home_lacks_is_none(live: Live) -> None:
    ada = await live.join("ada", session="one")
    before = await who(ada)
    (mesh,) = {one["mesh_id"] for one in live.records()}
    assert await ada.end() == 0
    records.alias(live.home.data, "one", "p_" + "a" * 26, mesh)
    assert await who(await live.join("ada", session="one")) == before


async def test_a_record_that_another_server_of_the_client_took_with_it_comes_back(
    live: Live,
) -> None:
    ada = await live.join("ada")
    bob = await live.join("bob")
    record, _ = await live.recorded("ada", "bob")
    records.remove(live.home.data, record["pid"], ada.pid)
    # Whatever arrives has the server look.
    await bob.call("send", to="ada", text="Are you there?")
    with anyio.fail_after(LIMIT_S):
        while ada.pid not in {one["server"] for one in live.records()}:
            await bob.call("search_peers", query="ada")
    assert record in live.records()


async def test_a_new_handle_is_in_the_record(live: Live) -> None:
    ada = await live.join("ada")
    await ada.call("set_profile", handle="grace")
    await live.recorded("grace")


async def test_a_session_that_starts_removes_aliases_that_nobody_used_for_long(live: Live) -> None:
    records.alias(live.home.data, "long ago", "p_" + "a" * 26, "a mesh")
    (alias,) = (live.home.sessions / "aliases").glob("*")
    os.utime(alias, (0, 0))
    await live.join("ada", session="one")
    assert not alias.exists()
    (mesh,) = {one["mesh_id"] for one in live.records()}
    assert records.peer_of(live.home.data, "one", mesh) is not None
