"""How often a peer asks who is meant: once for many, and again before the broker would refuse."""

from pathlib import Path

from claudemesh_mcp.audience import by_handle, one_who_answers
from claudemesh_mcp.sdk import Mesh
from tests.support.twin import a_mesh

OLD_MS = 41_000


class Answers:
    """Counts how often the broker said who is meant."""

    def __init__(self) -> None:
        self._count = 0

    def hear(self, text: str) -> str:
        """Let a text of the broker pass."""
        self._count += " messages.resolved " in text
        return text

    def since(self) -> int:
        """Give the count since the last time."""
        count, self._count = self._count, 0
        return count


async def texts(mesh: Mesh, count: int) -> list[str]:
    """Read so many messages."""
    found: list[str] = []
    while len(found) < count:
        found += [one.text for one in (await mesh.inbox(wait_s=20, limit=100)).messages]
    return found


async def test_what_grew_old_is_asked_for_together(tmp_path: Path) -> None:
    answers = Answers()
    async with a_mesh(tmp_path) as twin:
        ada, bob, cy = [await twin.join(name) for name in ("ada", "bob", "cy")]
        twin.lie = answers.hear
        for text in ("1", "2"):
            for name in ("bob", "cy"):
                await ada.send(name, text)
        assert answers.since() == 2
        for text in ("3", "4"):
            twin.clock.pass_ms(OLD_MS)
            for name in ("cy", "bob"):
                sent = await ada.send(name, text)
                assert [one.handle for one in sent.recipients] == [name]
            assert answers.since() == 1
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
        twice = [both[0], both[0]]
        assert one_who_answers(ada.peer, "cy", both, by_handle(both)) == 1
        assert one_who_answers(ada.peer, cy.peer.id, both, by_handle(both)) == 1
        assert one_who_answers(ada.peer, "bob", twice, by_handle(twice)) is None
        assert one_who_answers(ada.peer, "dee", both, by_handle(both)) is None
