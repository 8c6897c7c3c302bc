"""A session is killed, and another begins in its folder: real processes, as users see them."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tests.support.live import LIMIT_S, Live, LiveSession, a_moment, alive


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path, CLAUDEMESH_BROKER_LEASE_S="1") as live:
        yield live


async def until_gone(asker: LiveSession, name: str) -> None:
    """Wait until the lease of a peer has ended, as its news say."""
    with anyio.fail_after(LIMIT_S):
        while f"{name} left" not in [one["text"] for one in await news(asker)]:
            await a_moment()


async def news(asker: LiveSession) -> list[dict[str, str]]:
    return (await asker.call("mesh_info"))["news"]


async def test_a_session_in_the_folder_of_a_killed_one_reads_what_waited_for_it(
    live: Live, tmp_path: Path
) -> None:
    project = tmp_path / "shop"
    project.mkdir()
    here = {"CLAUDE_PROJECT_DIR": str(project)}
    bob = await live.join("bob")
    first = await live.join("shop", session="1", **here)
    late = (await first.call("mesh_info"))["me"]["peer"]
    await first.call("join", address="@team", role="lead")
    await first.call("set_profile", summary="the till", profile={"title": "Till"})
    had = await bob.call("send", to="shop", text="delivered, never read")
    await bob.reached("delivered", had)
    await first.kill()
    await until_gone(bob, "shop")
    sent = await bob.call("send", to="shop", text="while nobody was there")
    assert sent["recipients"][0]["status"] == "queued"
    second = await live.join("shop", session="2", **here)
    me = (await second.call("mesh_info"))["me"]
    assert (me["handle"], me["groups"], me["summary"]) == ("shop", ["@team"], "the till")
    assert me["profile"] == {"title": "Till"}
    assert me["peer"] != late
    read = await second.read(2)
    assert [one["text"] for one in read] == ["delivered, never read", "while nobody was there"]
    assert not any(one.get("redelivered") for one in read)
    # A further call is the evidence that the result of the one before was read.
    assert (await second.call("inbox"))["messages"] == []
    for message in (had, sent):
        row = await bob.reached("seen", message)
        assert (row["peer"], row["proved"]) == (late, True)
        assert row["successor"] == {"peer": me["peer"], "handle": "shop"}
    assert (await news(bob))[-1]["text"].startswith("shop is back, last seen ")
    # The killed one is resumed after all: it is a fork, with nothing of what the other has.
    fork = await live.join("shop", session="1", **here)
    forked = (await fork.call("mesh_info"))["me"]
    assert (forked["peer"], forked["handle"], forked["groups"]) == (late, "shop-2", [])
    assert (await fork.call("inbox"))["messages"] == []
    assert (await second.call("inbox"))["messages"] == []
