"""Two real sessions and a real broker, as two independent MCP clients see them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.live import Live, alive


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path) as live:
        yield live


async def test_two_sessions_exchange_a_message_and_signed_receipts(live: Live) -> None:
    ada, bob = await live.join("ada"), await live.join("bob")
    sent = await ada.call("send", to="bob", text="Which branch?")
    assert [(one["handle"], one["e2e"]) for one in sent["recipients"]] == [("bob", True)]
    delivered = await ada.reached("delivered", sent)
    assert delivered["proved"]
    (got,) = await bob.read(1)
    answer = await bob.call("send", to=got["from"], text="main", reply_to=got["id"])
    seen = await ada.reached("seen", sent)
    assert (seen["proved"], seen["route"]) == (True, "tool")
    assert delivered["accepted_at"] <= seen["delivered_at"] <= seen["seen_at"]
    (back,) = await ada.read(1)
    assert (back["id"], back["reply_to"], back["text"]) == (answer["id"], sent["id"], "main")
