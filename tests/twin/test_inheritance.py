"""What an ended session left, here or at the broker, reaches its heir whatever goes wrong."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from claudemesh_broker import heirs
from claudemesh_mcp import inbox, reports, succession
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import Unavailable
from claudemesh_wire.keys import b64
from claudemesh_wire.membership import EntryKind
from tests.support.lies import changed, refusing
from tests.support.twin import Twin, a_mesh, dying_at, ended, until
from tests.twin.test_conversations import LIMIT_S, Tokens, texts

DAY_MS = 24 * 3_600_000


@pytest.fixture
async def twin(tmp_path: Path) -> AsyncIterator[Twin]:
    async with a_mesh(tmp_path) as twin:
        yield twin


@pytest.fixture
async def bob(twin: Twin) -> Mesh:
    return await twin.join("bob")


async def test_what_it_had_but_not_shown_moves_and_what_it_may_have_shown_is_marked(
    twin: Twin, bob: Mesh
) -> None:
    async with twin.open("ada", anchor="claude:1") as ada:
        await ada.ready()
        for text in ("seen", "printed, perhaps", "unread"):
            await bob.send("ada", text)
        await unread(ada, 3)
        await ada.inbox(limit=1)
        await ada.confirm()
        await ada.inbox(limit=1, call=Tokens())
    await twin.end_leases()
    heir = await twin.join("ada", anchor="claude:2")
    shown = (await heir.inbox()).messages
    assert [(one.text, one.redelivered) for one in shown] == [
        ("printed, perhaps", True),
        ("unread", None),
    ]
    fork = await twin.join("ada", anchor="claude:1")
    assert (await fork.inbox()).messages == []


async def test_what_was_seen_and_not_reported_is_reported_and_not_shown_again(
    twin: Twin, bob: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # Killed before it reports anything.
        patch.setattr(reports, "due", lambda _: {})
        async with twin.open("ada", anchor="claude:1") as ada:
            await ada.ready()
            sent = await bob.send("ada", "seen")
            await unread(ada, 1)
            await ada.inbox()
            await ada.evidence(["1"])
    await twin.end_leases()
    heir = await twin.join("ada", anchor="claude:2")
    row = await until(bob, sent.id, "seen")
    assert row.successor is not None
    assert (await heir.inbox()).messages == []


async def test_a_move_that_was_cut_short_loses_nothing_and_shows_nothing_twice(
    twin: Twin, bob: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_unread(twin, bob)
    with dying_at(monkeypatch, succession, "end"):
        async with twin.open("ada", anchor="claude:2") as heir:
            await heir.ready()
            assert await texts(heir) == ["unread"]
            await heir.confirm()
    heir = await twin.join("ada", anchor="claude:2")
    assert (await heir.inbox()).messages == []
    assert await states(twin, "claude:1") == [("seen", "heir")]


async def test_a_move_that_was_cut_short_marks_what_both_may_show(
    twin: Twin, bob: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_unread(twin, bob)
    with dying_at(monkeypatch, succession, "end"):
        heir = await twin.join("ada", anchor="claude:2")
    fork = await twin.join("ada", anchor="claude:1")
    assert [one.redelivered for one in (await heir.inbox()).messages] == [None]
    assert [one.redelivered for one in (await fork.inbox()).messages] == [True]


async def test_a_move_that_never_began_to_copy_is_done_by_the_next_start_unmarked(
    twin: Twin, bob: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_unread(twin, bob)
    with dying_at(monkeypatch, succession, "keep"):
        async with twin.open("ada", anchor="claude:2") as heir:
            await heir.ready()
            assert (await heir.inbox()).messages == []
    heir = await twin.join("ada", anchor="claude:2")
    (message,) = (await heir.inbox()).messages
    assert (message.text, message.redelivered) == ("unread", None)


async def test_the_file_of_one_that_lives_after_all_is_left_alone(twin: Twin, bob: Mesh) -> None:
    late = await twin.join("ada", anchor="claude:1")
    await bob.send("ada", "mine")
    await unread(late, 1)
    twin.online = False
    gone = [*twin.links]
    await twin.cut()
    for link in gone:
        await link.served.wait()
    await twin.end_leases()
    twin.online = True
    lock = late.peer.folder / "attached.lock"
    assert lock.exists()
    heir = await twin.join("ada", anchor="claude:2")
    assert (await heir.inbox()).messages == []
    assert [one.text for one in (await late.inbox()).messages] == ["mine"]


async def test_a_damaged_file_keeps_nobody_from_what_waits_at_the_broker(
    twin: Twin, bob: Mesh
) -> None:
    late = await ended(twin, "ada", anchor="claude:1")
    path = bob.peer.home.sessions / late / "peer.db"
    path.write_bytes(b"no database" * 1000)
    await bob.send("ada", "hello")
    heir = await twin.join("ada", anchor="claude:2")
    assert await texts(heir) == ["hello"]
    problems = [one.code for one in (await heir.mesh_info()).problems]
    assert problems == ["database_damaged"]


async def test_keys_that_are_lost_are_told_to_the_sender(twin: Twin, bob: Mesh) -> None:
    late = await ended(twin, "ada", anchor="claude:1")
    sent = await bob.send("ada", "hello")
    (bob.peer.home.sessions / late / "device.key").unlink()
    heir = await twin.join("ada", anchor="claude:2")
    row = await until(bob, sent.id, "declined")
    assert (row.reason, row.proved) == ("no_key", True)
    assert (await heir.inbox()).messages == []


async def test_what_was_unread_is_not_lost_however_late_the_heir_comes(
    twin: Twin, bob: Mesh
) -> None:
    await left_unread(twin, bob)
    twin.clock.pass_ms(29 * DAY_MS)
    heir = await twin.join("ada", anchor="claude:2")
    assert await texts(heir) == ["unread"]


async def test_all_that_ended_are_looked_after_however_many_there_are(
    twin: Twin, bob: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heirs, "MOST_TOLD", 1)
    monkeypatch.setattr(succession, "MOST_TOLD", 1)
    await left_unread(twin, bob)
    with dying_at(monkeypatch, succession, "hold"):
        await ended(twin, "ada", anchor="claude:2")
    heir = await twin.join("ada", anchor="claude:3")
    assert await texts(heir) == ["unread"]


async def test_what_was_moved_is_in_the_history_of_the_one_that_showed_it(
    twin: Twin, bob: Mesh
) -> None:
    await left_unread(twin, bob)
    heir = await twin.join("ada", anchor="claude:2")
    fork = await twin.join("ada", anchor="claude:1")
    assert (await fork.history()).messages == []
    assert await texts(heir) == ["unread"]
    await heir.confirm()
    assert [one.text for one in (await heir.history()).messages] == ["unread"]
    assert (await fork.history("unread")).messages == []


async def test_a_fetch_that_was_refused_is_made_again(twin: Twin, bob: Mesh) -> None:
    await ended(twin, "ada", anchor="claude:1")
    await bob.send("ada", "hello")
    twin.lie = refusing("succession.inheritance")
    heir = await twin.join("ada", anchor="claude:2")
    assert (await heir.inbox()).messages == []
    twin.lie = None
    assert await texts(heir) == ["hello"]


async def test_a_file_that_was_busy_is_looked_into_again(
    twin: Twin, bob: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await left_unread(twin, bob)

    def busy(_: object) -> None:
        raise Unavailable("Another process writes.", "Try again.", code="locked")

    with monkeypatch.context() as patch:
        patch.setattr(succession, "hold", busy)
        heir = await twin.join("ada", anchor="claude:2")
        assert (await heir.inbox()).messages == []
    assert await texts(heir) == ["unread"]


async def test_damaged_keys_of_one_keep_nobody_from_what_the_others_left(
    twin: Twin, bob: Mesh
) -> None:
    first = await ended(twin, "ada", anchor="claude:1")
    await bob.send("ada", "to the first")
    with_queue = twin.open("ada", anchor="claude:2")
    keys = bob.peer.home.sessions / first / "device.key"
    good = keys.read_bytes()
    keys.write_bytes(b"junk" * 40)
    async with with_queue as mesh:
        await mesh.ready()
    await twin.end_leases()
    await bob.send("ada", "to the second")
    heir = await twin.join("ada", anchor="claude:3")
    assert await texts(heir) == ["to the second"]
    assert [one.code for one in (await heir.mesh_info()).problems] == ["key_file_damaged"]
    keys.write_bytes(good)
    await twin.cut()
    assert await texts(heir) == ["to the first"]


async def test_what_was_not_to_be_believed_is_taken_when_the_log_grows(
    twin: Twin, bob: Mesh
) -> None:
    late = await ended(twin, "ada", anchor="claude:1")
    heir = await twin.join("ada", anchor="claude:2")
    zoe = await twin.admit("zoe")
    with anyio.fail_after(LIMIT_S):
        while zoe.member not in heir.peer.trust.chain.members:
            await anyio.lowlevel.checkpoint()
    head = heir.peer.trust.head
    nothing = {"entries": [], "head_seq": head.seq, "head": b64(head.hash)}
    denied = changed("meshes.log_entries", lambda body: body.update(nothing))
    twin.lie = lambda text: None if " meshes.log_grew " in text else denied(text)
    await twin.say(EntryKind.RENAME, mesh_name="shop")
    zed = await zoe.join("zed")
    await zed.send(late, "did you know?")
    with anyio.fail_after(LIMIT_S):
        while not any(one.code == "membership_behind" for one in heir.peer.problems):
            await anyio.lowlevel.checkpoint()
    twin.lie = None
    await twin.say(EntryKind.RENAME, mesh_name="market")
    assert await texts(heir) == ["did you know?"]
    assert bob.peer.id != late


async def test_what_waited_before_one_came_back_is_its_heirs_also_later(
    twin: Twin, bob: Mesh
) -> None:
    await ended(twin, "ada", anchor="claude:1")
    await bob.send("ada", "hello")
    twin.lie = refusing("succession.inheritance")
    heir = await twin.join("ada", anchor="claude:2")
    fork = await twin.join("ada", anchor="claude:1")
    await twin.cut()
    twin.lie = None
    assert await texts(heir) == ["hello"]
    assert (await fork.inbox()).messages == []


async def left_unread(twin: Twin, bob: Mesh) -> None:
    """Leave one unread message in the file of a session that ended."""
    async with twin.open("ada", anchor="claude:1") as ada:
        await ada.ready()
        sent = await bob.send("ada", "unread")
        await unread(ada, 1)
        await until(bob, sent.id, "delivered")
    await twin.end_leases()


async def unread(mesh: Mesh, count: int) -> None:
    """Wait until so many messages lie in a session's file."""
    with anyio.fail_after(LIMIT_S):
        while (await mesh.peer.file.read(lambda sql: inbox.count_unread(sql, 0))) < count:
            await anyio.lowlevel.checkpoint()


async def states(twin: Twin, anchor: str) -> list[tuple[str, str]]:
    """Give state and route of what lies in the file of a session that ended."""
    async with twin.open("x", anchor=anchor) as mesh:
        rows = await mesh.peer.file.read(
            lambda sql: sql.execute("SELECT state, route FROM inbox").fetchall()
        )
        return [tuple(row) for row in rows]
