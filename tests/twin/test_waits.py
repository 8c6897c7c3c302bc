"""A send that waits: what it says of each recipient, and that it takes nobody's bare word."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import waits
from claudemesh_mcp.results import SendResult
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import Forbidden, Invalid, TooMuch
from claudemesh_wire.handshake import Mode
from claudemesh_wire.keys import make_id
from claudemesh_wire.receipts import BrokerNews, ReceiptStatus
from tests.support.lies import changed
from tests.support.twin import Twin, a_mesh, ended
from tests.support.twopeople import two_people

LIMIT_S = 20
SHORT_S = 0.01
NEVER_S = 1000.0
MESSAGE, READER = make_id("msg_", bytes(16)), make_id("p_", bytes(16))


@pytest.fixture
async def twin(tmp_path: Path) -> AsyncIterator[Twin]:
    async with a_mesh(tmp_path) as twin:
        yield twin


@pytest.fixture
def only_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody ask again who was not told that there is news."""
    monkeypatch.setattr(waits, "_PAUSE_BETWEEN_HINTS_S", NEVER_S)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one ask again soon who is told nothing."""
    monkeypatch.setattr(waits, "_PAUSE_BETWEEN_HINTS_S", SHORT_S)
    monkeypatch.setattr(waits, "_LEAST_S", SHORT_S)


def rows(sent: SendResult) -> dict[str, str]:
    """Give what is said of each recipient."""
    return {one.handle: one.status for one in sent.recipients}


@asynccontextmanager
async def reading(*readers: Mesh) -> AsyncIterator[None]:
    """Let some read what comes, as long as the block lasts."""

    async def read(mesh: Mesh) -> None:
        async for _ in mesh.messages():
            pass

    async with anyio.create_task_group() as tasks:
        for one in readers:
            tasks.start_soon(read, one)
        with anyio.fail_after(LIMIT_S):
            yield
        tasks.cancel_scope.cancel()


async def listening(mesh: Mesh) -> None:
    """Wait until somebody waits for receipts."""
    with anyio.fail_after(LIMIT_S):
        while not mesh.peer.hints._waiting:
            await anyio.lowlevel.checkpoint()


@pytest.mark.usefixtures("only_hints")
async def test_a_send_that_waits_comes_back_when_all_have_read_it(twin: Twin) -> None:
    ada, bob, cleo = [await twin.join(name) for name in ("ada", "bob", "cleo")]
    async with reading(bob, cleo):
        sent = await ada.send(["bob", "cleo"], "lunch?", wait_for="seen", wait_s=LIMIT_S)
    assert sent.reached is True
    assert [(one.status, one.proved, one.route) for one in sent.recipients] == [
        ("seen", True, "tool")
    ] * 2


@pytest.mark.usefixtures("only_hints")
async def test_delivered_needs_nobody_to_read_it(twin: Twin) -> None:
    ada = await twin.join("ada")
    await twin.join("bob")
    with anyio.fail_after(LIMIT_S):
        sent = await ada.send("bob", "lunch?", wait_for="delivered", wait_s=LIMIT_S)
    assert (sent.reached, rows(sent)) == (True, {"bob": "delivered"})
    assert sent.recipients[0].proved is True


@pytest.mark.usefixtures("often")
async def test_when_the_time_is_up_it_says_how_far_each_got(twin: Twin) -> None:
    ada = await twin.join("ada")
    await twin.join("bob")
    await ended(twin, "cleo")
    first = await ada.send("bob", "lunch?", wait_for="delivered", wait_s=LIMIT_S)
    assert first.reached
    sent = await ada.send(["bob", "cleo"], "lunch?", wait_for="seen", wait_s=1)
    assert (sent.reached, rows(sent)) == (False, {"bob": "delivered", "cleo": "queued"})
    assert [one.proved for one in sent.recipients] == [True, None]


async def test_without_waiting_nothing_is_said_of_it(twin: Twin) -> None:
    ada = await twin.join("ada")
    await twin.join("bob")
    sent = await ada.send("bob", "lunch?")
    assert sent.reached is None
    assert "reached" not in sent.model_dump()
    assert set(sent.model_dump()["recipients"][0]) == {"peer", "handle", "member", "status", "e2e"}


@pytest.mark.usefixtures("only_hints")
async def test_a_message_that_is_withheld_ends_the_wait(twin: Twin, tmp_path: Path) -> None:
    ada, bob = await twin.join("ada"), await twin.join("bob", folder=tmp_path)
    async with reading(bob):
        sent = await ada.send(
            "bob", "for one", valid_if={"git_sha": "0" * 7}, wait_for="seen", wait_s=LIMIT_S
        )
    [one] = sent.recipients
    assert (sent.reached, one.status, one.reason) == (False, "withheld", "no_checkout")


async def test_a_message_that_is_held_ends_the_wait_with_the_command(tmp_path: Path) -> None:
    async with two_people(tmp_path) as world:
        await world.revoke("message")
        with anyio.fail_after(LIMIT_S):
            sent = await world.bob.send("ada", "psst", wait_for="seen", wait_s=LIMIT_S)
    [one] = sent.recipients
    assert (sent.reached, one.status) == (False, "held")
    assert one.hint


@pytest.mark.usefixtures("only_hints")
async def test_a_message_that_is_declined_ends_the_wait_with_the_reason(tmp_path: Path) -> None:
    async with two_people(tmp_path) as world:
        await world.revoke("message")
        waiting = await world.bob.send("ada", "psst", wait_for="delivered", wait_s=LIMIT_S)
        assert rows(waiting) == {"ada": "held"}
        await world.block(blocked=True)
        with anyio.fail_after(LIMIT_S):
            sent = await world.bob.send("ada", "psst", wait_for="seen", wait_s=LIMIT_S)
    assert (sent.reached, rows(sent)) == (False, {"ada": "declined"})


@pytest.mark.usefixtures("only_hints")
async def test_a_message_that_expires_meanwhile_ends_the_wait(twin: Twin) -> None:
    ada = await twin.join("ada")
    await ended(twin, "bob")
    found: list[SendResult] = []

    async def send() -> None:
        found.append(await ada.send("bob", "now", expires_in_s=5, wait_for="seen", wait_s=LIMIT_S))

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await listening(ada)
            twin.clock.pass_ms(5000)
            await twin.broker.run_due()
    assert (found[0].reached, rows(found[0])) == (False, {"bob": "expired"})


async def test_a_sender_without_presence_asks_again_until_it_is_so(twin: Twin) -> None:
    await twin.join("bob")
    ada = await twin.join("ada", Mode.CALL)
    with anyio.fail_after(LIMIT_S):
        sent = await ada.send("bob", "lunch?", wait_for="delivered", wait_s=LIMIT_S)
    assert sent.reached


@pytest.mark.usefixtures("often")
async def test_a_hint_that_is_lost_costs_time_and_nothing_else(twin: Twin) -> None:
    ada = await twin.join("ada")
    await twin.join("bob")
    twin.lie = lambda text: None if " receipts.news " in text else text
    with anyio.fail_after(LIMIT_S):
        sent = await ada.send("bob", "lunch?", wait_for="delivered", wait_s=LIMIT_S)
    assert sent.reached


async def test_a_connection_that_breaks_meanwhile_is_waited_for(twin: Twin) -> None:
    ada = await twin.join("ada")
    await twin.join("bob")
    twin.lie = lambda text: None if " messages.deliver " in text else text
    found: list[SendResult] = []

    async def send() -> None:
        found.append(await ada.send("bob", "lunch?", wait_for="delivered", wait_s=LIMIT_S))

    with anyio.fail_after(LIMIT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await listening(ada)
            twin.lie = None
            await twin.cut()
    assert found[0].reached


@pytest.mark.usefixtures("often")
async def test_a_broker_that_is_gone_leaves_what_the_send_had_said(twin: Twin) -> None:
    ada = await twin.join("ada")
    await twin.join("bob")
    twin.lie = lambda text: None if " receipts.status_found " in text else text
    sent = await ada.send("bob", "lunch?", wait_for="seen", wait_s=SHORT_S)
    assert (sent.reached, rows(sent)) == (False, {"bob": "accepted"})


async def test_an_invented_receipt_is_named_and_the_message_with_it(twin: Twin) -> None:
    ada = await twin.join("ada")
    await ended(twin, "bob")

    def invent(body: dict[str, Any]) -> None:
        body["recipients"][0]["status"] = "seen"

    twin.lie = changed("receipts.status_found", invent)
    with pytest.raises(Forbidden) as caught:
        await ada.send("bob", "hello", idempotency_key="one", wait_for="seen", wait_s=LIMIT_S)
    assert caught.value.code == "forged_receipt"
    twin.lie = None
    again = await ada.send("bob", "hello", idempotency_key="one")
    assert again.id in caught.value.hint


async def test_a_pushed_receipt_alone_proves_nothing(twin: Twin) -> None:
    ada = await twin.join("ada")
    await ended(twin, "bob")
    found: list[SendResult] = []

    async def send() -> None:
        found.append(await ada.send("bob", "lunch?", wait_for="seen", wait_s=1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await listening(ada)
        (message,) = ada.peer.hints._waiting
        said = BrokerNews(id=message, recipient=READER, status=ReceiptStatus.SEEN, at_ms=1)
        ada.peer.hints.hear(said)
    assert (found[0].reached, rows(found[0])) == (False, {"bob": "queued"})


async def test_a_wait_that_is_cancelled_takes_nothing_back(twin: Twin) -> None:
    ada = await twin.join("ada")
    await ended(twin, "bob")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ada.send("bob", "lunch?", wait_for="seen", wait_s=LIMIT_S))
        await listening(ada)
        tasks.cancel_scope.cancel()
    assert (ada.peer.hints._waiting, ada.peer.hints._listeners) == ({}, 0)
    bob = await twin.join("bob")
    assert [one.text for one in (await bob.inbox(wait_s=LIMIT_S)).messages] == ["lunch?"]


async def test_a_repeated_send_may_wait_for_the_first_one(twin: Twin) -> None:
    ada = await twin.join("ada")
    await twin.join("bob")
    first = await ada.send("bob", "lunch?", idempotency_key="one")
    again = await ada.send(
        "bob", "lunch?", idempotency_key="one", wait_for="delivered", wait_s=LIMIT_S
    )
    assert (again.id, again.reached) == (first.id, True)


@pytest.mark.parametrize(
    "how",
    [
        {"wait_s": 5},
        {"wait_for": "read"},
        {"wait_for": ""},
        {"wait_for": "seen", "wait_s": 0},
        {"wait_for": "seen", "wait_s": -1},
        {"wait_for": "seen", "wait_s": float("nan")},
        {"wait_for": "seen", "wait_s": float("inf")},
    ],
    ids=str,
)
async def test_a_wait_that_makes_no_sense_is_refused_and_nothing_sent(
    twin: Twin, how: dict[str, Any]
) -> None:
    ada, bob = await twin.join("ada"), await twin.join("bob")
    with pytest.raises(Invalid) as caught:
        await ada.send("bob", "lunch?", **how)
    assert caught.value.code == "bad_wait"
    assert caught.value.hint
    assert (await bob.inbox()).messages == []


async def test_two_who_wait_for_the_same_message_are_both_woken() -> None:
    heard: list[bool] = []
    hints = waits.Hints()
    hints.listen_by(lambda *, wanted: heard.append(wanted))
    news = BrokerNews(id=MESSAGE, recipient=READER, status=ReceiptStatus.EXPIRED, at_ms=1)
    with hints.expect(MESSAGE):
        first = hints.next(MESSAGE)
        with hints.expect(MESSAGE):
            assert hints.next(MESSAGE) is first
        # The other has gone: whoever waits asks once more, and goes on waiting.
        assert first.is_set()
        second = hints.next(MESSAGE)
        assert not second.is_set()
        hints.hear(news)
        assert second.is_set()
    assert heard == [False, True, True, True, False]


async def test_a_new_connection_pushes_to_whoever_waits_already() -> None:
    heard: list[bool] = []
    hints = waits.Hints()
    with hints.expect(MESSAGE):
        hints.listen_by(lambda *, wanted: heard.append(wanted))
    assert heard == [True, False]


async def test_an_error_that_passes_is_asked_again_as_it_says() -> None:
    asked: list[int] = []

    async def ask() -> Any:
        asked.append(1)
        if len(asked) == 1:
            raise TooMuch("Too many.", retry_after_s=SHORT_S)
        raise Forbidden("No.", "Leave it.")

    with pytest.raises(Forbidden):
        await waits.reach(MESSAGE, "seen", ask, waits.Hints(), (LIMIT_S, True))
    assert len(asked) == 2
