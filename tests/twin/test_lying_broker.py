"""A broker that lies: each lie is detected, named, and nothing is sent or shown on its word."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from claudemesh_mcp import outbox
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import Conflict, Forbidden, MeshError, Unauthenticated
from claudemesh_wire.keys import b64
from claudemesh_wire.receipts import ReceiptItem, ReceiptStatus, sign_receipts
from tests.support.lies import changed
from tests.support.people import Device, Person
from tests.support.people import Mesh as People
from tests.support.twin import a_mesh
from tests.twin.test_membership import CLEO as CLEOS_KEY
from tests.twin.test_membership import append, cleo_added, reached

LIMIT_S = 20
CLEO = Person("cleo", CLEOS_KEY)


async def problem(mesh: Mesh, code: str) -> str:
    """Wait until something was detected."""
    with anyio.fail_after(LIMIT_S):
        while True:
            for one in (await mesh.mesh_info()).problems:
                if one.code == code:
                    return one.message
            await anyio.lowlevel.checkpoint()


async def test_a_certificate_swapped_behind_a_name_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, eve = await twin.join("ada"), await twin.join("eve")
        await twin.join("bob")
        own = eve.peer.certified().blob

        def swap(body: dict[str, Any]) -> None:
            body["recipients"][0]["certificate"] = b64(own)

        twin.lie = changed("messages.resolved", swap)
        with pytest.raises(Forbidden) as caught:
            await ada.send("bob", "secret")
        assert caught.value.code == "audience_forged"
        await problem(ada, "audience_forged")
        twin.lie = None
        assert (await eve.inbox()).messages == []


async def test_another_peer_answering_to_a_name_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, eve = await twin.join("ada"), await twin.join("eve")
        await twin.join("bob")
        resolved: list[dict[str, Any]] = []
        twin.lie = changed("messages.resolved", resolved.append)
        await ada.send("eve", "what eve looks like")
        twin.lie = changed("messages.resolved", lambda body: body.update(resolved[0]))
        with pytest.raises(Forbidden) as caught:
            await ada.send("bob", "secret")
        assert caught.value.code == "audience_forged"
        twin.lie = None
        got = await eve.inbox(wait_s=LIMIT_S)
        assert [one.text for one in got.messages] == ["what eve looks like"]


async def test_an_added_recipient_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        await twin.join("eve")
        await twin.join("bob")
        seen: list[dict[str, Any]] = []
        twin.lie = changed("messages.resolved", seen.append)
        await ada.send("eve", "what eve looks like")
        extra = seen[0]["recipients"][0]
        twin.lie = changed("messages.resolved", lambda body: body["recipients"].append(extra))
        with pytest.raises(Forbidden) as caught:
            await ada.send("bob", "secret")
        assert caught.value.code == "audience_forged"


async def test_an_invented_seen_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        async with twin.open("bob") as bob:
            await bob.ready()
        sent = await ada.send("bob", "hello")

        def invent(body: dict[str, Any]) -> None:
            body["recipients"][0]["status"] = "seen"

        twin.lie = changed("receipts.status_found", invent)
        with pytest.raises(Forbidden) as caught:
            await ada.message_status(sent.id)
        assert caught.value.code == "forged_receipt"


async def test_a_receipt_for_another_message_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        first = await ada.send("bob", "one")
        await bob.inbox(wait_s=LIMIT_S)
        await bob.confirm()
        with anyio.fail_after(LIMIT_S):
            while (await ada.message_status(first.id)).recipients[0].status != "seen":
                await anyio.lowlevel.checkpoint()
        kept: list[dict[str, Any]] = []
        twin.lie = changed("receipts.status_found", kept.append)
        await ada.message_status(first.id)
        twin.lie = None
        await bob.depart()
        second = await ada.send("bob", "two")

        def replay(body: dict[str, Any]) -> None:
            body["recipients"][0]["status"] = "seen"
            body["recipients"][0]["seen"] = kept[0]["recipients"][0]["seen"]

        twin.lie = changed("receipts.status_found", replay)
        with pytest.raises(Forbidden) as caught:
            await ada.message_status(second.id)
        assert caught.value.code == "forged_receipt"


async def test_a_shorter_membership_log_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        await twin.join("bob")

        def shorten(body: dict[str, Any]) -> None:
            body["head_seq"] = 0

        twin.lie = changed("messages.resolved", shorten)
        with pytest.raises(Conflict) as caught:
            await ada.send("bob", "hello")
        assert caught.value.code == "membership_rollback"
        await problem(ada, "membership_rollback")


async def test_another_history_of_the_same_length_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        await twin.join("bob")
        other = b64(bytes(32))
        twin.lie = changed("messages.resolved", lambda body: body.update(head=other))
        with pytest.raises(Conflict) as caught:
            await ada.send("bob", "hello")
        assert caught.value.code == "membership_rollback"


async def test_a_dropped_message_leaves_a_gap_that_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        await ada.send("bob", "one")
        await bob.inbox(wait_s=LIMIT_S)
        twin.lie = lambda text: None if " messages.deliver " in text else text
        second = await ada.send("bob", "two")
        twin.lie = None
        await twin.broker.sql("SELECT 1")
        await twin.broker.parts.store.write(
            lambda sql: sql.execute(
                "DELETE FROM deliveries WHERE seq = (SELECT seq FROM messages WHERE id = ?)",
                second.id,
            )
        )
        await ada.send("bob", "three")
        got = await bob.inbox(wait_s=LIMIT_S)
        assert [one.text for one in got.messages] == ["three"]
        assert ada.peer.id in await problem(bob, "message_gap")


async def test_a_peer_shown_under_a_false_name_is_left_out_and_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        await twin.join("bob")

        def rename(body: dict[str, Any]) -> None:
            for card in body["peers"]:
                card["handle"] = {"bob": "alice"}.get(card["handle"], card["handle"])

        twin.lie = changed("search.peers_found", rename)
        found = await ada.search_peers()
        assert [one.handle for one in found.peers] == ["ada"]
        twin.lie = None
        await problem(ada, "certificate_swapped")


async def test_another_broker_under_the_same_address_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        other = b64(bytes([9]) * 32)
        twin.lie = changed("handshake.challenge", lambda body: body.update(key=other))
        async with twin.open("ada") as ada:
            with pytest.raises(Unauthenticated) as caught:
                await ada.ready(1)
            assert caught.value.code == "wrong_broker"


@pytest.mark.parametrize("field", ["facts", "signature", "token_mac"])
async def test_a_welcome_that_is_not_the_brokers_own_is_refused(tmp_path: Path, field: str) -> None:
    async with a_mesh(tmp_path) as twin:

        def spoil(body: dict[str, Any]) -> None:
            body[field] = body[field][:-4] + ("AAAA" if body[field][-4:] != "AAAA" else "BBBB")

        twin.lie = changed("handshake.welcome", spoil)
        async with twin.open("ada") as ada:
            with pytest.raises(MeshError) as caught:
                await ada.ready(1)
            assert caught.value.code == "wrong_broker"


async def test_a_message_shown_twice_by_the_broker_is_shown_once(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        twin.lie = changed(
            "messages.deliver", lambda body: body["deliveries"].extend(body["deliveries"])
        )
        await ada.send("bob", "once")
        got = await bob.inbox(wait_s=LIMIT_S)
        assert [one.text for one in got.messages] == ["once"]
        assert (await bob.inbox()).messages == []


async def test_a_successor_of_another_member_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        async with twin.open("bob") as bob:
            await bob.ready()
            own = bob.peer.certified()
        sent = await ada.send("bob", "hello")
        await append(ada, cleo_added(ada))
        await reached(ada, 2)
        row = await ada.peer.file.read(lambda sql: outbox.get(sql, sent.id))
        cleos = Device(cast("People", SimpleNamespace(id=ada.peer.trust.mesh)), CLEO, "cleo")
        item = ReceiptItem(
            id=sent.id, header_hash=row.header_hash, status=ReceiptStatus.SEEN, at_ms=twin.clock()
        )
        device = cleos.certificate("bob", twin.clock())
        batch = sign_receipts(ada.peer.trust.mesh, ada.peer.id, [item], cleos.sign, device)

        def invent(body: dict[str, Any], proof: bytes) -> None:
            told = json.loads(batch.model_dump_json())
            body["recipients"][0] |= {"status": "seen", "seen": told, "certificate": b64(proof)}
            body["certificates"].append(b64(device.blob))

        for proof in (own.blob, device.blob):
            twin.lie = changed("receipts.status_found", partial(invent, proof=proof))
            with pytest.raises(Forbidden) as caught:
                await ada.message_status(sent.id)
            assert caught.value.code == "forged_receipt"
        # Without the recipient's certificate nothing is proved, in either direction.
        twin.lie = changed("receipts.status_found", partial(invent, proof=b""))
        assert [one.proved for one in (await ada.message_status(sent.id)).recipients] == [False]
