"""A membership log that grows under connected sessions: verified by each, forged for none."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from claudemesh_wire.keys import SigningKey, b64, member_id
from claudemesh_wire.membership import Entry, EntryFields
from claudemesh_wire.meshes import AppendEntry
from tests.support.lies import changed
from tests.support.twin import Twin, a_mesh

LIMIT_S = 20
CLEO = SigningKey(bytes(31) + b"\x11")


def entry(mesh: Mesh, kind: str, signer: SigningKey | None = None, **fields: Any) -> bytes:
    """The entry with which this home's member would go on in the log."""
    trust, identity = mesh.peer.trust, mesh.peer.identity
    said = EntryFields(
        mesh=trust.mesh,
        seq=trust.head.seq + 1,
        prev=b64(trust.head.hash),
        at=mesh.peer.now_ms(),
        kind=kind,
        by=identity.member,
        **fields,
    )
    return Entry.issue(said, signer or identity.key).blob


def cleo_added(mesh: Mesh, signer: SigningKey | None = None) -> bytes:
    key = CLEO.public
    named = {"member": member_id(key), "key": b64(key.raw), "name": "cleo", "role": "member"}
    return entry(mesh, "add", signer, **named)


async def append(mesh: Mesh, blob: bytes) -> None:
    await (await mesh.ready()).call(AppendEntry(entry=blob))


async def reached(mesh: Mesh, seq: int) -> None:
    with anyio.fail_after(LIMIT_S):
        while mesh.peer.trust.head.seq < seq:
            await anyio.lowlevel.checkpoint()


async def spoken(ada: Mesh, bob: Mesh, text: str) -> None:
    await ada.send("bob", text)
    assert [one.text for one in (await bob.inbox(wait_s=LIMIT_S)).messages] == [text]


async def problems(mesh: Mesh) -> list[str]:
    return [one.code for one in (await mesh.mesh_info()).problems]


async def both(twin: Twin) -> tuple[Mesh, Mesh]:
    return await twin.join("ada"), await twin.join("bob")


async def test_a_new_entry_reaches_every_session_and_talk_goes_on(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await both(twin)
        await spoken(ada, bob, "before")
        await append(ada, cleo_added(ada))
        await reached(ada, 2)
        await reached(bob, 2)
        assert (await bob.mesh_info()).members == 2
        await spoken(ada, bob, "after")
        assert await problems(ada) == await problems(bob) == []


async def test_a_session_that_was_away_learns_of_the_entry_when_it_returns(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        await append(ada, cleo_added(ada))
        bob = await twin.join("bob")
        assert bob.peer.trust.head.seq == 2
        await spoken(ada, bob, "hello")


async def test_an_entry_that_a_lying_broker_made_up_is_named_and_believed_by_nobody(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await both(twin)
        forged = cleo_added(ada, signer=CLEO)
        twin.lie = changed("meshes.log_grew", lambda body: body.update(entries=[b64(forged)]))
        await append(
            ada, entry(ada, "revoke_device", member=ada.peer.identity.member, device=b64(bytes(32)))
        )
        with anyio.fail_after(LIMIT_S):
            while "membership_forbidden" not in await problems(bob):
                await anyio.lowlevel.checkpoint()
        assert bob.peer.trust.head.seq == 1
        twin.lie = None
        await spoken(ada, bob, "the truth comes out with the next envelope")
        assert bob.peer.trust.head.seq == ada.peer.trust.head.seq == 2


async def test_a_device_that_was_revoked_is_written_to_by_nobody(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await both(twin)
        await spoken(ada, bob, "before")
        device = b64(bob.peer.certified().sign_key.fingerprint)
        member = ada.peer.identity.member
        await append(ada, entry(ada, "revoke_device", member=member, device=device))
        await reached(ada, 2)
        with pytest.raises(MeshError) as caught:
            await ada.send("bob", "not for a thief")
        assert caught.value.code == "device_revoked"


async def test_the_peers_of_two_members_talk_to_each_other(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        guest = await twin.admit("bob")
        bob = await guest.join("bob")
        await spoken(ada, bob, "welcome")
        await bob.send("ada", "thank you")
        [got] = (await ada.inbox(wait_s=LIMIT_S)).messages
        assert (got.handle, got.member) == ("bob", "bob")
        assert guest.member != ada.peer.identity.member
        assert await problems(ada) == await problems(bob) == []


async def test_a_second_home_is_there_before_anybody_of_the_first(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await (await twin.admit("bob")).join("bob")
        ada = await twin.join("ada")
        await spoken(ada, bob, "you were first")
