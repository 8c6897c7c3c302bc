"""One peer in several processes, and a line that breaks: who holds what, and who comes back."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.attachment import Dialed
from claudemesh_mcp.connection import Patience, websocket
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import Conflict, MeshError, Unavailable
from claudemesh_wire.handshake import Mode
from tests.support.twin import Twin, a_mesh

LIMIT_S = 20


async def take_all(mesh: Mesh, into: list[str]) -> None:
    """Take what waits, and say that it was shown."""
    for message in (await mesh.inbox(limit=100)).messages:
        assert not message.redelivered
        into.append(message.text)
    await mesh.confirm()


async def handed(twin: Twin, meshes: list[Mesh], count: int) -> list[str]:
    """Have all of them read at once until so many messages came out."""
    texts: list[str] = []
    with anyio.fail_after(LIMIT_S):
        while len(texts) < count:
            async with anyio.create_task_group() as tasks:
                for mesh in meshes:
                    tasks.start_soon(take_all, mesh, texts)
    assert twin.broker
    return texts


async def test_two_attach_and_ten_calls_hand_each_message_once(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        first = await twin.join("bob")
        second = await twin.join("bob")
        with pytest.raises(Conflict) as lost:
            await first.search_peers()
        assert lost.value.code == "replaced"
        calls = [await twin.join("bob", Mode.CALL) for _ in range(10)]
        dialled = len(twin.links)
        assert dialled == 13  # ada, two attaches, ten calls: the loser did not come back
        sent = [f"message {number}" for number in range(40)]
        for text in sent:
            await ada.send("bob", text)
        texts = await handed(twin, [second, *calls], len(sent))
        assert sorted(texts) == sorted(sent)
        assert len(twin.links) == dialled
        assert (await second.inbox()).messages == []


async def test_a_call_sends_and_reads_without_being_present(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        one = await twin.join("cli", Mode.CALL)
        await one.send("ada", "from the command line")
        assert [m.text for m in (await ada.inbox(wait_s=LIMIT_S)).messages] == [
            "from the command line"
        ]
        (row,) = (await ada.search_peers("cli")).peers
        assert row.status == "offline"
        await ada.send("cli", "back")
        assert [m.text for m in (await one.inbox()).messages] == ["back"]


async def test_a_flapping_line_shows_nobody_leaving(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        changes: list[str] = []

        def watch(text: str) -> str:
            if " presence.changed " in text and bob.peer.id in text:
                changes.append(text)
            return text

        for number in range(3):
            await twin.cut()
            with anyio.fail_after(LIMIT_S):
                while len(twin.links) < 2:
                    await anyio.lowlevel.checkpoint()
            await ada.ready()
            await bob.ready()
            twin.lie = watch
            sent = await ada.send("bob", f"after cut {number}")
            assert sent.recipients[0].status in {"accepted", "queued"}
        got: list[str] = []
        with anyio.fail_after(LIMIT_S):
            while len(got) < 3:
                got += [m.text for m in (await bob.inbox(wait_s=1)).messages]
        assert got == [f"after cut {number}" for number in range(3)]
        assert not [text for text in changes if '"left"' in text or '"joined"' in text]


async def test_a_mesh_without_a_broker_says_so_and_keeps_trying(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        twin.online = False
        async with twin.open("ada") as ada:
            with pytest.raises(MeshError) as away:
                await ada.ready(0.05)
            assert away.value.code == "unavailable"
            assert not (await ada.mesh_info()).broker.connected
            twin.online = True
            await ada.ready(LIMIT_S)
            assert (await ada.mesh_info()).broker.connected


async def test_a_call_is_answered_by_a_fresh_attempt_and_not_by_an_old_refusal(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        is_newer = True

        @asynccontextmanager
        async def dial() -> AsyncIterator[Dialed]:
            if is_newer:
                raise Conflict("The database is newer.", "Upgrade claudemesh.", code="data_newer")
            async with twin.dial() as dialed:
                yield dialed

        async with Mesh.over(twin.setup("ada"), dial, Mode.ATTACH) as ada:
            with anyio.fail_after(LIMIT_S):
                for _ in range(3):
                    with pytest.raises(Conflict) as refused:
                        await ada.ready(10 * LIMIT_S)
                    assert refused.value.code == "data_newer"
                assert [one.code for one in (await ada.mesh_info()).problems] == ["data_newer"]
                is_newer = False
                assert (await ada.search_peers()).total == 1
                assert (await ada.mesh_info()).problems == []


async def test_a_command_is_told_of_a_port_where_nobody_listens_and_a_session_waits(
    tmp_path: Path,
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and never listens, so that nobody else does
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        async with a_mesh(tmp_path) as twin:
            attempts = 0

            @asynccontextmanager
            async def dial() -> AsyncIterator[Dialed]:
                nonlocal attempts
                attempts += 1
                if attempts <= 7:
                    async with websocket(url, Patience(60)):
                        raise AssertionError("somebody listens")
                async with twin.dial() as dialed:
                    yield dialed

            with anyio.fail_after(LIMIT_S):
                async with Mesh.over(twin.setup("ada"), dial, Mode.CALL) as ada:
                    with pytest.raises(Unavailable) as refused:
                        await ada.ready(10 * LIMIT_S)
                assert (refused.value.code, attempts) == ("unreachable", 5)
                assert "claudemesh up" not in refused.value.hint
                attempts = 0
                async with Mesh.over(twin.setup("ada"), dial, Mode.ATTACH) as ada:
                    await ada.ready(10 * LIMIT_S)
                assert attempts == 8


async def test_a_broker_that_lost_its_disk_is_offered_the_mesh_again(tmp_path: Path) -> None:
    async with a_mesh(tmp_path / "one") as twin:
        ada = await twin.join("ada")
        mesh, peer = ada.peer.trust.mesh, ada.peer.id
        async with a_mesh(tmp_path / "two") as other:
            twin.broker = other.broker
            await twin.cut()
            with anyio.fail_after(LIMIT_S):
                while (
                    not other.broker.parts or ada.peer.id != peer or not await _knows(other, mesh)
                ):
                    await anyio.lowlevel.checkpoint()
            await ada.ready()


async def _knows(twin: Twin, mesh: str) -> bool:
    return bool(await twin.broker.sql("SELECT 1 FROM meshes WHERE mesh = ?", mesh))


async def test_join_and_leave_are_told_to_others_and_not_to_oneself(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        told: list[str] = []

        def watch(text: str) -> str:
            if " presence.changed " in text:
                told.append(text)
            return text

        twin.lie = watch
        ada = await twin.join("ada")
        assert told == []
        async with twin.open("bob") as bob:
            await bob.ready()
            with anyio.fail_after(LIMIT_S):
                while not any('"joined"' in text and bob.peer.id in text for text in told):
                    await anyio.lowlevel.checkpoint()
            await bob.depart()
            with anyio.fail_after(LIMIT_S):
                while not any('"left"' in text and bob.peer.id in text for text in told):
                    await anyio.lowlevel.checkpoint()
        assert not any(ada.peer.id in text for text in told)


async def test_handles_are_unique_and_come_back(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        first = await twin.join("shop", anchor="claude:one")
        async with twin.open("shop", anchor="claude:two") as second:
            await second.ready()
            assert (first.peer.handle, second.peer.handle) == ("shop", "shop-2")
        again = await twin.join("shop", anchor="claude:two")
        assert again.peer.handle == "shop-2"
        changed = await again.set_profile(handle="till", role="cashier", status="dnd", summary="x")
        assert (changed.handle, changed.status) == ("till", "dnd")
        sent = await first.send("till", "hello")
        assert sent.recipients[0].handle == "till"
