"""A client with servers for two meshes: its hooks, monitor and rewake hook serve both peers."""

import json
import os
import select
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from claudemesh_mcp.routes import facts, records, rests
from tests.routes.test_monitor import LIMIT_S, line_of, running
from tests.support.routing import PEER, SESSION, Beside, beside

WORK = "p_" + "w" * 26


@pytest.fixture
def work(bob: Beside) -> Iterator[Beside]:
    """Give the peer of the same client in a second mesh."""
    with beside(bob.home, WORK, "work", "mesh_work") as opened:
        yield opened


def test_a_prompt_shows_what_waits_in_both_and_names_the_meshes(bob: Beside, work: Beside) -> None:
    bob.put("Two herons.")
    work.put("Three swans.")
    shown = bob.prompt()
    assert shown.count("claudemesh: 1 message from the mesh") == 2
    for text, mesh in (("Two herons.", '"local"'), ("Three swans.", '"work"')):
        (part,) = [one for one in shown.split("claudemesh: ") if text in one]
        assert mesh in part.partition(". ")[0]
    bob.stop()
    assert (bob.receipts(), work.receipts()) == ([("seen", "prompt")], [("seen", "prompt")])
    assert bob.prompt() == ""


def test_the_reader_of_one_mesh_is_told_no_name_of_it(bob: Beside) -> None:
    bob.put()
    assert bob.prompt().startswith("claudemesh: 1 message from the mesh. ")


@pytest.mark.parametrize("event", ["SessionStart", "PostToolUse", "Stop"])
def test_each_event_looks_into_both(bob: Beside, work: Beside, event: str) -> None:
    bob.put("Two herons.", priority="now")
    work.put("Three swans.", priority="now")
    shown = bob.hook(event, source="startup", tool_use_id="toolu_1")
    assert "Two herons." in shown
    assert "Three swans." in shown


def test_both_together_print_no_more_than_one_may_and_lose_nothing(
    bob: Beside, work: Beside
) -> None:
    for number in range(12):
        bob.put(f"{number} " + "x" * 1_500)
        work.put(f"{number} " + "y" * 1_500)
    turns = 0
    while {"waiting", "handed"} & {*bob.states(), *work.states()}:
        shown = bob.prompt()
        assert 0 < len(shown) <= 9_000
        bob.stop()
        turns += 1
        assert turns < 12
    assert len(bob.receipts()) == len(work.receipts()) == 12


def test_a_turn_that_one_mesh_goes_on_with_goes_on_in_both(bob: Beside, work: Beside) -> None:
    bob.prompt()
    work.put("Three swans.")
    assert "Three swans." in bob.stop()
    both = (bob, work)
    assert [one.fact(facts.ACTIVITY) for one in both] == ["working", "working"]
    assert [one.fact(facts.CONTINUED) for one in both] == ["1", "1"]
    assert bob.stop() == ""
    assert [one.fact(facts.ACTIVITY) for one in both] == ["idle", "idle"]


def test_a_file_that_is_locked_keeps_nothing_from_being_shown_of_the_other(
    bob: Beside, work: Beside
) -> None:
    bob.put("Two herons.")
    work.put("Three swans.")
    said = json.dumps({"session_id": SESSION, "stop_hook_active": False}).encode()
    with closing(sqlite3.connect(bob.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ran = bob.feed("Stop", said)
        other.execute("ROLLBACK")
    assert (ran.code, ran.err) == (0, "")
    assert "Three swans." in ran.text
    # The turn goes on: nobody is to believe that it has ended.
    assert not Path(records.rest(bob.home, bob.record())).exists()
    (bob.home / "logs" / "routes.log").unlink()
    assert "Two herons." in bob.stop()


def test_a_file_that_is_gone_keeps_nothing_from_being_shown_of_the_other(
    bob: Beside, work: Beside
) -> None:
    work.put("Three swans.")
    bob.record(file=str(bob.home / "none.db"))
    said = json.dumps({"session_id": SESSION, "prompt": "Go on."}).encode()
    assert "Three swans." in bob.feed("UserPromptSubmit", said).text


def written_at_once(process: subprocess.Popen[bytes]) -> str:
    """Give all that a program has written when it writes."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], LIMIT_S)
    assert ready
    return os.read(process.stdout.fileno(), 4096).decode()


def test_a_monitor_rings_for_each_and_once_for_what_came_to_both(bob: Beside, work: Beside) -> None:
    bob.put("Two herons.")
    work.put("Three swans.")
    with running(bob, "monitor.py") as monitor:
        lines = written_at_once(monitor)
        shown = bob.prompt(f"<task-notification><event>{lines}</event></task-notification>")
        assert "Two herons." in shown
        assert "Three swans." in shown
        bob.stop()
        work.put("Four geese.")
        line = written_at_once(monitor)
        assert "Four geese." in bob.prompt(f"<task-notification>{line}</task-notification>")
        bob.stop()
    assert bob.receipts() == [("seen", "monitor")]
    assert work.receipts() == [("seen", "monitor")] * 2


def test_a_rewake_hook_rings_for_the_second_mesh_too(bob: Beside, work: Beside) -> None:
    with running(bob, "hook.py", "rewake") as rewake:
        work.put("Three swans.")
        assert rewake.wait(LIMIT_S) == 2
        assert rewake.stderr is not None
        line = rewake.stderr.read().decode()
    assert "Three swans." in bob.prompt(f"<task-notification>{line}</task-notification>")


def test_a_second_server_that_comes_later_is_heard_by_the_monitor(bob: Beside) -> None:
    with running(bob, "monitor.py") as monitor:
        bob.put()
        line_of(monitor)
        with beside(bob.home, WORK, "work", "mesh_work") as work:
            work.put(handle="cleo")
            assert "1 message from cleo" in line_of(monitor)


def test_the_alias_of_a_session_leads_to_the_peer_of_each_mesh(bob: Beside, work: Beside) -> None:
    bob.hook("SessionStart", source="startup")
    bob.hook("SessionStart", source="clear", session_id="later")
    for session in (SESSION, "later"):
        found = [records.peer_of(bob.home, session, one.mesh_id) for one in (bob, work)]
        assert found == [PEER, WORK]
    bob.hook("SessionStart", source="fork", session_id="branch")
    assert [records.peer_of(bob.home, "later", one.mesh_id) for one in (bob, work)] == [None, None]


def test_a_client_that_tells_no_pid_is_known_in_both_by_its_session(
    bob: Beside, work: Beside
) -> None:
    bob.hook("SessionStart", source="startup")
    bob.put("Two herons.")
    work.put("Three swans.")
    del bob.environ["CLAUDE_PID"]
    shown = bob.prompt()
    assert "Two herons." in shown
    assert "Three swans." in shown


def test_the_end_of_a_turn_is_remembered_for_each(bob: Beside, work: Beside) -> None:
    bob.prompt()
    said = json.dumps({"session_id": SESSION, "stop_hook_active": False}).encode()
    with closing(sqlite3.connect(work.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        bob.feed("Stop", said)
        other.execute("ROLLBACK")
    assert (bob.fact(facts.ACTIVITY), work.fact(facts.ACTIVITY)) == ("idle", "working")
    rests.take(work.sql, work.home, work.record())
    assert work.fact(facts.ACTIVITY) == "idle"
    assert work.fact(facts.CLIENT) == f"{os.getpid()}.{work.record().start}"
