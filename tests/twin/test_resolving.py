"""How often a peer asks who is meant: once for many, and again before the broker would refuse."""

import logging
from pathlib import Path

import pytest

from claudemesh_mcp.audience import one_who_answers
from claudemesh_mcp.sdk import Mesh
from tests.support.twin import a_mesh

OLD_MS = 41_000


def resolves(caplog: pytest.LogCaptureFixture) -> int:
    """Count how often the broker was asked who is meant since the last time."""
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return sum("kind=messages.resolve " in line for line in lines)


async def texts(mesh: Mesh, count: int) -> list[str]:
    """Read so many messages."""
    found: list[str] = []
    while len(found) < count:
        found += [one.text for one in (await mesh.inbox(wait_s=20, limit=100)).messages]
    return found


async def test_what_grew_old_is_asked_for_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob, cy = [await twin.join(name) for name in ("ada", "bob", "cy")]
        caplog.set_level(logging.INFO, "claudemesh_broker.service")
        for text in ("1", "2"):
            for name in ("bob", "cy"):
                await ada.send(name, text)
        assert resolves(caplog) == 2
        for text in ("3", "4"):
            twin.clock.pass_ms(OLD_MS)
            for name in ("cy", "bob"):
                sent = await ada.send(name, text)
                assert [one.handle for one in sent.recipients] == [name]
            assert resolves(caplog) == 1
        assert await texts(bob, 4) == await texts(cy, 4) == ["1", "2", "3", "4"]


async def test_who_is_gone_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob, cy = [await twin.join(name) for name in ("ada", "bob", "cy")]
        for text in ("1", "2"):
            for name in ("bob", "cy"):
                await ada.send(name, text)
        twin.lie = lambda text: None if text.startswith("0 0 presence.") else text
        await cy.set_profile(handle="dee")
        twin.clock.pass_ms(OLD_MS)
        await ada.send("bob", "3")
        assert await texts(bob, 3) == ["1", "2", "3"]


async def test_of_several_peers_that_answer_to_an_address_none_is_chosen(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob, cy = [await twin.join(name) for name in ("ada", "bob", "cy")]
        both = [mesh.peer.certified() for mesh in (bob, cy)]
        assert one_who_answers(ada.peer, "cy", both) == 1
        assert one_who_answers(ada.peer, cy.peer.id, both) == 1
        assert one_who_answers(ada.peer, "bob", [both[0], both[0]]) is None
        assert one_who_answers(ada.peer, "dee", both) is None
