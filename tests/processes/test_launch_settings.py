"""What a session is started with: which tools it lists, and what reaches it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.live import Live, LiveSession, alive


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path) as live:
        yield live


async def listed(session: LiveSession) -> set[str]:
    return {tool.name for tool in (await session.client.list_tools()).tools}


async def test_a_session_lists_the_sets_of_tools_it_was_started_with_and_serves_all(
    live: Live,
) -> None:
    ada = await live.open("ada", "--toolsets", "groups,receipts")
    assert await listed(ada) == {"join", "leave", "message_status"}
    assert (await ada.call("search_peers"))["total"] == 1


async def test_a_set_of_tools_that_there_is_not_is_named_by_every_call(live: Live) -> None:
    ada = await live.open("ada", CLAUDEMESH_TOOLSETS="core,gruops")
    refusal = await ada.refusal("search_peers")
    assert refusal["code"] == "config_invalid"
    assert "gruops" in refusal["message"]
    assert "groups" in refusal["hint"]
    assert await ada.end() == 0


@pytest.mark.parametrize(
    ("settings", "is_reached"),
    [
        ({"CLAUDE_CODE_ENTRYPOINT": "sdk-cli", "CLAUDE_CODE_SESSION_ATTENDED": "0"}, False),
        ({"CLAUDE_CODE_ENTRYPOINT": "sdk-cli", "CLAUDEMESH_MULTICAST": "on"}, True),
    ],
)
async def test_what_goes_to_many_goes_to_a_run_of_one_prompt_only_if_it_is_launched_for_it(
    live: Live, settings: dict[str, str], *, is_reached: bool
) -> None:
    ada, bob = await live.join_all("ada", "bob")
    run = await live.join("run", **settings)
    await run.call("join", address="@ops")
    await bob.call("join", address="@ops")
    for address in ("*", "@ops"):
        sent = await ada.call("send", to=address, text="to many")
        reached = {one["handle"] for one in sent["recipients"]}
        assert reached == ({"bob", "run"} if is_reached else {"bob"})
    direct = await ada.call("send", to="run", text="to you")
    many = 2 if is_reached else 0
    assert [one["text"] for one in await run.read(many + 1)] == ["to many"] * many + ["to you"]
    assert (await ada.reached("delivered", direct))["handle"] == "run"
