"""The end of a turn that meets a locked file is remembered, and taken in by whoever comes next."""

import json
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from claudemesh_mcp.routes import facts, records, rests
from tests.routes.test_monitor import line_of, running, wait_until
from tests.support.routing import SESSION, Beside, Ran

STOP = json.dumps({"session_id": SESSION, "hook_event_name": "Stop"}).encode()


@contextmanager
def locked(bob: Beside) -> Iterator[None]:
    """Let somebody have the peer's file locked for a change."""
    with closing(sqlite3.connect(bob.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def stop_while_locked(bob: Beside) -> Path:
    """Let a turn end while the file is locked; gives what is left of that."""
    with locked(bob):
        assert bob.feed("Stop", STOP) == Ran(0, "", "")
    assert "hook Stop: OperationalError" in bob.log
    (bob.home / "logs" / "routes.log").unlink()
    return Path(records.rest(bob.home, bob.record()))


def test_it_is_left_in_a_file_that_is_the_users_own(bob: Beside) -> None:
    bob.prompt()
    left = stop_while_locked(bob)
    assert stat.S_IMODE(left.stat().st_mode) == 0o600
    assert [path.name for path in left.parent.iterdir() if path.suffix == ".tmp"] == []


def test_what_the_turn_had_shown_is_seen_and_not_shown_again(bob: Beside) -> None:
    bob.put("Two herons.")
    assert "Two herons." in bob.prompt()
    left = stop_while_locked(bob)
    bob.put("Three swans.")
    shown = bob.prompt()
    assert "Three swans." in shown
    assert "Two herons." not in shown
    assert bob.receipts() == [("seen", "prompt")]
    assert bob.fact(facts.ACTIVITY) == "working"
    assert not left.exists()


def test_a_tool_call_of_the_next_turn_takes_it_in_too(bob: Beside) -> None:
    bob.put()
    bob.prompt()
    left = stop_while_locked(bob)
    bob.tool()
    assert not left.exists()
    assert (bob.states(), bob.fact(facts.ACTIVITY)) == (["seen"], "working")


def test_a_monitor_takes_it_in_and_rings_for_what_waits(bob: Beside) -> None:
    bob.prompt()
    bob.put()
    left = stop_while_locked(bob)
    with running(bob, "monitor.py") as monitor:
        assert "1 message" in line_of(monitor)
    assert not left.exists()
    assert bob.fact(facts.ACTIVITY) == "idle"


def test_a_monitor_waits_until_the_file_takes_it(bob: Beside) -> None:
    bob.prompt()
    bob.put()
    with running(bob, "monitor.py") as monitor:
        with locked(bob):
            assert bob.feed("Stop", STOP) == Ran(0, "", "")
            wait_until(lambda: "monitor: OperationalError" in bob.log)
        assert "1 message" in line_of(monitor)


def test_the_next_end_of_a_turn_is_as_ever(bob: Beside) -> None:
    bob.prompt()
    stop_while_locked(bob)
    bob.put()
    assert "Hello." in bob.stop()


def test_what_a_hook_has_said_since_counts_for_more(bob: Beside) -> None:
    bob.prompt()
    left = stop_while_locked(bob)
    kept = left.read_bytes()
    bob.prompt()
    bob.put(priority="now")
    assert "Hello." in bob.tool()
    left.write_bytes(kept)
    rests.take(bob.sql, bob.home, bob.record())
    assert (bob.states(), bob.fact(facts.ACTIVITY)) == (["handed"], "working")
    assert not left.exists()


def test_what_an_earlier_client_left_says_nothing_of_this_one(bob: Beside) -> None:
    bob.prompt()
    record = bob.record()
    rests.leave(bob.home, record._replace(start=record.start - 1), SESSION)
    rests.take(bob.sql, bob.home, record)
    assert bob.fact(facts.ACTIVITY) == "working"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"client": 1}'])
def test_one_that_is_damaged_disturbs_nobody(bob: Beside, content: bytes) -> None:
    bob.put()
    Path(records.rest(bob.home, bob.record())).write_bytes(content)
    assert "Hello." in bob.prompt()


def test_one_whose_client_is_gone_is_swept(bob: Beside) -> None:
    record = bob.record()
    rests.leave(bob.home, record._replace(pid=2**22 + 1, start=1), SESSION)
    records.sweep(bob.home)
    left = [path.name for path in Path(records.clients(bob.home)).iterdir()]
    assert left == [Path(records.path_of(bob.home, record)).name]


def test_an_event_that_another_file_refuses_is_not_taken_for_an_end(bob: Beside) -> None:
    bob.prompt()
    said = json.dumps({"session_id": SESSION, "tool_use_id": "toolu_1"}).encode()
    bob.put(priority="now")
    with locked(bob):
        assert bob.feed("PostToolUse", said) == Ran(0, "", "")
    assert not Path(records.rest(bob.home, bob.record())).exists()
    assert bob.fact(facts.ACTIVITY) == "working"
