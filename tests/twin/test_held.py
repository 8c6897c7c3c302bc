"""Between two members: what is held, how it is let through, and what may wake."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp import inbox, policy
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.handshake import Mode
from claudemesh_wire.membership import EntryKind
from claudemesh_wire.message import Role
from tests.support.lies import changed
from tests.support.twopeople import World, code, got, kept, reached, status_of, two_people


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with two_people(tmp_path) as world:
        yield world


async def test_what_lacks_a_grant_is_held_and_its_sender_told_the_command(world: World) -> None:
    await world.revoke("message")
    sent = await world.bob.send("ada", "psst")
    [to] = sent.recipients
    assert to.status == "held"
    assert to.hint is not None
    command = f"claudemesh --mesh {world.ada.peer.identity.mesh} allow bob"
    assert to.hint.endswith(command)
    status = await reached(world.bob, sent.id, "held")
    assert (status.reason, status.proved, status.held_at is not None) == ("message", True, True)
    assert status.hint is not None
    assert status.hint.endswith(command)
    assert world.held() == ["psst"]


async def test_what_is_held_is_neither_shown_nor_unread_but_counted(world: World) -> None:
    await world.revoke("message")
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "held")
    found = await world.ada.inbox()
    assert (found.messages, found.unread, found.held) == ([], 0, 1)
    assert (await world.ada.inbox(peek=True)).messages == []
    assert await code(world.ada.inbox(id=sent.id)) == "held"
    info = await world.ada.mesh_info()
    assert (info.unread, info.held) == (0, 1)


async def test_a_released_message_is_shown_once_and_its_receipts_flow(world: World) -> None:
    await world.revoke("message")
    sent = await world.bob.send("ada", "psst")
    await reached(world.bob, sent.id, "held")
    assert await world.allow() == ["psst"]
    assert await world.allow() == []
    assert world.held() == []
    assert [one.text for one in await got(world.ada)] == ["psst"]
    await world.ada.confirm()
    seen = await reached(world.bob, sent.id, "seen")
    assert seen.delivered_at is not None
    assert "hint" not in seen.model_dump()
    assert (await world.ada.inbox()).messages == []


async def test_who_was_let_through_is_not_held_again(world: World) -> None:
    await world.revoke("message")
    await world.bob.send("ada", "one")
    await kept(world.ada, 1)
    await world.allow()
    [to] = (await world.bob.send("ada", "two")).recipients
    assert to.status == "accepted"
    assert [one.text for one in await got(world.ada)] == ["one", "two"]


async def test_one_message_is_let_through_by_its_id_and_the_member_is_not(world: World) -> None:
    await world.revoke("message")
    first = await world.bob.send("ada", "one")
    await world.bob.send("ada", "two")
    await kept(world.ada, 2)
    assert await world.allow(first.id) == ["one"]
    assert await code(world.allow(first.id)) == "not_held"
    assert [one.text for one in await got(world.ada)] == ["one"]
    assert world.held() == ["two"]


async def test_what_is_held_of_one_member_can_not_fill_the_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "MAX_HELD", 2)
    await world.revoke("message")
    for text in ("one", "two"):
        await world.bob.send("ada", text)
    refused = await world.bob.send("ada", "three")
    told = await reached(world.bob, refused.id, "declined")
    assert (told.reason, told.proved) == ("held_full", True)
    assert told.hint is not None
    assert "discarded them or let them through: claudemesh" in told.hint
    assert world.held() == ["one", "two"]


async def test_allow_releases_from_all_peers_of_the_home(world: World) -> None:
    other = await world.twin.join("other")
    await world.revoke("message")
    await world.bob.send(["ada", "other"], "psst")
    await kept(world.ada, 1)
    await kept(other, 1)
    assert await world.allow() == ["psst", "psst"]
    assert [one.text for one in await got(world.ada) + await got(other)] == ["psst", "psst"]


async def test_a_held_message_that_is_handed_over_again_stays_held(world: World) -> None:
    await world.revoke("message")
    world.twin.lie = lambda text: None if " receipts.reported " in text else text
    sent = await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    world.twin.lie = None
    await world.twin.cut()
    await reached(world.bob, sent.id, "held")
    assert world.held() == ["psst"]
    assert (await world.ada.inbox()).messages == []


async def test_a_revocation_catches_a_message_that_is_under_way(world: World) -> None:
    async with world.twin.open("away") as away:
        await away.ready()
        await away.depart()
    sent = await world.bob.send("away", "psst")
    assert [one.status for one in sent.recipients] == ["queued"]
    await world.revoke("message")
    await world.twin.join("away")
    status = await reached(world.bob, sent.id, "held")
    assert status.reason == "message"
    assert world.held() == ["psst"]


async def test_a_broker_that_hides_a_revocation_gets_nothing_shown(world: World) -> None:
    await world.revoke("message")
    await world.at_broker("DELETE FROM grants")
    sent = await world.bob.send("ada", "psst")
    assert [one.status for one in sent.recipients] == ["accepted"]
    await reached(world.bob, sent.id, "held")
    assert (await world.ada.inbox()).messages == []


async def test_a_broker_that_hides_a_block_gets_nothing_shown(world: World) -> None:
    await world.block(blocked=True)
    await world.at_broker("DELETE FROM blocks")
    sent = await world.bob.send("ada", "psst")
    status = await reached(world.bob, sent.id, "declined")
    assert status.reason == "blocked"
    assert world.held() == []


async def test_a_broker_that_holds_what_is_granted_is_overruled(world: World) -> None:
    await world.revoke("message")
    kept_by_broker = await world.twin.broker.sql("SELECT entry FROM grants")
    await world.grant("message")
    await world.at_broker("UPDATE grants SET entry = ?", kept_by_broker[0][0])
    sent = await world.bob.send("ada", "psst")
    assert [one.status for one in sent.recipients] == ["held"]
    assert [one.text for one in await got(world.ada)] == ["psst"]
    await reached(world.bob, sent.id, "delivered")


async def test_an_invented_held_is_named(world: World) -> None:
    sent = await world.bob.send("ada", "hello")
    await got(world.ada)

    def invent(body: dict[str, Any]) -> None:
        body["recipients"][0] |= {"status": "held", "held": body["recipients"][0]["delivered"]}

    await reached(world.bob, sent.id, "delivered")
    world.twin.lie = changed("receipts.status_found", invent)
    assert await code(world.bob.message_status(sent.id)) == "forged_receipt"


async def test_a_held_that_only_the_broker_says_is_shown_as_its_word(world: World) -> None:
    await world.revoke("message")
    await world.ada.depart()
    world.twin.lie = lambda text: None if " messages.deliver " in text else text
    sent = await world.bob.send("ada", "hello")
    status = await status_of(world.bob, sent.id)
    assert (status.status, status.proved) == ("held", None)


async def test_a_block_beats_a_grant_and_ends_with_unblock(world: World) -> None:
    await world.grant("message", "wake")
    await world.block(blocked=True)
    assert await code(world.bob.send("ada", "psst")) == "blocked"
    assert await code(world.allow()) == "blocked"
    await world.block(blocked=False)
    await world.bob.send("ada", "hello")
    assert [one.text for one in await got(world.ada)] == ["hello"]


async def test_an_observer_sends_nothing_and_is_held_where_the_broker_lets_it(
    world: World,
) -> None:
    member = world.guest.member
    await world.twin.say(EntryKind.ROLE, member=member, role=Role.OBSERVER)
    assert await code(world.bob.send("ada", "psst")) == "role"


async def test_what_a_member_sent_before_it_became_an_observer_is_held(world: World) -> None:
    async with world.twin.open("away") as away:
        await away.ready()
        await away.depart()
    await world.bob.send("away", "psst")
    await world.twin.say(EntryKind.ROLE, member=world.guest.member, role=Role.OBSERVER)
    back = await world.twin.join("away")
    assert await kept(back, 1) == [("psst", "message", 0)]


async def test_a_member_wakes_three_times_an_hour_and_by_now_alone(world: World) -> None:
    await world.bob.send("ada", "next", priority="next")
    for count in range(4):
        await world.bob.send("ada", f"now {count}", priority="now")
    rows = await kept(world.ada, 5)
    assert [wakes for _, _, wakes in rows] == [0, 1, 1, 1, 0]
    world.twin.clock.pass_ms(3600 * 1000)
    await world.bob.send("ada", "an hour later", priority="now")
    assert (await kept(world.ada, 6))[-1] == ("an hour later", None, 1)


async def test_who_is_granted_it_wakes_as_often_as_it_likes(world: World) -> None:
    await world.grant("wake")
    for count in range(4):
        await world.bob.send("ada", f"now {count}", priority="now")
    await world.bob.send("ada", "next", priority="next")
    await world.bob.send("ada", "low", priority="low")
    assert [wakes for _, _, wakes in await kept(world.ada, 6)] == [1, 1, 1, 1, 1, 0]


async def test_a_strict_session_is_woken_by_another_member_by_a_grant_only(world: World) -> None:
    setup = world.twin.setup("strict")
    strict = replace(setup, settings=replace(setup.settings, strict=True))
    opening = Mesh.over(strict, world.twin.dial, Mode.ATTACH)
    mesh = await world.twin.stack.enter_async_context(opening)
    await mesh.ready()
    assert (await mesh.mesh_info()).defaults["member"] == ["message", "topic"]
    await world.bob.send("strict", "one", priority="now")
    await kept(mesh, 1)
    await world.grant("wake")
    await world.bob.send("strict", "two", priority="now")
    assert [wakes for _, _, wakes in await kept(mesh, 2)] == [0, 1]


async def test_ones_own_sessions_wake_by_all_but_low(world: World) -> None:
    other = await world.twin.join("other")
    for priority in ("now", "next", "low"):
        await other.send("ada", priority, priority=priority)
    assert [wakes for _, _, wakes in await kept(world.ada, 3)] == [1, 1, 0]


async def test_a_file_of_an_older_version_holds_nothing(world: World) -> None:
    old = world.human.peer.home.sessions / ("p_" + "a" * 26)
    old.mkdir(mode=0o700)
    (old / "peer.db").write_bytes(b"junk")
    await world.revoke("message")
    await world.bob.send("ada", "psst")
    await kept(world.ada, 1)
    assert world.held() == ["psst"]
    assert await world.allow() == ["psst"]


async def test_the_receiver_forgets_no_message_that_is_held(world: World) -> None:
    await world.revoke("message")
    await world.bob.send("ada", "psst", expires_in_s=60)
    await kept(world.ada, 1)
    month_ms = world.twin.clock.now_ms + 40 * 24 * 3600 * 1000
    await world.ada.peer.file.write(lambda sql: inbox.forget_old(sql, month_ms))
    assert world.held() == ["psst"]
    assert await world.allow() == ["psst"]


async def test_what_is_held_moves_to_an_heir_and_is_let_through_there(world: World) -> None:
    await world.revoke("message")
    async with world.twin.open("late") as late:
        await late.ready()
        sent = await world.bob.send("late", "psst")
        await reached(world.bob, sent.id, "held")
    await world.twin.end_leases()
    heir = await world.twin.join("late", anchor="claude:heir")
    assert await kept(heir, 1) == [("psst", "message", 0)]
    assert world.held() == ["psst"]
    assert await world.allow() == ["psst"]
    assert [one.text for one in await got(heir)] == ["psst"]
    assert world.held() == []
