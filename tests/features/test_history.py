"""History: what a session sent and read is found again, and nothing else is.

A twin's peers talk; one of them looks back.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp import inbox, tools
from claudemesh_mcp.calls import CallContext
from claudemesh_mcp.results import HistoryResult
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import Invalid, MeshError, NotFound, TooMuch
from tests.support.twin import Twin, a_mesh

LIMIT_S = 20
MINUTE_MS = 60_000


def texts(found: HistoryResult) -> list[str]:
    return [one.text for one in found.messages]


async def read(mesh: Mesh, count: int) -> list[str]:
    """Read so many messages, and prove it; gives their ids."""
    ids: list[str] = []
    with anyio.fail_after(LIMIT_S):
        while len(ids) < count:
            ids += [one.id for one in (await mesh.inbox(wait_s=LIMIT_S)).messages]
    await mesh.confirm()
    return ids


async def a_talk(twin: Twin) -> tuple[Mesh, Mesh]:
    """Ada asks, bob answers, ada thanks; bob has read all of it."""
    ada, bob = await twin.join("ada"), await twin.join("bob")
    asked = await ada.send("bob", "Is the café open?", thread="lunch")
    await read(bob, 1)
    twin.clock.pass_ms(MINUTE_MS)
    await bob.send("ada", "Until three.", reply_to=asked.id, thread="lunch")
    await read(ada, 1)
    twin.clock.pass_ms(MINUTE_MS)
    await ada.send("bob", "Thanks, café it is.")
    await read(bob, 1)
    return ada, bob


async def test_both_sides_of_a_talk_are_found_newest_first(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await a_talk(twin)
        found = await bob.history()
        assert texts(found) == ["Thanks, café it is.", "Until three.", "Is the café open?"]
        newest, answer, first = found.messages
        assert [one.direction for one in found.messages] == ["received", "sent", "received"]
        assert (answer.thread, answer.reply_to, answer.to) == ("lunch", first.id, ["ada"])
        (to,), (sender,) = answer.partners, newest.partners
        assert (to.peer, to.handle, to.status) == (ada.peer.id, "ada", "accepted")
        assert (sender.peer, sender.handle, sender.status) == (ada.peer.id, "ada", None)
        assert first.at < answer.at < newest.at
        assert (found.unread, found.more, found.next_before) == (0, False, None)
        assert found.notice


async def test_what_one_sent_oneself_needs_no_warning(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, _ = await twin.join("ada"), await twin.join("bob")
        await ada.send("bob", "hello")
        assert (await ada.history()).notice is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("cafe", ["Thanks, café it is.", "Is the café open?"]),
        ("CAFÉ open", ["Is the café open?"]),
        ('"cafe it is"', ["Thanks, café it is."]),
        ('"it cafe"', []),
        ("unt*", ["Until three."]),
        ("unt", []),
        ("three AND until", []),
        ("open OR three", []),
        ("  ", ["Thanks, café it is.", "Until three.", "Is the café open?"]),
        ("?!", []),
    ],
)
async def test_words_phrases_and_beginnings_are_found(
    tmp_path: Path, query: str, found: list[str]
) -> None:
    async with a_mesh(tmp_path) as twin:
        _, bob = await a_talk(twin)
        assert texts(await bob.history(query)) == found


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("明日の会議は三時に始まります", "会議"),
        ("ビルドが失敗しました", "失敗しました"),
        ("서버가 멈췄습니다", "서버"),
        ("ประชุมพรุ่งนี้", "พรุ่งนี้"),
        ("Ein Ångström ist kürzer", "angstrom KURZER"),
        ("Ein A\u030angstro\u0308m", "ångström"),
    ],
)
async def test_marks_make_no_difference_and_what_has_no_spaces_is_found_by_any_part(
    tmp_path: Path, text: str, query: str
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        await ada.send("bob", text)
        await read(bob, 1)
        assert texts(await bob.history(query)) == [text]
        assert texts(await ada.history(query)) == [text]


async def test_what_was_not_read_is_counted_and_left_to_the_inbox(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await a_talk(twin)
        sent = await ada.send("bob", "The café is closed.")
        with anyio.fail_after(LIMIT_S):
            while not (await bob.inbox(peek=True)).messages:
                await anyio.lowlevel.checkpoint()
        for query, unread in (("cafe", 1), ("", 1), ("three", 0)):
            found = await bob.history(query)
            assert found.unread == unread
            assert "The café is closed." not in texts(found)
        (status,) = (await ada.message_status(sent.id)).recipients
        assert status.seen_at is None
        await read(bob, 1)
        assert texts(await bob.history("closed")) == ["The café is closed."]


async def test_what_is_held_is_neither_shown_nor_counted(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        _, bob = await a_talk(twin)
        await bob.peer.file.write(lambda sql: sql.execute("UPDATE inbox SET held = 'message'"))
        found = await bob.history()
        assert (texts(found), found.unread) == (["Until three."], 0)
        assert texts(await bob.history("cafe")) == []


async def test_with_names_a_handle_a_member_a_peer_or_a_group(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await a_talk(twin)
        cleo = await twin.join("cleo")
        await cleo.join("@team")
        await bob.join("@team")
        await cleo.send("@team", "to the team")
        await read(bob, 1)
        twin.clock.pass_ms(MINUTE_MS)
        await bob.send("@team", "from bob")
        await bob.send(["ada", "cleo"], "to both")
        member = (await bob.mesh_info()).me.member
        with_ada = ["to both", "Thanks, café it is.", "Until three.", "Is the café open?"]
        with_cleo = ["to both", "from bob", "to the team"]
        for names, expected in (
            (["ada", "ADA", f"{member}/ada", ada.peer.id, ada.peer.id[:8]], with_ada),
            (["cleo", f"{member}/cleo", cleo.peer.id], with_cleo),
            (["@team"], ["from bob", "to the team"]),
            (["nobody", "*", "#lunch", f"nobody/{ada.peer.handle}"], []),
            ([member], [*with_cleo, *with_ada[1:]]),
        ):
            for name in names:
                assert texts(await bob.history(with_=name)) == expected, name
        assert texts(await bob.history(with_="ada", query="three")) == ["Until three."]
        (by_group,) = (await bob.history("team", with_="@team")).messages
        assert by_group.to == ["@team"]


async def test_a_thread_is_shown_alone(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        _, bob = await a_talk(twin)
        found = await bob.history(thread="lunch")
        assert texts(found) == ["Until three.", "Is the café open?"]


async def pages(mesh: Mesh, limit: int, **wanted: Any) -> list[list[str]]:
    """Turn pages until there is none; gives the texts of each."""
    turned: list[list[str]] = []
    before = None
    while True:
        found = await mesh.history(limit=limit, before=before, **wanted)
        turned.append(texts(found))
        assert found.more == (found.next_before is not None)
        if not found.more:
            return turned
        before = found.next_before


@pytest.mark.parametrize("query", ["", "number"])
async def test_turning_pages_shows_everything_once_also_what_came_at_one_time(
    tmp_path: Path, query: str
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        for number in range(4):
            await ada.send("bob", f"number {2 * number}")
            await bob.send("ada", f"number {2 * number + 1}")
            twin.clock.pass_ms(number % 2)
        await read(bob, 4)
        everything = texts(await bob.history(query))
        assert sorted(everything) == [f"number {number}" for number in range(8)]
        for limit in (1, 3, 7, 8):
            turned = await pages(bob, limit, query=query)
            assert [text for page in turned for text in page] == everything
            assert [len(page) for page in turned[:-1]] == [limit] * (len(turned) - 1)


async def test_before_is_a_time_or_a_message(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        _, bob = await a_talk(twin)
        newest, answer, first = (await bob.history()).messages
        assert texts(await bob.history(before=newest.id)) == [answer.text, first.text]
        assert texts(await bob.history(before=answer.at)) == [first.text]
        shifted = answer.at.replace("Z", "+00:00")
        assert texts(await bob.history(before=shifted)) == [first.text]
        assert texts(await bob.history(before="9999-01-01T00:00:00Z", limit=1)) == [newest.text]
        assert texts(await bob.history(before="0001-01-01T00:00:00Z")) == []


@pytest.mark.parametrize(
    ("wanted", "kind", "code"),
    [
        ({"before": "yesterday"}, Invalid, "bad_before"),
        ({"before": "2026-11-24T10:00:00Z#x"}, Invalid, "bad_before"),
        ({"before": "msg_" + 26 * "a"}, NotFound, "not_found"),
        ({"with_": "no such name!"}, Invalid, "bad_address"),
        ({"limit": 0}, Invalid, "bad_limit"),
        ({"limit": 101}, Invalid, "bad_limit"),
        ({"query": "q" * 201}, TooMuch, "too_much"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_hint(
    tmp_path: Path, wanted: dict[str, Any], kind: type[MeshError], code: str
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        with pytest.raises(kind) as caught:
            await ada.history(**wanted)
        assert (caught.value.code, bool(caught.value.hint)) == (code, True)


async def test_a_long_text_is_shown_around_what_was_found_and_whole_by_its_id(
    tmp_path: Path,
) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, bob = await twin.join("ada"), await twin.join("bob")
        text = f"{'before ' * 300}the crème brûlée{' behind' * 300}"
        sent = await ada.send("bob", text)
        await read(bob, 1)
        for mesh in (ada, bob):
            (hit,) = (await mesh.history("creme")).messages
            assert hit.cut
            assert len(hit.text) <= 500
            assert "crème brûlée" in hit.text
            (start,) = (await mesh.history()).messages
            assert start.text.startswith("before before")
            (whole,) = (await mesh.inbox(id=sent.id)).messages
            assert (whole.text, whole.handle, whole.trust) == (text, "ada", "own")


async def test_what_waits_for_the_broker_and_what_it_refused_say_so(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        ada, _ = await a_talk(twin)
        refusal = '{"code": "queue_full", "category": "too_much", "message": "", "hint": ""}'
        await ada.peer.file.write(
            lambda sql: (
                sql.execute(
                    "UPDATE outbox SET state = iif(thread IS NULL, 'waiting', 'refused'),"
                    " answer = iif(thread IS NULL, NULL, ?)",
                    (refusal,),
                ).rowcount
            )
        )
        statuses = {
            one.text: one.partners[0].status
            for one in (await ada.history()).messages
            if one.direction == "sent"
        }
        assert statuses == {"Is the café open?": "refused", "Thanks, café it is.": "pending"}


async def test_looking_back_works_without_a_connection(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        _, bob = await a_talk(twin)
        twin.online = False
        await twin.cut()
        assert len((await bob.history("cafe")).messages) == 2


async def test_after_thirty_days_nothing_is_found(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        _, bob = await a_talk(twin)
        assert len((await bob.history("cafe")).messages) == 2
        twin.clock.pass_ms(inbox.KEPT_MS + MINUTE_MS)
        await twin.cut()
        with anyio.fail_after(LIMIT_S):
            while (await bob.history()).messages:  # They go when it is connected again.
                await anyio.lowlevel.checkpoint()
        assert texts(await bob.history("cafe")) == []


async def test_a_model_asks_with_the_word_with(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:
        _, bob = await a_talk(twin)
        shown: Any = await tools.run(
            bob, "history", {"with": "ada", "query": "three"}, CallContext()
        )
        (message,) = shown["messages"]
        assert set(message) == {
            "id", "direction", "at", "with", "to", "text", "thread", "reply_to"
        }  # fmt: skip
        assert message["with"][0]["handle"] == "ada"
        with pytest.raises(Invalid) as caught:
            await tools.run(bob, "history", {"with_": "ada"}, CallContext())
        assert "with" in words(caught.value.hint)
        with pytest.raises(Invalid) as wrong:
            await tools.run(bob, "history", {"with": 7}, CallContext())
        assert wrong.value.details["parameter"] == "with"


def words(text: str) -> Iterable[str]:
    return re.findall(r"\w+", text)
