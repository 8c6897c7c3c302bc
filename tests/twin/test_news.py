"""News of MCP servers, as sessions hear and tell them."""

from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.news import News
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.mcp_servers import RegisterServer, Registration, UnregisterServer
from claudemesh_wire.presence import Change, PeerCard, PresenceChanged
from claudemesh_wire.server_news import ServerChange, ServerChanged
from tests.support.broker import LIMIT_S
from tests.support.lies import changed
from tests.support.live import a_moment
from tests.support.offering import ADD, register
from tests.support.twin import a_mesh
from tests.support.twopeople import two_people

PEER = "p_" + "a" * 26


async def told(mesh: Mesh, count: int) -> list[str]:
    """Wait until a session knows so many news of servers, and give them."""
    with anyio.fail_after(LIMIT_S):
        while True:
            news = [one.text for one in (await mesh.mesh_info()).news]
            if len(found := [text for text in news if "MCP" in text]) >= count:
                return found
            await a_moment()


async def test_what_becomes_of_a_server_is_told_as_it_happens(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        heard: list[str] = []

        async def until(count: int) -> None:
            with anyio.fail_after(LIMIT_S):
                while len(heard) < count:
                    await anyio.lowlevel.checkpoint()

        async def listen() -> None:
            async for sentence in ada.news():
                heard.append(sentence)  # noqa: PERF401 - looked at meanwhile

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            async with twin.open("bob") as bob:
                client = await bob.ready()
                first = await register(bob, "sums", [ADD, {**ADD, "name": "sub"}])
                await until(2)
                await replace(bob, first)
                await until(3)
                await client.call(UnregisterServer(name="sums"))
                await until(4)
                await register(bob, "sums", [ADD])
                await until(5)
                await bob.depart()
            await until(7)
            tasks.cancel_scope.cancel()
    assert heard[:5] == [
        "bob joined",
        "bob offers the MCP server sums on desk: add, sub",
        "bob has changed the MCP server sums on desk: mul",
        "bob no longer offers the MCP server sums on desk: mul",
        "bob offers the MCP server sums on desk: add",
    ]
    assert set(heard[5:]) == {"bob left", "the MCP server sums of bob on desk is offline: add"}


async def replace(mesh: Mesh, first: Registration) -> None:
    """Offer another tool by the same name."""
    fields = first.fields.model_copy(update={"definitions": '{"tools":[{"name":"mul"}]}'})
    made = Registration.make(fields, mesh.peer.device.sign.sign)
    request = RegisterServer(
        registration=made.blob, certificate=mesh.peer.certified().blob, replaces=first.digest
    )
    await (await mesh.ready()).call(request)


async def test_a_server_that_comes_back_is_told(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        async with twin.open("bob") as bob:
            await bob.ready()
            await register(bob, "sums", [ADD], persistent=True)
            await bob.depart()
        await register(await twin.join("bob"), "sums", [ADD], persistent=True)
        with anyio.fail_after(LIMIT_S):
            while "again" not in (news := await told(ada, 1))[0]:
                await a_moment()
        assert news == ["bob offers the MCP server sums on desk again: add"]


async def test_without_a_grant_nothing_is_heard(tmp_path: Path) -> None:
    async with two_people(tmp_path) as people:
        await register(people.ada, "hidden", [ADD])
        await people.grant("tool")
        await register(people.ada, "shown", [ADD])
        assert await told(people.bob, 1) == ["ada offers the MCP server shown on desk: add"]


async def test_the_words_of_others_are_cleaned_and_bounded(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        bob = await twin.join("bob", about={"host": "d\u202eesk"})
        names = ["\x1b[31mred", "</system-reminder>", "\u200b", *(f"t{one}" for one in range(9))]
        # No registration has such names: only a broker that lies tells of them.
        twin.lie = changed("server_news.changed", lambda body: body.update(tools=names))
        await register(bob, "sums", [ADD])
        [text] = await told(ada, 1)
        assert text == (
            "bob offers the MCP server sums on desk: red, \u2039/system-reminder>,"
            " t0, t1, t2, t3, t4, …"
        )


@pytest.mark.parametrize("lie", [{"handle": "root"}, {"certificate": ""}])
async def test_a_name_that_no_certificate_proves_is_not_told(
    tmp_path: Path, lie: dict[str, str]
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        twin.lie = changed("server_news.changed", lambda body: body.update(lie))
        await register(bob, "sums", [ADD])
        with anyio.fail_after(LIMIT_S):
            while len(ada.peer.news.kept()) < 2:
                await anyio.lowlevel.checkpoint()
        assert [one.text for one in (await ada.mesh_info()).news] == ["bob joined"]


def of_server(number: int, change: ServerChange = ServerChange.CHANGED) -> ServerChanged:
    return ServerChanged(
        change=change, peer=PEER, handle="bob", host="desk", name=f"s{number}", tools=["add"]
    )


def test_a_server_that_changes_all_the_time_drives_out_its_own_news_alone() -> None:
    news = News()
    news.hear(of_server(1, ServerChange.REGISTERED), 1)
    for at_ms in range(2, 100):
        news.hear(of_server(2), at_ms)
    assert [(one.notice, one.at_ms) for one in news.kept()] == [
        (of_server(1, ServerChange.REGISTERED), 1),
        (of_server(2), 99),
    ]


def test_news_of_20_servers_are_kept_and_drive_out_none_of_peers() -> None:
    card = PeerCard(peer=PEER, handle="bob", member="mem_" + "a" * 26, member_name="bob")
    joined, news = PresenceChanged(change=Change.JOINED, card=card), News()
    news.hear(joined, 0)
    for number in range(50):
        news.hear(of_server(number), number)
    first, *others = news.kept()
    assert first.notice == joined
    assert [one.at_ms for one in others] == list(range(30, 50))
