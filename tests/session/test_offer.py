"""What a session costs a model's context, and which tools and capabilities it offers."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.front import RefusingSession, open_front
from claudemesh_mcp.offer import INSTRUCTIONS, Offer, offer_for
from claudemesh_mcp.tools import ALWAYS_LOAD
from claudemesh_wire.errors import Invalid
from tests.support.mcp_client import Desk, connected

CORE: Final = {"send", "inbox", "search_peers"}
GROUPS: Final = {"join", "leave"}
MODEL_READS: Final = ("name", "description", "inputSchema")


def size(tools: Iterable[dict[str, Any]]) -> int:
    """How many bytes of these definitions a model reads."""
    read = ({key: tool[key] for key in MODEL_READS} for tool in tools)
    return sum(len(json.dumps(one, ensure_ascii=False).encode()) for one in read)


def names(offer: Offer) -> set[str]:
    return {tool["name"] for tool in offer.tools}


def test_the_tools_that_are_always_loaded_cost_at_most_4_kilobytes() -> None:
    always = [tool for tool in Offer().tools if tool.get("_meta", {}).get(ALWAYS_LOAD)]
    assert {tool["name"] for tool in always} == CORE
    assert size(always) <= 4 * 1024


def test_all_tools_cost_at_most_24_kilobytes() -> None:
    assert size(Offer().tools) <= 24 * 1024


async def test_the_whole_list_of_tools_is_at_most_40_kilobytes_on_the_wire() -> None:
    async with connected(Desk(), offer=Offer()) as client:
        await client.request("tools/list")
        listed = client.pipe.written[-1]
    assert b'"send"' in listed
    assert len(listed) <= 40 * 1024


def test_the_instructions_are_short_and_tell_not_to_poll_what_is_pushed() -> None:
    assert len(INSTRUCTIONS) <= 2000
    assert "pushed" in INSTRUCTIONS
    assert "don't poll" in INSTRUCTIONS


@pytest.mark.parametrize(
    ("chosen", "listed"),
    [
        (("core",), CORE),
        (("groups",), GROUPS),
        (("core", "groups"), CORE | GROUPS),
        (("receipts", "history"), {"message_status", "history"}),
    ],
)
def test_only_the_sets_that_were_chosen_are_listed(
    chosen: tuple[str, ...], listed: set[str]
) -> None:
    assert names(offer_for(Settings(toolsets=chosen))) == listed


def test_without_a_choice_every_tool_is_listed() -> None:
    assert names(offer_for(Settings())) == Offer().names
    assert Offer().names > CORE | GROUPS


async def test_a_tool_outside_the_sets_can_still_be_called() -> None:
    definitions = {
        "tools": [{"name": "echo"}, {"name": "count"}],
        "features": {"echo": "words", "count": "numbers"},
    }
    offer = Offer("", json.dumps(definitions).encode(), sets=("words",))
    async with connected(Desk(), offer=offer) as client:
        listed = await client.request("tools/list")
        counted = await client.call("count")
    assert [tool["name"] for tool in listed["result"]["tools"]] == ["echo"]
    assert "isError" not in counted


async def test_a_set_that_there_is_not_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        offer_for(Settings(toolsets=("core", "gruops")))
    assert caught.value.code == "config_invalid"
    assert "gruops" in caught.value.reason
    assert {"all", "core", "groups", "messages"} <= set(
        caught.value.hint.rpartition(":")[2].strip(" .").split(", ")
    )
    # A session that was started so lives on to say it.
    session, _ = open_front({"toolsets": "gruops", "home": tmp_path})
    assert isinstance(session, RefusingSession)


async def test_the_channel_is_declared_and_the_permission_relay_is_not() -> None:
    async with connected(Desk(), offer=offer_for(Settings()), greeted=False) as client:
        capabilities = (await client.greet())["result"]["capabilities"]
    assert capabilities["experimental"] == {"claude/channel": {}}


async def test_a_channel_that_is_switched_off_is_not_declared() -> None:
    offer = offer_for(Settings(channel=False))
    async with connected(Desk(), offer=offer, greeted=False) as client:
        capabilities = (await client.greet())["result"]["capabilities"]
    assert "experimental" not in capabilities
