"""The servers that a session has started because they come back are told by its first hook."""

from claudemesh_mcp.routes import facts
from tests.support.routing import Beside

HAND = "hand: python3 hand.py --port 1"


def note(bob: Beside, *lines: str) -> None:
    for line in lines:
        facts.add_started(bob.sql, line)


def test_the_start_of_a_session_tells_once_what_was_started(bob: Beside) -> None:
    note(bob, HAND, "time: uvx mcp-server-time")
    said = bob.hook("SessionStart", source="startup")
    assert f"- {HAND}\n- time: uvx mcp-server-time\n" in said
    assert "claudemesh mcp-server remove" in said
    assert [bob.hook("SessionStart", source="resume"), bob.prompt()] == ["", ""]


def test_what_was_started_behind_the_start_is_told_with_the_next_prompt(bob: Beside) -> None:
    assert bob.hook("SessionStart", source="startup") == ""
    note(bob, HAND)
    assert bob.tool() == ""
    assert HAND in bob.prompt()
    note(bob, "time: uvx mcp-server-time")
    said = bob.prompt()
    assert ("time: uvx" in said, HAND in said) == (True, False)


def test_it_stands_before_the_messages_that_wait(bob: Beside) -> None:
    note(bob, HAND)
    row = bob.put("Hello there.")
    said = bob.prompt()
    assert said.index(HAND) < said.index("Hello there.")
    bob.stop()
    assert bob.row(row)["state"] == "seen"


def test_who_wants_no_messages_is_told_all_the_same(bob: Beside) -> None:
    facts.set_mode(bob.sql, facts.Mode.OFF)
    note(bob, HAND)
    bob.put("Hello there.")
    said = bob.prompt()
    assert (HAND in said, "Hello there." in said) == (True, False)


def test_long_and_many_lines_are_cut_and_cleaned(bob: Beside) -> None:
    note(bob, *(f"s{number}: run \x1b[2J{'x' * 1000}" for number in range(32)))
    messages = [bob.put(f"Message {number}.") for number in range(3)]
    said = bob.prompt()
    assert ("\x1b" in said, "- s9: run" in said, "- s10: " in said) == (False, True, False)
    assert "- and 22 more" in said
    assert len(said) < 9000
    assert [bob.row(row)["state"] for row in messages] == ["handed"] * 3


def test_another_client_is_not_told_what_an_earlier_one_has_started(bob: Beside) -> None:
    note(bob, HAND)
    facts.begin(bob.sql, "1.1", "another", attended=True)
    assert facts.get(bob.sql, facts.STARTED) == ""
