"""What each hook shows when, run as the client runs it; and what makes a message seen."""

import subprocess
import sys

import pytest

from claudemesh_mcp import openrows
from claudemesh_mcp.openrows import LEASE_MS
from claudemesh_mcp.routes import facts
from claudemesh_mcp.routes.door import now_ms
from tests.support.routing import SESSION, Beside

MINUTE = 60_000
LATER = LEASE_MS + MINUTE


def shown(text: str, *words: str) -> list[bool]:
    """Tell which of the words are in a text."""
    return [word in text for word in words]


def put_one_of_each(bob: Beside) -> None:
    for priority in ("now", "next", "low"):
        bob.put(f"This is {priority}.", priority=priority)


EACH = ("This is now.", "This is next.", "This is low.")


def test_a_prompt_shows_all_that_waits(bob: Beside) -> None:
    put_one_of_each(bob)
    assert shown(bob.prompt(), *EACH) == [True, True, True]


def test_the_start_of_a_session_shows_all_that_waits(bob: Beside) -> None:
    put_one_of_each(bob)
    assert shown(bob.hook("SessionStart", source="startup"), *EACH) == [True, True, True]


def test_a_tool_boundary_shows_what_is_for_now(bob: Beside) -> None:
    bob.prompt()
    put_one_of_each(bob)
    assert shown(bob.tool(), *EACH) == [True, False, False]


def test_the_end_of_a_turn_goes_on_with_what_is_for_now_or_next(bob: Beside) -> None:
    put_one_of_each(bob)
    assert shown(bob.stop(), *EACH) == [True, True, False]


def test_a_turn_ends_when_nothing_waits_for_it(bob: Beside) -> None:
    bob.put(priority="low")
    assert bob.stop() == ""
    assert bob.fact(facts.ACTIVITY) == "idle"


def test_the_end_of_a_session_shows_nothing(bob: Beside) -> None:
    put_one_of_each(bob)
    assert bob.hook("SessionEnd", reason="other") == ""
    assert bob.fact(facts.ACTIVITY) == "ended"


def test_with_an_empty_inbox_no_hook_says_anything(bob: Beside) -> None:
    assert [bob.hook("SessionStart", source="startup"), bob.prompt(), bob.tool(), bob.stop()] == [
        ""
    ] * 4


def test_each_message_is_shown_once(bob: Beside) -> None:
    bob.put(priority="now")
    assert bob.tool() != ""
    assert [bob.tool("toolu_2"), bob.stop(), bob.stop()] == ["", "", ""]


def test_what_is_held_is_shown_to_nobody(bob: Beside) -> None:
    bob.put(priority="now", held="message")
    assert [bob.prompt(), bob.tool(), bob.stop()] == ["", "", ""]


def test_what_the_inbox_tool_has_handed_out_is_shown_by_no_hook(bob: Beside) -> None:
    bob.put(priority="now", state="handed", holder="attached:1", lease_until_ms=2**50, offers=1)
    assert [bob.prompt(), bob.tool(), bob.stop()] == ["", "", ""]


def test_a_subagent_is_shown_nothing_and_marks_nothing(bob: Beside) -> None:
    bob.put(priority="now")
    bob.prompt()
    before = bob.row(1)
    second = bob.put("Another one.", priority="now")
    assert bob.tool(agent_id="a1", agent_type="general-purpose") == ""
    assert bob.row(1) == before
    assert bob.row(second)["state"] == "waiting"


def test_what_is_printed_is_not_seen_yet(bob: Beside) -> None:
    row = bob.put()
    bob.prompt()
    assert (bob.row(row)["state"], bob.row(row)["printed"]) == ("handed", SESSION)
    assert bob.receipts() == []


@pytest.mark.parametrize(
    ("show", "route"),
    [
        (lambda bob: bob.hook("SessionStart", source="startup"), "session-start"),
        (lambda bob: bob.prompt(), "prompt"),
        (lambda bob: bob.tool(), "tool-boundary"),
        (lambda bob: bob.stop(), "stop"),
    ],
    ids=["session-start", "prompt", "tool-boundary", "stop"],
)
def test_the_end_of_the_turn_proves_what_was_printed_and_names_its_route(
    bob: Beside, show: object, route: str
) -> None:
    bob.put(priority="now")
    assert callable(show)
    assert show(bob) != ""
    bob.stop()
    assert bob.states() == ["seen"]
    assert bob.receipts() == [("seen", route)]


def test_a_tool_call_proves_what_its_turn_began_with(bob: Beside) -> None:
    bob.put()
    bob.prompt()
    bob.tool()
    assert bob.receipts() == [("seen", "prompt")]


def test_a_tool_call_proves_what_the_turn_went_on_with(bob: Beside) -> None:
    bob.put()
    bob.stop()
    bob.tool()
    assert bob.receipts() == [("seen", "stop")]


def test_a_tool_call_of_the_same_reply_proves_nothing_of_what_another_brought(bob: Beside) -> None:
    bob.put(priority="now")
    bob.tool("toolu_1")
    bob.tool("toolu_2")
    assert bob.states() == ["handed"]
    bob.stop()
    assert bob.receipts() == [("seen", "tool-boundary")]


@pytest.mark.parametrize("source", ["clear", "resume", "fork", "compact"])
def test_a_session_that_goes_elsewhere_is_offered_again_what_nothing_proved(
    bob: Beside, source: str
) -> None:
    bob.put()
    bob.prompt()
    again = bob.hook("SessionStart", source=source, session_id="another")
    assert 'redelivered="true"' in again
    assert bob.receipts() == []


def test_a_session_that_ends_is_offered_again_what_nothing_proved(bob: Beside) -> None:
    bob.put()
    bob.prompt()
    bob.hook("SessionEnd", reason="prompt_input_exit")
    assert bob.receipts() == []
    assert 'redelivered="true"' in bob.prompt()


def test_a_prompt_behind_a_prompt_has_again_what_the_first_may_not_have_brought(
    bob: Beside,
) -> None:
    bob.put()
    assert 'redelivered="true"' not in bob.prompt()
    assert 'redelivered="true"' in bob.prompt()
    bob.stop()
    assert bob.receipts() == [("seen", "prompt")]


def test_what_the_start_of_a_session_printed_stays_there_for_the_first_prompt(bob: Beside) -> None:
    bob.put()
    bob.hook("SessionStart", source="startup")
    assert bob.prompt() == ""
    bob.stop()
    assert bob.receipts() == [("seen", "session-start")]


def test_what_was_printed_is_offered_to_nobody_while_the_session_goes_on(bob: Beside) -> None:
    bob.put(priority="now")
    bob.tool()
    row = bob.row(1)
    assert row["lease_until_ms"] - row["printed_ms"] > 365 * 24 * 60 * MINUTE


def test_a_hook_killed_before_it_noted_its_print_has_shown_nothing(bob: Beside) -> None:
    bob.put()
    bob.prompt()
    # As it stands when the hook was killed between its print and its note.
    unnoted = "UPDATE inbox SET printed = NULL, printed_by = NULL, lease_until_ms = 0"
    bob.sql.execute(unnoted)
    bob.tool()
    assert bob.states() == ["handed"]
    assert 'redelivered="true"' in bob.stop()


def test_another_client_of_the_peer_is_offered_again_what_the_first_never_proved(
    bob: Beside,
) -> None:
    bob.put()
    bob.prompt()
    facts.begin(bob.sql, "1.1", "another", attended=True)
    assert 'redelivered="true"' in bob.stop()


def test_evidence_of_one_session_proves_nothing_for_another(bob: Beside) -> None:
    bob.put(priority="now")
    bob.tool()
    bob.hook("Stop", session_id="another")
    assert bob.receipts() == []


def test_a_client_whose_server_is_not_there_yet_is_shown_nothing(bob: Beside) -> None:
    bob.put()
    (bob.home / "run" / "clients").rename(bob.home / "run" / "gone")
    assert bob.prompt() == ""
    assert bob.states() == ["waiting"]


def test_a_client_that_tells_no_pid_is_known_by_the_alias_of_its_session(bob: Beside) -> None:
    bob.put()
    bob.hook("SessionStart", source="startup")
    del bob.environ["CLAUDE_PID"]
    assert 'redelivered="true"' in bob.hook("SessionStart", source="compact")


def test_without_the_server_that_judges_a_hook_shows_nothing(bob: Beside) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    bob.put()
    bob.record(server=gone.pid)
    assert bob.prompt() == ""
    assert (bob.states(), bob.fact(facts.ACTIVITY)) == (["waiting"], "working")


def test_in_the_mode_inbox_a_prompt_says_a_count_only(bob: Beside) -> None:
    facts.set_mode(bob.sql, facts.Mode.INBOX)
    put_one_of_each(bob)
    assert bob.prompt() == "claudemesh: 3 unread messages; inbox shows them."
    assert [bob.tool(), bob.stop()] == ["", ""]
    assert bob.states() == ["waiting"] * 3


def test_in_the_mode_off_no_hook_says_anything(bob: Beside) -> None:
    facts.set_mode(bob.sql, facts.Mode.OFF)
    put_one_of_each(bob)
    assert [bob.prompt(), bob.tool(), bob.stop()] == ["", "", ""]
    assert bob.states() == ["waiting"] * 3


def test_who_asks_for_quiet_is_shown_nothing_not_even_what_is_for_now(bob: Beside) -> None:
    facts.set_dnd(bob.sql, on=True)
    put_one_of_each(bob)
    assert [bob.prompt(), bob.tool(), bob.stop()] == ["", "", ""]
    facts.set_dnd(bob.sql, on=False)
    assert shown(bob.prompt(), *EACH) == [True, True, True]


def test_a_prompt_that_was_refused_is_not_proved_by_the_turn_of_another_machine(
    bob: Beside,
) -> None:
    bob.put("Hello.", priority="low")
    assert "Hello." in bob.prompt()
    # Another hook has refused that prompt: what came with it was never in a request.
    assert bob.prompt("<task-notification>Build done.</task-notification>") == ""
    bob.stop()
    assert bob.receipts() == []
    assert 'redelivered="true"' in bob.prompt()


def test_what_a_tool_call_brought_is_not_offered_again_for_a_notice(bob: Beside) -> None:
    bob.put(priority="now")
    assert "Hello." in bob.tool()
    assert bob.prompt("<task-notification>Build done.</task-notification>") == ""
    bob.stop()
    assert bob.receipts() == [("seen", "tool-boundary")]


def test_an_offer_that_is_made_again_is_not_proved_by_the_print_of_an_earlier_one(
    bob: Beside,
) -> None:
    bob.put()
    bob.prompt()
    # Held meanwhile, and let through again: it was taken out of what is printed.
    bob.sql.execute("UPDATE inbox SET state = 'waiting', holder = NULL, lease_until_ms = 0")
    openrows.hand_over(bob.sql, [1], f"hook:{bob.client}:0", now_ms())
    bob.stop()
    assert bob.states() == ["handed"]


@pytest.mark.parametrize("offset_ms", [-5 * MINUTE, 5 * MINUTE])
def test_what_the_server_hands_out_by_the_clock_of_the_broker_is_left_alone(
    bob: Beside, offset_ms: int
) -> None:
    bob.put()
    facts.set_offset(bob.sql, offset_ms)
    server_ms = now_ms() + offset_ms
    openrows.hand_out(bob.sql, 1, None, "attached:1:1", server_ms)
    assert bob.prompt() == ""
    openrows.give_back(bob.sql, "attached:1:1")
    bob.prompt()
    bob.sql.execute("UPDATE inbox SET printed = NULL, lease_until_ms = ?", (server_ms + MINUTE,))
    assert bob.prompt() == ""


def test_a_clock_that_went_back_keeps_nothing_from_being_shown(bob: Beside) -> None:
    hour = 60 * MINUTE
    for _ in range(2):
        bob.put()
    bob.prompt()
    # All of that was in what is now the future; one offer was never printed.
    for key in (facts.ACTIVITY_MS, facts.PROMPT_MS):
        facts.put(bob.sql, key, facts.get_int(bob.sql, key) + hour)
    bob.age("pushes", "at_ms", -hour)
    bob.sql.execute("INSERT INTO bells VALUES ('b', 'monitor', ?, NULL)", (now_ms() + hour,))
    bob.sql.execute(
        "UPDATE inbox SET printed = NULL, lease_until_ms = ? WHERE row = 1",
        (now_ms() + hour + LEASE_MS,),
    )
    assert 'redelivered="true"' in bob.stop()
    assert bob.states() == ["handed", "seen"]
    for column, table in (("at_ms", "pushes"), ("rung_ms", "bells")):
        (latest,) = bob.sql.execute(f"SELECT max({column}) FROM {table}").fetchone()  # noqa: S608
        assert latest <= now_ms()
    assert facts.get_int(bob.sql, facts.PROMPT_MS) < now_ms()


def test_a_clock_that_went_back_before_a_client_came_keeps_nothing_either(bob: Beside) -> None:
    hour = 60 * MINUTE
    bob.put()
    bob.prompt()
    facts.put(bob.sql, facts.ACTIVITY_MS, now_ms() + hour)
    bob.sql.execute("UPDATE inbox SET printed = NULL, lease_until_ms = ?", (now_ms() + hour,))
    facts.put(bob.sql, facts.CLIENT, "1.1")
    assert 'redelivered="true"' in bob.prompt()


def test_what_the_start_of_another_session_printed_is_offered_again_by_a_prompt(
    bob: Beside,
) -> None:
    bob.put()
    assert "Hello." in bob.hook("SessionStart", source="startup")
    # The hooks of /clear had no time: the file was locked.
    said = bob.hook("UserPromptSubmit", prompt="Go on.", session_id="another")
    assert 'redelivered="true"' in said
    bob.hook("Stop", session_id="another")
    assert bob.receipts() == [("seen", "prompt")]


@pytest.mark.parametrize("entrypoint", ["cli", "sdk-cli"])
def test_a_prompt_that_came_before_the_record_is_made_up_for_at_the_first_tool_boundary(
    bob: Beside, entrypoint: str
) -> None:
    bob.environ["CLAUDE_CODE_ENTRYPOINT"] = entrypoint
    put_one_of_each(bob)
    folder = bob.home / "run" / "clients"
    folder.rename(bob.home / "run" / "not yet")
    assert (bob.hook("SessionStart", source="startup"), bob.prompt()) == ("", "")
    (bob.home / "run" / "not yet").rename(folder)
    assert shown(bob.tool(), *EACH) == [True, True, True]
    bob.stop()
    assert bob.receipts() == [("seen", "tool-boundary")] * 3
    put_one_of_each(bob)
    assert shown(bob.tool("toolu_2"), *EACH) == [True, False, False]


def test_what_a_sender_was_held_for_is_let_through_by_a_prompt_that_came_too_early(
    bob: Beside,
) -> None:
    bob.put(held="auto_reply_limit")
    shown_late = bob.tool()
    assert "Hello." in shown_late
    assert "had been held back" in shown_late
