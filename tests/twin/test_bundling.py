"""What is sent at the same time goes to the broker together, and what one meets stays its own."""

from pathlib import Path

import anyio

from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from tests.support.twin import a_mesh

MANY = 12


class Requests:
    """Counts how the messages came to the broker, by what it answered."""

    def __init__(self) -> None:
        self.alone = self.bundles = 0

    def hear(self, text: str) -> str:
        """Let a text of the broker pass."""
        self.alone += " messages.accepted " in text
        self.bundles += " messages.bundle " in text
        return text


async def send_at_once(mesh: Mesh, to: list[str]) -> list[str]:
    """Send a text to each at the same time; gives the codes of those that were refused."""
    codes: list[str] = []

    async def send(place: int, name: str) -> None:
        try:
            await mesh.send(name, f"{place}")
        except MeshError as error:
            codes.append(error.code)

    async with anyio.create_task_group() as tasks:
        for place, name in enumerate(to):
            tasks.start_soon(send, place, name)
    return codes


async def read(mesh: Mesh, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        found += [one.text for one in (await mesh.inbox(wait_s=20, limit=100)).messages]
    return sorted(found)


async def test_what_is_sent_at_the_same_time_goes_together(tmp_path: Path) -> None:
    requests = Requests()
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        names = [f"peer-{number}" for number in range(MANY)]
        peers = [await twin.join(name) for name in names]
        assert await send_at_once(ada, names) == []
        for place, peer in enumerate(peers):
            assert await read(peer, 1) == [str(place)]
        twin.lie = requests.hear
        assert await send_at_once(ada, names) == []
        # Not always one: what is sealed a turn of the loop later does not go along.
        assert requests.bundles >= 1
        assert requests.alone + requests.bundles < MANY


async def test_a_single_message_goes_by_itself(tmp_path: Path) -> None:
    requests = Requests()
    async with a_mesh(tmp_path) as twin:
        ada, bob = [await twin.join(name) for name in ("ada", "bob")]
        twin.lie = requests.hear
        await ada.send("bob", "hello")
        assert (requests.alone, requests.bundles) == (1, 0)
        assert await read(bob, 1) == ["hello"]


async def test_a_broker_that_knows_no_bundles_is_sent_one_after_the_other(tmp_path: Path) -> None:
    requests = Requests()

    def as_before(text: str) -> str:
        requests.hear(text)
        number, answers, kind, _ = text.split(" ", 3)
        if kind != "messages.bundle":
            return text
        body = '{"category":"invalid","code":"unsupported","reason":"Not known here."}'
        return f"{number} {answers} refused {body}"

    async with a_mesh(tmp_path) as twin:
        ada, bob, cy = [await twin.join(name) for name in ("ada", "bob", "cy")]
        assert await send_at_once(ada, ["bob", "cy"]) == []
        twin.lie = as_before
        assert await send_at_once(ada, ["bob", "cy"]) == []
        assert await send_at_once(ada, ["bob", "cy"]) == []
        assert requests.bundles <= 1
        # What the broker had taken under the bundle is the same message, and comes once.
        assert await read(bob, 3) == ["0", "0", "0"]
        assert await read(cy, 3) == ["1", "1", "1"]


async def test_what_the_broker_says_too_little_of_is_sent_again(tmp_path: Path) -> None:
    lied: list[str] = []

    def cut(text: str) -> str:
        number, answers, kind, _ = text.split(" ", 3)
        if kind != "messages.bundle" or lied:
            return text
        lied.append(text)
        return f'{number} {answers} {kind} {{"outcomes":[]}}'

    async with a_mesh(tmp_path) as twin:
        ada, bob, cy = [await twin.join(name) for name in ("ada", "bob", "cy")]
        assert await send_at_once(ada, ["bob", "cy"]) == []
        twin.lie = cut
        assert await send_at_once(ada, ["bob", "cy"]) == []
        assert await read(bob, 2) == ["0", "0"]
        assert await read(cy, 2) == ["1", "1"]
