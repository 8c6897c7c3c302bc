"""What a reader, a sender and a looker-on are shown: marks, pieces, proofs, what is left out."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.openrows import LEASE_MS
from claudemesh_wire.errors import Forbidden
from claudemesh_wire.handshake import Mode
from tests.support.lies import changed, refusing
from tests.support.twin import a_mesh

LIMIT_S = 20


async def test_a_row_whose_offer_ended_is_marked_when_one_only_looks(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        await ada.send("bob", "shown, perhaps")
        await bob.inbox(wait_s=LIMIT_S, call=Nobody())
        twin.clock.pass_ms(LEASE_MS)
        (looked,) = (await bob.inbox(peek=True)).messages
        assert looked.redelivered
        (taken,) = (await bob.inbox()).messages
        assert taken.redelivered


async def test_a_reader_slower_than_its_lease_shows_nothing_a_second_time(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        other = await twin.join("bob", Mode.CALL)
        for text in ("one", "two"):
            await ada.send("bob", text)
        stream = bob.messages()
        with anyio.fail_after(LIMIT_S):
            while len((await bob.inbox(peek=True)).messages) < 2:
                await anyio.lowlevel.checkpoint()
            assert (await anext(stream)).text == "one"
            twin.clock.pass_ms(LEASE_MS)
            assert [m.text for m in (await other.inbox(limit=9)).messages][-1] == "two"
            await ada.send("bob", "three")
            assert (await anext(stream)).text == "three"
            await stream.aclose()  # type: ignore[attr-defined]


async def test_reading_on_never_cuts_a_character(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        text = "é" * 6000
        await ada.send("bob", text)
        (message,) = (await bob.inbox(wait_s=LIMIT_S)).messages
        assert message.more_bytes == len(text.encode()) - len(message.text.encode())
        for offset in (8191, 8190):
            (rest,) = (await bob.inbox(id=message.id, offset=offset)).messages
            assert (rest.text, rest.more_bytes) == ("é" * (6000 - 4095), None)


async def test_a_recipient_that_nobody_sealed_to_is_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        await twin.join("bob")
        eve = await twin.join("eve")
        message = await ada.send("bob", "hello")

        def swap(body: dict[str, Any]) -> None:
            body["recipients"][0]["peer"] = eve.peer.id

        twin.lie = changed("receipts.status_found", swap)
        with pytest.raises(Forbidden) as caught:
            await ada.message_status(message.id)
        assert caught.value.code == "forged_receipt"


async def test_proofs_that_do_not_fit_into_one_answer_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("claudemesh_broker.features.receipts.MAX_PROOF_BYTES", 2500)
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        names = [f"peer-{number}" for number in range(7)]
        for name in names:
            await twin.join(name)
        message = await ada.send(names, "to all of you")
        with anyio.fail_after(LIMIT_S):
            while True:
                told = (await ada.message_status(message.id)).recipients
                if all(one.status == "delivered" for one in told):
                    break
        assert [one.handle for one in told] == [one.handle for one in message.recipients]
        assert all(one.proved for one in told)


async def test_what_the_broker_does_not_answer_is_left_out_of_mesh_info(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        twin.lie = refusing("meshes.facts")
        info = await ada.mesh_info()
        assert (info.me.handle, info.peers, info.broker.connected) == ("ada", None, True)


class Nobody:
    """A call whose result is never proved to have been shown."""

    def hands_out(self, tokens: Any) -> None:
        """Forget which rows the result shows."""
