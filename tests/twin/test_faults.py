"""What goes wrong under a peer – outages, lost answers, late keys, a lost file – loses nothing."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

from claudemesh_mcp import outbox
from claudemesh_mcp.certifying import certify
from claudemesh_mcp.outbox import Row
from claudemesh_mcp.peerfile import PeerFile
from claudemesh_mcp.sdk import Mesh
from claudemesh_mcp.sending import ANSWER_TIMEOUT_S
from claudemesh_wire.errors import Conflict, MeshError
from claudemesh_wire.handshake import Mode
from tests.support.lies import changed, refusing
from tests.support.twin import Twin, a_mesh

LIMIT_S = 20
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


async def texts(mesh: Mesh) -> list[str]:
    """Read what is waiting, or what comes next."""
    return [message.text for message in (await mesh.inbox(wait_s=LIMIT_S, limit=100)).messages]


async def all_texts(mesh: Mesh, count: int) -> list[str]:
    """Read until so many have come."""
    got: list[str] = []
    with anyio.fail_after(LIMIT_S):
        while len(got) < count:
            got += await texts(mesh)
    return got


async def until(holds: Callable[[], Any]) -> None:
    """Wait until something holds."""
    with anyio.fail_after(LIMIT_S):
        while not holds():
            await anyio.lowlevel.checkpoint()


def codes(mesh: Mesh) -> list[str]:
    return [problem.code for problem in mesh.peer.problems]


async def stored(twin: Twin, count: int) -> None:
    """Wait until the broker has stored so many messages."""
    with anyio.fail_after(LIMIT_S):
        while (await twin.broker.sql("SELECT count(*) FROM messages"))[0][0] < count:
            await anyio.lowlevel.checkpoint()


async def sent(sender: Mesh, to: str, text: str, **more: Any) -> None:
    """Send, again if the line breaks meanwhile; an answer that came is not waited for."""
    with anyio.fail_after(ANSWER_TIMEOUT_S - 1):
        while True:
            try:
                await sender.send(to, text, **more)
            except MeshError as error:
                if error.code != "connection_lost":
                    raise
            else:
                return


async def kept_from_the_broker(twin: Twin, sender: Mesh, to: str, text: str, **more: Any) -> Row:
    """Seal a message that does not reach the broker: the sender's line hangs after the resolve."""

    def hang(frame: str) -> str:
        if " messages.resolved " in frame:
            twin.links[0].other.stop_taking()
        return frame

    twin.lie = hang
    async with anyio.create_task_group() as tasks:

        async def send() -> None:
            await sender.send(to, text, **more)

        tasks.start_soon(send)
        with anyio.fail_after(LIMIT_S):
            while not await sender.peer.file.write(outbox.count_waiting):
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    twin.lie = None
    (conv,) = await sender.peer.file.write(outbox.waiting_conversations)
    row = await sender.peer.file.write(lambda sql: outbox.next_waiting(sql, conv))
    assert row is not None
    return row


async def test_a_message_sealed_before_a_long_outage_is_sealed_anew_and_goes_out(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        row = await kept_from_the_broker(twin, ada, "bob", "late")
        twin.clock.pass_ms(6 * MINUTE_MS)
        await twin.cut()
        (message,) = (await bob.inbox(wait_s=LIMIT_S)).messages
        assert (message.id, message.text) == (row.draft.id, "late")
        kept = await ada.peer.file.write(lambda sql: outbox.get(sql, message.id))
        assert (kept.seq, kept.sealings) == (row.seq, 2)
        (expires_ms,) = await bob.peer.file.write(
            lambda sql: sql.execute("SELECT expires_ms FROM inbox").fetchone()
        )
        assert expires_ms == row.expires_ms


async def test_a_message_that_is_always_said_to_be_stale_is_sealed_four_times_and_given_up(
    tmp_path: Path,
) -> None:
    def long_ago(body: dict[str, Any]) -> None:
        body["resolved_ms"] = 1

    async with a_mesh(tmp_path) as twin:
        ada, _ = await twin.join("ada"), await twin.join("bob")
        twin.lie = changed("messages.resolved", long_ago)
        with pytest.raises(MeshError) as caught, anyio.fail_after(LIMIT_S):
            await ada.send("bob", "hello")
        assert caught.value.code == "stale_recipients"
        (sealings,) = await ada.peer.file.read(
            lambda sql: sql.execute("SELECT sealings FROM outbox").fetchone()
        )
        assert sealings == 4


async def test_a_message_that_expired_during_an_outage_is_not_delivered_late(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        row = await kept_from_the_broker(twin, ada, "bob", "in a minute", expires_in_s=60)
        twin.clock.pass_ms(6 * MINUTE_MS)
        await twin.cut()
        await sent(ada, "bob", "after it")
        assert await texts(bob) == ["after it"]
        (told,) = (await ada.message_status(row.draft.id)).recipients
        assert (told.status, told.reason) == ("refused", "expired")


async def test_a_sender_s_clock_that_jumps_is_put_right_by_the_broker(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        ada.peer.set_clock(twin.clock() + HOUR_MS)
        await ada.send("bob", "an hour ahead")
        assert await texts(bob) == ["an hour ahead"]
        assert ada.peer.now_ms() == twin.clock()


async def test_a_caller_that_gives_up_leaves_a_message_that_goes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose = outbox.compose
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        token = anyio.lowlevel.current_token()
        with anyio.CancelScope() as scope:

            def cancelled(sql: sqlite3.Connection, *rest: Any) -> Row:
                anyio.from_thread.run_sync(scope.cancel, token=token)
                return compose(sql, *rest)

            monkeypatch.setattr(outbox, "compose", cancelled)
            await ada.send("bob", "nobody waits for me")
        assert scope.cancelled_caught
        assert await texts(bob) == ["nobody waits for me"]


async def test_an_answer_for_another_message_settles_none(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        first = await ada.send("bob", "first")
        twin.lie = changed("messages.accepted", lambda body: body.update(id=first.id))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ada.send, "bob", "second")
            await until(lambda: "protocol_error" in codes(ada))
            assert await ada.peer.file.write(outbox.count_waiting) == 1
            twin.lie = None
            await twin.cut()
        assert await all_texts(bob, 2) == ["first", "second"]
        assert await ada.peer.file.write(outbox.count_waiting) == 0


async def test_a_certificate_that_was_not_published_is_not_used(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        before = ada.peer.certified()
        twin.lie = refusing("presence.certified")
        with pytest.raises(MeshError):
            await certify(ada.peer, await ada.ready(), "ada")
        assert ada.peer.certified() == before
        await ada.send("bob", "still readable")
        assert await texts(bob) == ["still readable"]
        twin.lie = None
        twin.clock.pass_ms(1)
        await certify(ada.peer, await ada.ready(), "ada")
        assert ada.peer.certified() != before
        await ada.send("bob", "readable too")
        assert await texts(bob) == ["readable too"]


async def test_a_key_that_another_process_of_the_peer_made_opens_what_is_sealed_to_it(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        bob = await twin.join("bob")
        assert bob.peer.device.current.generation == 1
        twin.clock.pass_ms(25 * HOUR_MS)
        other = await twin.join("bob", Mode.CALL)
        assert other.peer.device.current.generation == 2
        ada = await twin.join("ada")
        await ada.send("bob", "sealed to the newest key")
        assert await texts(bob) == ["sealed to the newest key"]
        assert bob.peer.device.current.generation == 2


async def test_what_could_not_be_believed_yet_is_tried_again_in_its_order(tmp_path: Path) -> None:
    kinds = ("messages.deliver", "presence.certificates_found")
    forget = [changed(kind, lambda body: body.update(certificates=[])) for kind in kinds]

    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        twin.lie = lambda text: forget[0](forget[1](text) or "")
        await ada.send("bob", "one")
        await until(lambda: "unknown_certificate" in codes(bob))
        assert (await bob.inbox()).messages == []
        twin.lie = None
        await ada.send("bob", "two")
        assert await texts(bob) == ["one", "two"]


async def test_a_replaced_session_says_so_and_leaves_the_messages_to_its_heir(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        first, heir = await twin.join("bob"), await twin.join("bob")
        await ada.send("bob", "for the heir")
        with pytest.raises(Conflict) as caught:
            await first.inbox(wait_s=LIMIT_S)
        assert caught.value.code == "replaced"
        assert await texts(heir) == ["for the heir"]


async def test_a_file_that_fails_ends_the_connection_and_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        path = bob.peer.file.path
        await bob.peer.file.close()
        await ada.send("bob", "kept at the broker meanwhile")
        with pytest.raises(MeshError) as caught:
            await bob.inbox()
        assert caught.value.code == "closed"
        await until(lambda: not bob._attachment.is_connected)
        bob.peer.file = await PeerFile.open(path)
        assert await texts(bob) == ["kept at the broker meanwhile"]
    assert "ended unexpectedly" not in caplog.text


async def test_an_answer_that_could_not_be_kept_is_asked_for_again_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, _ = await twin.join("ada"), await twin.join("bob")
        file = ada.peer.file
        await file.read(lambda sql: sql.execute("PRAGMA busy_timeout = 0"))
        with closing(sqlite3.connect(file.path, isolation_level=None)) as other:

            def hold(frame: str) -> str:
                if " messages.accepted " in frame and not other.in_transaction:
                    other.execute("BEGIN IMMEDIATE")
                return frame

            twin.lie = hold
            assert (await ada.send("bob", "hello")).recipients[0].status == "accepted"
            await until(lambda: "nobody waits for was not made" in caplog.text)
            twin.lie = None
            other.execute("ROLLBACK")
        with anyio.fail_after(LIMIT_S):
            while await file.read(outbox.count_waiting):
                await anyio.lowlevel.checkpoint()


async def test_sends_of_two_processes_of_one_peer_are_one_conversation(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        call = await twin.join("ada", Mode.CALL)
        async with anyio.create_task_group() as tasks:
            for number in range(15):
                tasks.start_soon(ada.send, "bob", f"attached {number}")
                tasks.start_soon(call.send, "bob", f"call {number}")
        assert len(set(await all_texts(bob, 30))) == 30
        rows = await bob.peer.file.write(
            lambda sql: sql.execute("SELECT seq FROM inbox ORDER BY row").fetchall()
        )
        assert [row["seq"] for row in rows] == list(range(1, 31))
        assert codes(bob) == []


async def test_many_sends_at_once_over_a_line_that_breaks_come_once_and_in_order(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                again = partial(sent, idempotency_key=str(number))
                tasks.start_soon(again, ada, "bob", str(number))
            for count in (5, 15, 30):
                await stored(twin, count)
                await twin.cut()
        assert sorted(map(int, await all_texts(bob, 40))) == list(range(40))
        rows = await bob.peer.file.write(
            lambda sql: sql.execute("SELECT seq FROM inbox ORDER BY row").fetchall()
        )
        assert [row["seq"] for row in rows] == list(range(1, 41))
        assert "message_gap" not in codes(bob)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), LookupError("mine")])
async def test_what_a_program_raises_inside_comes_out_as_it_is(
    tmp_path: Path, error: BaseException
) -> None:
    async def program(twin: Twin) -> None:
        async with twin.open("ada") as ada:
            await ada.ready()
            raise error

    async with a_mesh(tmp_path) as twin:
        with pytest.raises(type(error)) as caught:
            await program(twin)
        assert caught.value is error
