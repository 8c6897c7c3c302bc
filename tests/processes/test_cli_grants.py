"""The commands about other members, as real processes: what they say, and what they end with."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.cli.grants import tell_untold
from claudemesh_mcp.cli.stage import Actor
from claudemesh_mcp.config import Settings
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import TooMuch, Unavailable
from claudemesh_wire.keys import SigningKey, b64, member_id
from claudemesh_wire.membership import Entry, EntryFields, EntryKind
from claudemesh_wire.meshes import AppendEntry
from tests.support.shell import LIMIT_S, Shell, shell_in

BOB = SigningKey(bytes(31) + b"\x12")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        yield shell


async def add_bob(shell: Shell) -> None:
    """Let the home's member add another one, who has no session."""
    settings = Settings.load({"home": shell.home, "keyring": False}, environ={})
    async with Mesh.connect(settings=settings, attach=False, resume="admin") as mesh:
        trust, identity = mesh.peer.trust, mesh.peer.identity
        said = EntryFields(
            mesh=trust.mesh,
            seq=trust.head.seq + 1,
            prev=b64(trust.head.hash),
            at=mesh.peer.now_ms(),
            kind=EntryKind.ADD,
            by=identity.member,
            member=member_id(BOB.public),
            key=b64(BOB.public.raw),
            name="bob",
            role="member",
        )
        client = await mesh.ready()
        await client.call(AppendEntry(entry=Entry.issue(said, identity.key).blob))


async def test_grants_are_made_listed_and_taken_back(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        assert (await shell.runs("up")).code == 0
        alone = await shell.runs("grants")
        assert (alone.code, alone.out) == (0, "")
        await add_bob(shell)
        both = await shell.runs("grant", "bob", "task,tool")
        assert (both.code, both.err) == (0, "bob may: task, tool.\n")
        nothing = await shell.runs("grant", "bob", ",", "--json")
        assert nothing.code == 2
        assert (await shell.runs("revoke", "bob", "tool", "wake")).code == 0
        assert (await shell.runs("block", "bob")).code == 0
        listed = (await shell.runs("grants", "--json")).json
        [row] = listed["i_let"]
        assert (row["member"], row["standing"], row["granted"], row["blocked"]) == (
            "bob",
            "member",
            True,
            True,
        )
        assert (row["rights"]["task"], row["rights"]["tool"], row["rights"]["wake"]) == (
            "yes",
            "no",
            "no",
        )
        assert [one["rights"]["file"] for one in listed["let_me"]] == ["no"]
        table = await shell.runs("grants")
        assert "bob" in table.out
        assert "blocked" in table.out
        assert (await shell.runs("unblock", member_id(BOB.public))).code == 0
        assert not (await shell.runs("grants", "--json")).json["i_let"][0]["blocked"]


async def test_a_member_is_let_provide_a_service_and_not_any_more(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        assert (await shell.runs("up")).code == 0
        await add_bob(shell)
        done = await shell.runs("grant", "bob", "provide:files", "tool")
        assert (done.code, done.err.strip()) == (0, "bob may: provide:files, tool.")
        assert (await shell.runs("grants", "--json")).json["i_let"][0]["provides"] == ["files"]
        heading, row, *_ = (await shell.runs("grants")).out.splitlines()[1:]
        assert "provide" in heading
        assert row.split()[-2:] == ["files", "granted"]
        checked = await shell.runs("doctor", "--json")
        [check] = [one for one in checked.json["checks"] if one["name"] == "grants"]
        assert "bob may provide files as well as you." in check["message"]
        unknown = await shell.runs("revoke", "bob", "provide:file")
        assert (unknown.code, "provide file" in unknown.err) == (3, True)
        assert (await shell.runs("revoke", "bob", "provide:files")).code == 0
        assert (await shell.runs("grants", "--json")).json["i_let"][0]["provides"] == []
        assert (await shell.runs("grant", "bob", "provide:Files")).code == 2


async def test_what_makes_no_sense_is_refused_with_the_remedy(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        assert (await shell.runs("up")).code == 0
        await add_bob(shell)
        unknown = await shell.runs("grant", "bobb", "task")
        assert (unknown.code, unknown.out) == (3, "")
        assert "bob" in unknown.err
        assert (await shell.runs("allow", "carol")).code == 3
        assert (await shell.runs("allow", "msg_" + "a" * 26)).code == 3
        capability = await shell.runs("grant", "bob", "tasks")
        assert capability.code == 2
        assert "task" in capability.err
        assert (await shell.runs("block", "b\u043eb")).code == 2
        assert (await shell.runs("inbox", "--held", "--follow")).code == 2


async def test_what_is_held_is_told_in_one_line(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            await held_message(shell, ada)
            assert (await ada.call("inbox"))["held"] == 1
            for command in ("status", "inbox", "peers"):
                told = await shell.runs(command)
                assert told.code == 0
                assert told.err.splitlines()[-1] == (
                    "1 message from max is held: claudemesh inbox --held"
                )


async def test_what_is_held_is_listed_and_let_through(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            sent = await held_message(shell, ada)
            [row] = (await shell.runs("inbox", "--held", "--json")).json["held"]
            assert (row["id"], row["begins"], row["lacks"], row["to"]) == (
                sent,
                "first line",
                "message",
                ada.peer,
            )
            assert (await shell.runs("allow", sent)).code == 0
            [got] = (await ada.call("inbox"))["messages"]
            assert got["text"] == "first line\nsecond"
            nothing = await shell.runs("inbox", "--held")
            assert (nothing.code, nothing.out) == (0, "")


async def test_what_is_held_is_declined_for_good(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            sent = await held_message(shell, ada)
            done = await shell.runs("discard", sent)
            assert (done.code, done.err.strip()) == (0, "1 message from max declined.")
            assert (await shell.runs("inbox", "--held", "--json")).json["held"] == []
            assert (await ada.call("inbox"))["messages"] == []
            assert (await shell.runs("discard", sent)).code == 3


async def held_message(shell: Shell, ada: Actor) -> str:
    """Have a message held in ada's file; gives its id."""
    sent = await shell.runs("send", "ada", "first\x1b[31m line\nsecond", "--json")
    assert len((await ada.call("inbox", peek=True, wait_s=20))["messages"]) == 1
    hold(shell.home / "sessions" / ada.peer / "peer.db")
    return sent.json["id"]


def hold(path: Path) -> None:
    """File all messages of a peer as held, as a session does whose member has revoked a grant."""
    with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        connection.execute("UPDATE inbox SET held = 'message'")


def test_what_the_broker_has_no_room_for_is_not_said_to_be_told_later(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell_untold(Unavailable("No broker answers.", code="unreachable"))
    assert "is told by the next of these commands" in capsys.readouterr().err
    tell_untold(TooMuch("The broker keeps no more.", code="too_many_said"))
    assert "is told by" not in capsys.readouterr().err
