"""Two members in homes of their own: removals at awkward moments, clocks, a broker that hides."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import governing, outbox
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.entries import EntryKind
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Mode
from claudemesh_wire.message import Role
from tests.support.lies import changed
from tests.support.twin import Guest, Twin, a_mesh

LIMIT_S = 20
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


async def texts(mesh: Mesh, wait_s: float = LIMIT_S) -> list[str]:
    return [one.text for one in (await mesh.inbox(wait_s=wait_s)).messages]


async def problems(mesh: Mesh) -> set[str]:
    return {one.code for one in (await mesh.mesh_info()).problems}


async def code_of(asked: Any) -> str:
    with pytest.raises(MeshError) as caught:
        await asked
    return caught.value.code


async def kick(twin: Twin, guest: Guest, for_ms: int = HOUR_MS) -> None:
    await twin.say(EntryKind.REMOVE, member=guest.member, expires=twin.clock() + for_ms)


async def informed(mesh: Mesh, twin: Twin) -> None:
    """Wait until a peer knows what the broker's log says."""
    chain = await twin.broker.parts.roster.load(twin.identity.mesh)
    assert chain is not None
    with anyio.fail_after(LIMIT_S):
        while mesh.peer.trust.head != chain.head:
            await anyio.lowlevel.checkpoint()


def drop(kind: str) -> Any:
    """A network that loses every frame of a kind."""
    return lambda text: None if f" {kind} " in text else text


def told(what: dict[str, Any]) -> Any:
    """Put something else in place of what the broker says."""
    return lambda body: body.update(what)


@asynccontextmanager
async def opened(guest: Guest, name: str, **more: Any) -> AsyncIterator[Mesh]:
    async with guest.open(name, **more) as mesh:
        await mesh.ready()
        yield mesh


async def test_a_member_removed_while_away_is_refused_and_later_loses_nothing(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, guest = await twin.join("ada"), await twin.admit("bob")
        async with opened(guest, "bert"):
            pass
        await ada.send("bert", "before")
        await kick(twin, guest)
        await informed(ada, twin)
        assert await code_of(ada.send("bert", "meanwhile")) == "member_removed"
        async with guest.open("bert") as bert:
            assert await code_of(bert.ready()) == "member_removed"
            assert "member_removed" in await problems(bert)
        twin.clock.pass_ms(HOUR_MS)
        async with opened(guest, "bert") as bert:
            assert await texts(bert) == ["before"]
            await bert.send("ada", "back")
        assert await texts(ada) == ["back"]


async def test_a_member_removed_in_mid_send_sends_once_when_it_is_back(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, guest = await twin.join("ada"), await twin.admit("bob")
        bert = await guest.join("bert")
        await bert.send("ada", "first")
        assert await texts(ada) == ["first"]
        # The broker has stored it and its answer is lost; then the member is out.
        twin.lie = drop("messages.accepted")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bert.send, "ada", "second")
            assert await texts(ada) == ["second"]
            await kick(twin, guest)
            twin.lie = None
            while "member_removed" not in await problems(bert):
                await anyio.lowlevel.checkpoint()
            assert await bert.peer.file.write(outbox.count_waiting) == 1
            twin.clock.pass_ms(HOUR_MS)
        await bert.ready()
        await bert.send("ada", "third")
        assert await texts(ada) == ["third"]
        assert await bert.peer.file.write(outbox.count_waiting) == 0


async def test_a_member_removed_in_mid_receive_gets_it_once_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, guest = await twin.join("ada"), await twin.admit("bob")
        bert = await guest.join("bert")
        twin.lie = drop("messages.deliver")
        sent = await ada.send("bert", "under way")
        await kick(twin, guest)
        twin.lie = None
        twin.clock.pass_ms(HOUR_MS)
        await bert.ready()
        assert await texts(bert) == ["under way"]
        assert await texts(bert, wait_s=0) == []
        await bert.report()
        (row,) = (await ada.message_status(sent.id)).recipients
        assert (row.status, row.proved) == ("seen", True)


async def test_what_a_removed_member_sealed_before_is_not_believed_after(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, guest = await twin.join("ada"), await twin.admit("bob")
        async with opened(guest, "bert") as bert:
            twin.lie = drop("messages.deliver")
            sent = await bert.send("ada", "sealed in time")
        await twin.say(EntryKind.REMOVE, member=guest.member)
        twin.lie = None
        await twin.cut()
        await ada.ready()
        assert await texts(ada, wait_s=0) == []
        assert "revoked" in await problems(ada)
        assert sent.id


async def test_an_admin_demoted_while_it_writes_changes_nothing(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        guest, other = await twin.admit("bob", Role.ADMIN), await twin.admit("cleo")
        bert = await guest.join("bert")
        # Bob has not heard of it when he signs; the log has moved when he hands it in.
        twin.lie = drop("meshes.log_grew")
        await twin.say(EntryKind.ROLE, member=guest.member, role="member")
        asked = governing.set_role(bert.peer, await bert.ready(), "cleo", Role.OBSERVER)
        assert await code_of(asked) == "membership_forbidden"
        chain = await twin.broker.parts.roster.load(twin.identity.mesh)
        assert chain is not None
        assert chain.members[other.member].role is Role.MEMBER
        twin.lie = None
        await twin.cut()
        await ada.ready()
        await informed(ada, twin)
        assert ada.peer.trust.chain.members[guest.member].role is Role.MEMBER


async def test_two_admins_who_write_at_once_both_get_their_way(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        await twin.join("ada")
        guest, other = await twin.admit("bob", Role.ADMIN), await twin.admit("cleo")
        bert = await guest.join("bert")
        twin.lie = drop("meshes.log_grew")
        await twin.say(EntryKind.RENAME, mesh_name="shop")
        now = await governing.set_role(bert.peer, await bert.ready(), "cleo", Role.OBSERVER)
        assert (now.id, now.role) == (other.member, Role.OBSERVER)
        assert bert.peer.trust.chain.name == "shop"


async def test_a_broker_that_hides_a_removal_is_found_out(tmp_path: Path) -> None:
    """Whoever knows the entry says so in every header: the others ask for what they lack."""
    async with a_mesh(tmp_path) as twin:
        ada, guest = await twin.join("ada"), await twin.admit("bob")
        zoe = await twin.admit("zoe")
        bert = await guest.join("bert")
        await bert.send("ada", "I am here")
        assert await texts(ada) == ["I am here"]
        # Ada is shown nothing of it: neither the notice nor an answer that holds it.
        head = ada.peer.trust.head
        before = head.seq
        nothing = {
            "entries": [],
            "head_seq": before,
            "head": base64.urlsafe_b64encode(head.hash).decode(),
        }
        silent, denied = drop("meshes.log_grew"), changed("meshes.log_entries", told(nothing))
        twin.lie = lambda text: silent(text) and denied(text)
        await twin.say(EntryKind.REMOVE, member=guest.member)
        zed = await zoe.join("zed")
        await zed.send("ada", "did you know?")
        with anyio.fail_after(LIMIT_S):
            while not {"membership_hidden", "membership_behind"} & await problems(ada):
                await anyio.lowlevel.checkpoint()
        assert ada.peer.trust.head.seq == before
        twin.lie = None
        await twin.cut()
        await ada.ready()
        assert "did you know?" in await texts(ada)
        assert ada.peer.trust.chain.members[guest.member].removed


@pytest.mark.parametrize("off_ms", [-11 * MINUTE_MS, 11 * MINUTE_MS, -30 * HOUR_MS, 30 * HOUR_MS])
async def test_a_clock_that_is_off_is_named_and_loses_nothing(tmp_path: Path, off_ms: int) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, guest = await twin.join("ada"), await twin.admit("bob")
        setup = replace(guest.setup("bert"), now_ms=lambda: twin.clock() + off_ms)
        async with Mesh.over(setup, twin.dial, Mode.ATTACH) as bert:
            await bert.ready()
            assert "clock_off" in await problems(bert)
            await ada.send("bert", "what time is it?")
            assert await texts(bert) == ["what time is it?"]
            sent = await bert.send("ada", "ask the broker")
            assert await texts(ada) == ["ask the broker"]
            await ada.confirm()
            await ada.report()
            (row,) = (await bert.message_status(sent.id)).recipients
            assert (row.status, row.proved) == ("seen", True)
