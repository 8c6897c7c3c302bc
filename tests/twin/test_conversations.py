"""What peers of one mesh can say to each other, client and broker meeting in memory."""

import threading
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.results import StatusResult
from claudemesh_mcp.sdk import Mesh
from claudemesh_mcp.sending import ANSWER_TIMEOUT_S
from claudemesh_wire.errors import Conflict, Invalid, MeshError, NotFound
from tests.support.twin import Tokens, a_mesh

LIMIT_S = 20
DAY_MS = 24 * 3600 * 1000


async def status_until(sender: Mesh, message: str, wanted: str) -> StatusResult:
    """Ask for receipts until the first recipient's status is the wanted one."""
    with anyio.fail_after(LIMIT_S):
        while True:
            found = await sender.message_status(message)
            if found.recipients[0].status == wanted:
                return found
            await anyio.lowlevel.checkpoint()


async def texts(mesh: Mesh) -> list[str]:
    """Read what is waiting, or what comes next."""
    return [message.text for message in (await mesh.inbox(wait_s=LIMIT_S, limit=100)).messages]


async def test_a_message_arrives_and_its_receipts_are_signed(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        sent = await ada.send("bob", "hello")
        assert [(one.handle, one.status, one.e2e) for one in sent.recipients] == [
            ("bob", "accepted", True)
        ]
        (message,) = (await bob.inbox(wait_s=LIMIT_S)).messages
        assert (message.text, message.handle, message.trust) == ("hello", "ada", "own")
        delivered = await status_until(ada, sent.id, "delivered")
        assert delivered.recipients[0].proved
        await bob.confirm()
        seen = (await status_until(ada, sent.id, "seen")).recipients[0]
        assert (seen.route, seen.proved) == ("tool", True)
        assert seen.accepted_at
        assert seen.delivered_at
        assert seen.seen_at


async def test_two_messages_that_are_kept_by_one_commit_both_go_out(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        await ada.send("bob", "zero")
        goes_on = threading.Event()
        ada.peer.file.post(lambda _: goes_on.wait(LIMIT_S))
        with anyio.fail_after(ANSWER_TIMEOUT_S - 1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ada.send, "bob", "one")
                tasks.start_soon(ada.send, "bob", "two")
                await anyio.wait_all_tasks_blocked()
                goes_on.set()
        with anyio.fail_after(LIMIT_S):
            read = await texts(bob)
            while len(read) < 3:
                read += await texts(bob)
        assert read == ["zero", "one", "two"]


async def test_an_envelope_for_an_absent_peer_waits_for_her(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        async with twin.open("bob") as bob:
            await bob.ready()
            peer = bob.peer.id
        sent = await ada.send("bob", "hello")
        assert sent.recipients[0].status == "queued"
        again = await twin.join("bob")
        assert again.peer.id == peer
        assert await texts(again) == ["hello"]
        assert (await again.mesh_info()).me.last_seen is not None


async def test_a_peer_absent_for_six_days_opens_what_waited(tmp_path: Path) -> None:
    """Its certificate has expired, its sealing key is renewed twice on the way back."""
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        async with twin.open("bob") as bob:
            await bob.ready()
            first = bob.peer.device.current.generation
        sent = await ada.send("bob", "from six days ago")
        twin.clock.pass_ms(3 * DAY_MS)
        twin.online = False
        async with twin.open("bob") as bob:  # an attempt on the way that reaches nobody
            await bob.peer.renew_keys()
        twin.online = True
        twin.clock.pass_ms(3 * DAY_MS - 60_000)
        bob = await twin.join("bob")
        assert bob.peer.device.current.generation == first + 2
        assert await texts(bob) == ["from six days ago"]
        await bob.confirm()
        assert (await status_until(ada, sent.id, "seen")).recipients[0].proved


async def test_a_list_reaches_each_peer_once(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        eve = await twin.join("eve")
        member = ada.peer.trust.chain.member(ada.peer.identity.member).name
        to = ["bob", f"{member}/bob", bob.peer.id, bob.peer.id[:12], "eve"]
        sent = await ada.send(to, "once")
        assert sorted(one.handle for one in sent.recipients) == ["bob", "eve"]
        assert await texts(bob) == ["once"]
        assert await texts(eve) == ["once"]


async def test_a_group_and_everybody_reach_others_and_never_the_sender(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        eve = await twin.join("eve")
        await ada.join("@team")
        await bob.join("@team", "reviewer")
        await ada.send("@team", "team")
        await ada.send("*", "all")
        await ada.send("@all", "all again")
        assert await texts(bob) == ["team", "all", "all again"]
        assert await texts(eve) == ["all", "all again"]
        assert (await ada.inbox()).messages == []
        left = await bob.leave("@team")
        assert (left.changed, left.groups) == (True, [])
        with pytest.raises(NotFound) as empty:
            await ada.send("@team", "nobody")
        assert empty.value.code == "not_found"


@pytest.mark.parametrize(
    ("to", "kind", "code"),
    [
        ("nobody", NotFound, "not_found"),
        (["bob", "nobody"], NotFound, "not_found"),
        ("@nothing", NotFound, "not_found"),
        ("ada", Invalid, "invalid"),
        (["bob", "ada"], Invalid, "invalid"),
        ("b\x07b", Invalid, "bad_address"),
    ],
)
async def test_an_unresolvable_address_means_nothing_is_sent_to_anyone(
    tmp_path: Path, to: str | list[str], kind: type[MeshError], code: str
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        with pytest.raises(kind) as refused:
            await ada.send(to, "hello")
        assert refused.value.code == code
        await ada.send("bob", "after")
        assert await texts(bob) == ["after"]


async def test_an_ambiguous_id_lists_the_candidates(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        ids: dict[str, str] = {}
        prefix = ""
        # 26 bits at 6 characters: names are tried on paper until two ids agree that far.
        for number in range(200_000):
            peer = ada.peer.identity.peer(f"claude:n{number}")
            if peer[:8] in ids:
                prefix = peer[:8]
                await twin.join("twin-a", anchor=f"claude:{ids[prefix]}")
                await twin.join("twin-b", anchor=f"claude:n{number}")
                break
            ids[peer[:8]] = f"n{number}"
        with pytest.raises(Conflict) as ambiguous:
            await ada.send(prefix, "who?")
        assert ambiguous.value.code == "ambiguous"
        handles = {one["handle"] for one in ambiguous.value.details["candidates"]}
        assert handles == {"twin-a", "twin-b"}


async def test_the_same_key_is_the_same_message(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        first = await ada.send("bob", "once", idempotency_key="k")
        again = await ada.send("bob", "once", idempotency_key="k")
        assert first == again
        with pytest.raises(Conflict) as clash:
            await ada.send("bob", "another", idempotency_key="k")
        assert clash.value.code == "idempotency_conflict"
        assert await texts(bob) == ["once"]


async def test_a_long_text_is_read_on_by_id_and_offset(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        text = "é" * 10_000 + "end"
        await ada.send("bob", text)
        (message,) = (await bob.inbox(wait_s=LIMIT_S)).messages
        read, left = message.text, message.more_bytes
        while left:
            offset = len(read.encode())
            (part,) = (await bob.inbox(id=message.id, offset=offset)).messages
            read, left = read + part.text, part.more_bytes
        assert read == text


async def test_a_text_of_256_kib_passes_and_one_byte_more_does_not(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        await ada.send("bob", "x" * 262_144)
        (message,) = (await bob.inbox(wait_s=LIMIT_S)).messages
        assert len(message.text) + (message.more_bytes or 0) == 262_144
        with pytest.raises(MeshError) as refused:
            await ada.send("bob", "x" * 262_145)
        assert refused.value.code == "message_too_large"


async def test_a_reply_names_what_it_answers_and_a_thread_filters(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        asked = await ada.send("bob", "question", thread="t1")
        await ada.send("bob", "aside")
        (question,) = (await bob.inbox(wait_s=LIMIT_S, thread="t1")).messages
        assert (question.text, question.thread) == ("question", "t1")
        await bob.send("ada", "answer", reply_to=question.id, priority="now")
        (answer,) = (await ada.inbox(wait_s=LIMIT_S)).messages
        assert (answer.reply_to, answer.priority) == (asked.id, "now")


async def test_rows_taken_by_a_call_that_is_withdrawn_come_again_unmarked(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        await ada.send("bob", "hello")
        tokens = Tokens()
        await bob.inbox(wait_s=LIMIT_S, call=tokens)
        assert (await bob.inbox()).messages == []
        await bob.withdrawn(tokens.taken)
        (again,) = (await bob.inbox()).messages
        assert again.redelivered is None


async def test_rows_without_evidence_come_again_marked(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        await ada.send("bob", "hello")
        tokens = Tokens()
        await bob.inbox(wait_s=LIMIT_S, call=tokens)
        twin.clock.pass_ms(30_000)
        (again,) = (await bob.inbox()).messages
        assert again.redelivered


async def test_a_resumed_peer_is_shown_at_once_what_its_dead_process_was_offered(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        async with twin.open("bob") as bob:
            await bob.ready()
            await ada.send("bob", "printed, perhaps")
            await bob.inbox(wait_s=LIMIT_S, call=Tokens())
        bob = await twin.join("bob")
        (again,) = (await bob.inbox()).messages
        assert (again.text, again.redelivered) == ("printed, perhaps", True)


async def test_what_is_sent_while_the_line_is_down_is_pending_and_goes_out_by_itself(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        await ada.send("bob", "one")
        assert await texts(bob) == ["one"]
        twin.lie = lambda text: None if " messages.accepted " in text else text
        with anyio.move_on_after(0.2):
            await ada.send("bob", "two")
        assert (await ada.mesh_info()).pending == 1
        twin.lie = None
        await twin.cut()
        assert await texts(bob) == ["two"]
        with anyio.fail_after(LIMIT_S):
            while (await ada.mesh_info()).pending:
                await anyio.lowlevel.checkpoint()
        assert (await bob.inbox()).messages == []
