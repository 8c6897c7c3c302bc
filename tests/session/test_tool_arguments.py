"""What the tools refuse before anything is asked of the mesh, and how they say it."""

from typing import Any

import pytest

from claudemesh_mcp import tools
from claudemesh_mcp.calls import CallContext
from claudemesh_wire.errors import Invalid, MeshError, NotFound

NO_MESH = object()


async def refused(name: str, **arguments: Any) -> MeshError:
    """Call a tool as a client would, and give what it refuses with."""
    with pytest.raises(MeshError) as caught:
        await tools.run(NO_MESH, name, arguments, CallContext())
    return caught.value


async def test_an_unknown_tool_is_not_found_and_the_nearest_is_named() -> None:
    error = await refused("sned")
    assert isinstance(error, NotFound)
    assert "send" in error.hint


@pytest.mark.parametrize(
    ("tool", "arguments", "parameter"),
    [
        ("send", {"text": "hello"}, "to"),
        ("send", {"to": "bob"}, "text"),
        ("send", {"to": "bob", "text": None}, "text"),
        ("send", {"to": 7, "text": "hello"}, "to"),
        ("send", {"to": ["bob", 7], "text": "hello"}, "to"),
        ("send", {"to": {"handle": "bob"}, "text": "hello"}, "to"),
        ("send", {"to": "bob", "text": ["hello"]}, "text"),
        ("send", {"to": "bob", "text": "hello", "priority": "urgent"}, "priority"),
        ("send", {"to": "bob", "text": "hello", "expires_in_s": 0}, "expires_in_s"),
        ("send", {"to": "bob", "text": "hello", "expires_in_s": 604_801}, "expires_in_s"),
        ("send", {"to": "bob", "text": "hello", "thread": "t" * 121}, "thread"),
        ("send", {"to": "bob", "text": "hello", "reply_to": "m" * 41}, "reply_to"),
        ("send", {"to": "bob", "text": "hello", "idempotency_key": "k" * 201}, "idempotency_key"),
        ("inbox", {"limit": 0}, "limit"),
        ("inbox", {"limit": 101}, "limit"),
        ("inbox", {"limit": "all"}, "limit"),
        ("inbox", {"wait_s": 61}, "wait_s"),
        ("inbox", {"wait_s": -1}, "wait_s"),
        ("inbox", {"wait_s": float("nan")}, "wait_s"),
        ("inbox", {"offset": -1}, "offset"),
        ("inbox", {"peek": "perhaps"}, "peek"),
        ("message_status", {}, "id"),
        ("history", {"query": "q" * 201}, "query"),
        ("history", {"limit": 0}, "limit"),
        ("history", {"with": ["ada"]}, "with"),
        ("history", {"thread": ""}, "thread"),
        ("search_peers", {"query": "q" * 201}, "query"),
        ("search_peers", {"limit": 101}, "limit"),
        ("search_peers", {"filters": "online"}, "filters"),
        ("search_peers", {"filters": {"status": "asleep"}}, "filters"),
        ("search_peers", {"filters": {"group": "no such name"}}, "filters"),
        ("search_peers", {"filters": {"colour": "red"}}, "filters"),
        ("set_profile", {"status": "away"}, "status"),
        ("set_profile", {"role": "r" * 81}, "role"),
        ("set_profile", {"summary": "s" * 501}, "summary"),
        ("set_profile", {"profile": ["no", "object"]}, "profile"),
        ("join", {}, "address"),
        ("join", {"address": "@" + "g" * 80}, "address"),
        ("join", {"address": "@shop", "role": "r" * 81}, "role"),
        ("leave", {"address": 7}, "address"),
    ],
)
async def test_a_wrong_argument_is_named_and_its_meaning_told(
    tool: str, arguments: dict[str, Any], parameter: str
) -> None:
    error = await refused(tool, **arguments)
    assert isinstance(error, Invalid)
    assert error.details["parameter"] == parameter
    assert parameter in error.reason
    assert error.hint


@pytest.mark.parametrize("tool", ["inbox", "search_peers", "mesh_info", "leave"])
async def test_an_argument_that_a_tool_does_not_have_is_refused(tool: str) -> None:
    address = {"address": "@shop"} if tool == "leave" else {}
    error = await refused(tool, **address, colour="red")
    assert isinstance(error, Invalid)
    assert "colour" in error.reason


async def test_a_misspelt_argument_is_answered_with_the_right_one() -> None:
    error = await refused("send", to="bob", text="hello", reply="msg_1")
    assert isinstance(error, Invalid)
    assert "reply_to" in error.hint


@pytest.mark.parametrize(
    "name",
    [
        "send",
        "inbox",
        "search_peers",
        "message_status",
        "set_profile",
        "join",
        "leave",
        "mesh_info",
        "history",
    ],
)
def test_a_tool_says_what_it_gives_and_what_it_does_to_the_world(name: str) -> None:
    tool = tools.find(name)
    assert tool.result is not None
    assert tool.result.model_fields
    assert tool.hints.read_only == (
        name in {"search_peers", "message_status", "mesh_info", "history"}
    )
    assert not tool.hints.destructive


def test_the_three_tools_of_every_exchange_are_always_loaded() -> None:
    core = [
        name
        for name in ("send", "inbox", "search_peers", "message_status", "set_profile", "mesh_info")
        if tools.find(name).meta.get("anthropic/alwaysLoad")
    ]
    assert core == ["send", "inbox", "search_peers"]


def test_a_full_inbox_stays_in_the_context() -> None:
    twenty_texts = 20 * 8 * 1024
    assert tools.find("inbox").meta["anthropic/maxResultSizeChars"] > twenty_texts
