"""What a sender has superseded, or what is for another commit, reaches no model by any route."""

import time
from pathlib import Path

import pytest

from claudemesh_mcp import staleness
from claudemesh_mcp.routes import bells, facts
from claudemesh_mcp.routes.bells import MONITOR
from claudemesh_mcp.routes.facts import Activity, Mode
from tests.support.repository import commit, git, repository
from tests.support.routing import Beside


def put_two(bob: Beside) -> None:
    """Let a message have arrived, and the one that takes its place."""
    bob.put("Deploy at two.", priority="now", superseded_by="msg_2")
    bob.put("Deploy at three.", priority="now", supersedes="msg_1")


@pytest.mark.parametrize("moment", ["SessionStart", "UserPromptSubmit", "PostToolUse", "Stop"])
def test_no_hook_shows_what_was_superseded(bob: Beside, moment: str) -> None:
    put_two(bob)
    looks = {
        "SessionStart": lambda: bob.hook("SessionStart", source="startup"),
        "UserPromptSubmit": bob.prompt,
        "PostToolUse": bob.tool,
        "Stop": bob.stop,
    }
    text = looks[moment]()
    assert "Deploy at three." in text
    assert "Deploy at two." not in text
    assert "supersedes" not in text
    assert ("withheld", "superseded") in bob.receipts()


def test_what_takes_the_place_of_something_shown_says_so(bob: Beside) -> None:
    bob.put("Deploy at two.")
    assert "Deploy at two." in bob.prompt()
    bob.sql.execute("UPDATE inbox SET superseded_by = 'msg_2'")
    bob.put("Deploy at three.", supersedes="msg_1")
    assert 'supersedes="msg_1"' in bob.prompt()


def test_a_hook_shows_what_is_for_the_commit_that_is_checked_out(
    bob: Beside, tmp_path: Path
) -> None:
    shop = repository(tmp_path / "shop")
    first = git(shop, "rev-parse", "HEAD")
    second = commit(shop)
    staleness.stand_in(bob.sql, str(shop))
    bob.put("About the first.", git_sha=first)
    bob.put("About the second.", git_sha=second[:7])
    text = bob.prompt()
    assert "About the second." in text
    assert "About the first." not in text
    assert [receipt for receipt in bob.receipts() if receipt[0] == "withheld"] == [
        ("withheld", "stale")
    ]


def test_nobody_is_woken_for_what_would_not_be_shown(bob: Beside) -> None:
    now_ms = time.time_ns() // 1_000_000
    facts.put(bob.sql, facts.ACTIVITY, Activity.IDLE.value)
    bob.put("About another commit.", git_sha="0" * 40)
    assert bells.ring(bob.sql, MONITOR, {MONITOR}, now_ms) is None
    assert bob.receipts() == [("withheld", "no_checkout")]
    bob.put("About any.")
    bell = bells.ring(bob.sql, MONITOR, {MONITOR}, now_ms)
    assert bell is not None
    assert bell.messages == 1


def test_what_is_not_shown_is_not_counted_either(bob: Beside) -> None:
    facts.set_mode(bob.sql, Mode.INBOX)
    put_two(bob)
    assert "1 unread message;" in bob.prompt()
