"""MCP servers at the broker: what is offered, to whom it is shown, and what others hear of it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from claudemesh_wire.grants import SetBlock
from claudemesh_wire.groups import JoinGroup
from claudemesh_wire.mcp_servers import (
    ListServers,
    Registration,
    UnregisterServer,
    definition_digest,
    read_definitions,
)
from claudemesh_wire.presence import Depart, UpdatePresence
from claudemesh_wire.server_news import ServerChanged
from tests.support.people import Mesh, Person
from tests.support.rawpeer import join
from tests.support.registering import (
    World,
    a_world,
    grant,
    let,
    names,
    offer,
    seen,
    told,
)
from tests.wire.world import code_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


async def test_what_is_offered_is_shown_as_it_was_signed(world: World) -> None:
    request = offer(world.ada, description="adds up")
    answer = await world.ada.call(request)
    assert (answer.full_name, answer.restored) == ("ada/sums", False)
    [card] = await seen(world.desk)
    assert (card.handle, card.name, card.online, card.host) == ("ada", "sums", True, "desk")
    assert (card.registration, card.certificate) == (request.registration, request.certificate)
    read = Registration.parse(card.registration)
    read.check(world.ada.certificate)
    assert read.definitions["tools"][0]["inputSchema"]["maximum"] == 2**70
    assert card.digest == read.digest


async def test_what_is_known_is_not_sent_again(world: World) -> None:
    await world.ada.call(offer(world.ada))
    [card] = await seen(world.desk)
    [again] = await seen(world.desk, known=[card.digest])
    assert (again.digest, again.registration, again.certificate) == (card.digest, b"", b"")


# Whether bob, an ordinary member in @ops as its lead, sees what is visible to these.
VISIBLE: list[tuple[list[str], bool]] = [
    (["own"], False),
    (["mesh"], True),
    (["@ops"], True),
    (["@ops:lead"], True),
    (["@ops:pilot"], False),
    (["@dev"], False),
    (["role:member"], True),
    (["role:admin"], False),
    (["@dev", "role:member"], True),
]


@pytest.mark.parametrize(("viewers", "is_seen"), VISIBLE)
async def test_a_server_is_shown_to_those_it_is_for(
    world: World,
    viewers: list[str],
    is_seen: bool,  # noqa: FBT001 - a column of the table
) -> None:
    await world.bob.call(JoinGroup(group="ops", role="lead"))
    await let(world.ada, world.bob)
    await world.ada.call(offer(world.ada, visible_to=viewers))
    assert await names(world.bob) == (["sums"] if is_seen else [])
    assert await names(world.desk) == ["sums"]
    assert bool(await told(world.bob, 0)) == is_seen
    assert await told(world.desk, 1) == [("registered", "sums")]


async def test_one_peer_may_be_meant_by_its_id(world: World) -> None:
    await let(world.ada, world.bob)
    await let(world.ada, world.cleo)
    await world.ada.call(offer(world.ada, visible_to=[world.cleo.peer]))
    assert (await names(world.bob), await names(world.cleo)) == ([], ["sums"])


async def test_a_member_without_the_grant_sees_and_hears_nothing(world: World) -> None:
    await world.ada.call(offer(world.ada, visible_to=["mesh"]))
    assert (await names(world.bob), await told(world.bob, 0)) == ([], [])
    await let(world.ada, world.bob)
    assert await names(world.bob) == ["sums"]
    await let(world.ada, world.bob, 2, allow=False)
    assert await names(world.bob) == []


async def test_a_blocked_member_sees_nothing(world: World) -> None:
    await let(world.ada, world.bob)
    await world.ada.call(SetBlock(member=world.bob.device.owner.id, blocked=True))
    await world.ada.call(offer(world.ada, visible_to=["mesh"]))
    assert await names(world.bob) == []


async def test_a_server_is_shown_with_the_grants_that_let_it_be_provided(world: World) -> None:
    await let(world.bob, world.cleo)
    await world.bob.call(offer(world.bob, visible_to=["mesh"]))
    await world.bob.call(offer(world.bob, "other", visible_to=["mesh"]))
    given = await grant(world.ada, world.bob, "tool", "provide:sums")
    await grant(world.cleo, world.bob, "tool", "provide:sum")
    shown = {one.name: one.grants for one in await seen(world.cleo)}
    assert shown == {"sums": [given], "other": []}
    known = [one.digest for one in await seen(world.cleo)]
    assert [one.grants for one in await seen(world.cleo, known=known)] == [[], [given]]
    await grant(world.ada, world.bob, "tool", seq=2)
    assert [one.grants for one in await seen(world.cleo)] == [[], []]


async def test_a_grant_to_provide_lets_nobody_see_or_call_anything(world: World) -> None:
    await grant(world.ada, world.bob, "provide:sums")
    await world.ada.call(offer(world.ada, visible_to=["mesh"]))
    assert (await names(world.bob), await told(world.bob, 0)) == ([], [])


async def test_two_peers_may_use_one_name_each_under_its_own(world: World) -> None:
    assert (await world.ada.call(offer(world.ada))).full_name == "ada/sums"
    assert (await world.desk.call(offer(world.desk))).full_name == "desk/sums"
    assert sorted(one.handle for one in await seen(world.desk)) == ["ada", "desk"]


async def test_a_taken_name_is_a_conflict_unless_it_is_replaced_on_purpose(world: World) -> None:
    first = offer(world.ada)
    await world.ada.call(first)
    await world.ada.call(first)
    changed = json.dumps({"tools": [{"name": "sub"}]})
    other = offer(world.ada, definitions=changed)
    assert (await world.ada.refused(other)).code == "name_taken"
    digest = Registration.parse(first.registration).digest
    await world.ada.call(offer(world.ada, definitions=changed, replaces=digest))
    assert await told(world.desk, 2) == [("registered", "sums"), ("changed", "sums")]
    assert world.desk.of(ServerChanged)[-1].tools == ["sub"]


async def test_what_is_taken_back_is_gone_and_told(world: World) -> None:
    await world.ada.call(offer(world.ada))
    await world.ada.call(UnregisterServer(name="sums"))
    assert await names(world.desk) == []
    assert await told(world.desk, 2) == [("registered", "sums"), ("unregistered", "sums")]
    assert (await world.ada.refused(UnregisterServer(name="sums"))).code == "unknown_server"


async def test_a_server_goes_with_its_peer_and_comes_back_with_it(world: World) -> None:
    await world.ada.call(offer(world.ada))
    await world.ada.call(offer(world.ada, "kept", persistent=True))
    await world.ada.call(Depart())
    await world.ada.link.close()
    assert sorted(await told(world.desk, 4))[:2] == [("offline", "kept"), ("offline", "sums")]
    [card] = await seen(world.desk)
    assert (card.name, card.online) == ("kept", False)
    again = await join(world.broker, world.ada.device)
    assert [(one.name, one.online) for one in await seen(world.desk)] == [("kept", False)]
    assert (await again.call(offer(again, "kept", persistent=True))).restored
    assert (await again.call(offer(again))).restored
    assert (await told(world.desk, 6))[-2:] == [("restored", "kept"), ("restored", "sums")]
    assert [one.online for one in await seen(world.desk)] == [True, True]


async def test_what_an_absent_peer_offered_any_of_its_member_takes_back(world: World) -> None:
    await world.ada.call(offer(world.ada, persistent=True, visible_to=["mesh"]))
    back = UnregisterServer(name="sums", peer=world.ada.peer)
    assert (await world.desk.refused(back)).code == "still_offered"
    await world.ada.link.close()
    await world.ada.link.served.wait()
    assert (await world.bob.refused(back)).code == "unknown_server"
    assert await names(world.desk) == ["sums"]
    await world.desk.call(back)
    assert await names(world.desk) == []
    assert (await world.desk.refused(back)).code == "unknown_server"


async def test_of_a_peer_without_a_connection_one_hears_since_when(world: World) -> None:
    await world.ada.call(offer(world.ada))
    world.broker.clock.pass_ms(5000)
    await world.ada.link.close()
    await world.ada.link.served.wait()
    left_ms = world.broker.clock.now_ms
    world.broker.clock.pass_ms(5000)
    [card] = await seen(world.desk)
    assert (card.online, card.since_ms) == (False, left_ms)


async def test_a_connection_that_broke_is_no_news(world: World) -> None:
    request = offer(world.ada, persistent=True)
    await world.ada.call(request)
    await world.ada.link.close()
    await world.ada.link.served.wait()
    again = await join(world.broker, world.ada.device)
    await again.call(offer(again, persistent=True))
    assert await told(world.desk, 1) == [("registered", "sums")]


async def test_what_another_connection_did_not_offer_again_is_gone(world: World) -> None:
    await world.ada.call(offer(world.ada))
    await world.ada.link.close()
    await world.ada.link.served.wait()
    again = await join(world.broker, world.ada.device)
    assert await names(world.desk) == []
    await again.call(offer(again))
    assert await names(world.desk) == ["sums"]
    assert await told(world.desk, 1) == [("registered", "sums")]


async def test_who_hides_offers_on_without_a_word_of_where(world: World) -> None:
    await let(world.ada, world.bob)
    await world.ada.call(offer(world.ada, visible_to=["mesh"]))
    await world.ada.call(UpdatePresence(visible=False))
    [card] = await seen(world.bob)
    assert (card.online, card.host) == (True, "")
    assert await told(world.bob, 1) == [("registered", "sums")]


async def test_nobody_offers_for_another_or_with_a_forged_signature(world: World) -> None:
    assert (await world.bob.refused(offer(world.ada))).code == "wrong_peer"
    forged = offer(world.ada, signer=world.bob)
    assert (await world.ada.refused(forged)).code == "forged_registration"
    strange = offer(world.ada, mesh=Mesh(Person("eve")).id)
    assert (await world.ada.refused(strange)).code == "forged_registration"
    assert await names(world.ada) == []


async def test_a_peer_offers_32_at_most(world: World) -> None:
    for number in range(32):
        await world.ada.call(offer(world.ada, f"s{number}"))
    assert (await world.ada.refused(offer(world.ada, "s32"))).code == "too_many_servers"
    await world.ada.call(UnregisterServer(name="s0"))
    await world.ada.call(offer(world.ada, "s32"))


async def test_a_long_list_comes_in_pages_that_fit_into_frames(world: World) -> None:
    large = json.dumps({"tools": [{"name": "big", "description": "x" * 200_000}]})
    for number in range(7):
        await world.ada.call(offer(world.ada, f"s{number}", definitions=large))
    found, after, pages = list[str](), "", 0
    while after is not None:
        page = await world.desk.call(ListServers(after=after))
        found += [one.name for one in page.servers]
        after, pages = page.next_after, pages + 1
    assert (found, pages) == ([f"s{number}" for number in range(7)], 4)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"name": "Sums"}, "malformed"),
        ({"name": "a/b"}, "malformed"),
        ({"visible_to": []}, "malformed"),
        ({"visible_to": ["everybody"]}, "bad_viewer"),
        ({"visible_to": ["@"]}, "bad_viewer"),
        ({"definitions": "no json"}, "bad_definitions"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    world: World, said: dict[str, Any], code: str
) -> None:
    honest = offer(world.ada)
    fields = {**json.loads(honest.registration[:-64]), **said}
    payload = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    blob = payload + world.ada.device.sign.sign("claudemesh/mcp-server/v1", payload)
    request = honest.model_copy(update={"registration": blob})
    assert (await world.ada.refused(request)).code == code


def deep(levels: int) -> Any:
    """Give lists within lists."""
    return [deep(levels - 1)] if levels > 1 else [0]


@pytest.mark.parametrize(
    "definitions",
    [
        [],
        {"tools": {}},
        {"tools": ["add"]},
        {"tools": [{"title": "no name"}]},
        {"tools": [{"name": "a"}, {"name": "a"}]},
        {"tools": [{"name": f"t{number}"} for number in range(257)]},
        {"prompts": 7},
        {"tools": [{"name": "o\ud83d"}]},
        {"tools": [{"name": "a", "description": "x\ud83dy"}]},
        {"tools": [{"name": "a", "inputSchema": {"properties": {"a\ud83d": {}}}}]},
        {"tools": [{"name": "a", "inputSchema": {"maximum": float("nan")}}]},
        {"resources": [{"name": "o\ud83d"}]},
        {"tools": [{"name": "n" * 201}]},
        {"tools": [{"name": "a\nb"}]},
        {"tools": [{"name": "a\u202eb"}]},
        {"tools": [{"name": "a\u200b"}]},
        {"tools": [{"name": "a\u3164"}]},
        {"tools": [{"name": "a", "x": deep(100)}]},
    ],
)
def test_definitions_are_lists_of_objects_with_names(definitions: Any) -> None:
    assert code_of(lambda: read_definitions(json.dumps(definitions))) == "bad_definitions"


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "n" * 200},
        {"name": "größer ☃ 試す"},
        {"name": "a", "description": "two\nlines\u200b"},
        {"name": "a", "x": deep(99)},
    ],
)
def test_definitions_that_can_be_shown_are_read(tool: Any) -> None:
    assert read_definitions(json.dumps({"tools": [tool]}))["tools"] == [tool]


async def test_a_name_that_can_not_be_told_is_refused_before_it_is_kept(world: World) -> None:
    request = offer(world.ada, definitions=json.dumps({"tools": [{"name": "o\ud83d"}]}))
    assert (await world.ada.refused(request)).code == "bad_definitions"
    assert await names(world.desk) == []


async def test_what_an_earlier_broker_kept_without_sense_is_replaced_by_what_has_some(
    world: World,
) -> None:
    first = offer(world.ada)
    await world.ada.call(first)
    await world.broker.parts.store.write(
        lambda sql: sql.execute("UPDATE mcp_servers SET registration = ?", b"x" * 100)
    )
    again = offer(world.ada, definitions=json.dumps({"tools": [{"name": "sub"}]}))
    kept = Registration.parse(first.registration).digest
    await world.ada.call(again.model_copy(update={"replaces": kept}))
    [card] = await seen(world.desk)
    assert [one["name"] for one in Registration.parse(card.registration).definitions["tools"]] == [
        "sub"
    ]


def test_a_definition_is_summed_up_whatever_the_order_of_its_keys() -> None:
    one = {"name": "a", "inputSchema": {"type": "object", "required": ["x"]}}
    same = {"inputSchema": {"required": ["x"], "type": "object"}, "name": "a"}
    assert definition_digest(one) == definition_digest(same)
    assert definition_digest(one) != definition_digest({**one, "description": ""})
