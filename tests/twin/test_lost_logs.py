"""A broker that lost a membership log, or its end: who brings it back, and when it is too late."""

import shutil
from pathlib import Path

import pytest

from claudemesh_wire.entries import Entry, EntryFields
from claudemesh_wire.errors import MeshError
from claudemesh_wire.keys import b64
from claudemesh_wire.membership import Chain
from tests.support.twin import Guest, Twin, a_mesh
from tests.twin.test_membership import append, entry, reached

FRAME_BYTES = 1024 * 1024
FILLER = "x" * 4096


def grow(twin: Twin, chain: Chain, load: int) -> Chain:
    """Let the founder revoke devices that never were until the log holds so many bytes more."""
    identity = twin.identity
    while load > 0:
        said = EntryFields(
            mesh=chain.mesh,
            seq=chain.head.seq + 1,
            prev=b64(chain.head.hash),
            at=twin.clock.now_ms,
            kind="revoke_device",
            by=identity.member,
            member=identity.member,
            device=b64(chain.head.hash),
            proof=FILLER,  # Nobody reads it here; each entry costs a signature and three checks.
        )
        blob = Entry.issue(said, identity.key).blob
        chain = chain.extend([blob])
        load -= len(blob)
    return chain


@pytest.mark.parametrize("lost", ["all", "end"])
async def test_a_log_that_no_frame_holds_is_brought_back(tmp_path: Path, lost: str) -> None:
    async with a_mesh(tmp_path) as twin, twin.open("ada") as ada:
        await ada.ready()
        chain = grow(twin, ada.peer.trust.chain, FRAME_BYTES)
        ada.peer.trust.extend(chain.entries)
    if lost == "all":
        shutil.rmtree(tmp_path / "broker")
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        assert ada.peer.trust.head == chain.head
        assert (await twin.broker.parts.roster.load(chain.mesh) or chain.mesh) == chain


async def before_the_ban(folder: Path) -> None:
    """Let ada ban bob, and put back the broker's data of the moment before."""
    data, backup = folder / "broker", folder / "backup"
    async with a_mesh(folder) as twin:
        await twin.join("ada")
        bob = await twin.admit("bob")
        async with bob.open("bob") as peer:
            await peer.ready()
    shutil.copytree(data, backup)
    async with a_mesh(folder) as twin:
        ada = await twin.join("ada")
        await append(ada, entry(ada, "remove", member=bob.member))
        await reached(ada, 3)
    put_back(folder)


def put_back(folder: Path) -> None:
    shutil.rmtree(folder / "broker")
    shutil.copytree(folder / "backup", folder / "broker")


async def refusal(person: Twin | Guest, name: str) -> str:
    with pytest.raises(MeshError) as caught:
        async with person.open(name) as mesh:
            await mesh.ready()
    return caught.value.code


async def test_a_ban_that_a_restored_broker_forgot_comes_back_with_whom_knows_of_it(
    tmp_path: Path,
) -> None:
    await before_the_ban(tmp_path)
    async with a_mesh(tmp_path) as twin:
        await twin.join("ada")
        assert await refusal(Guest(twin, tmp_path / "home-bob", "bob"), "bob") == "member_removed"


async def test_what_a_banned_member_signs_on_a_restored_broker_is_a_fork_that_is_named(
    tmp_path: Path,
) -> None:
    await before_the_ban(tmp_path)
    async with a_mesh(tmp_path) as twin:
        # Nobody who knows of the ban was here yet.
        bob = await Guest(twin, tmp_path / "home-bob", "bob").join("bob")
        device = b64(bytes(32))
        await append(bob, entry(bob, "revoke_device", member=bob.peer.member.id, device=device))
        assert await refusal(twin, "ada") == "membership_fork"
    # Ada's home has kept what it verified: with another restore she is the first.
    put_back(tmp_path)
    async with a_mesh(tmp_path) as twin:
        await twin.join("ada")
        assert await refusal(Guest(twin, tmp_path / "home-bob", "bob"), "bob") == "member_removed"
