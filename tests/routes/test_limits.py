"""How much is shown: budgets, the loop breaker, long bodies, floods, a thousand unread messages."""

import re

import pytest

from claudemesh_mcp.routes import facts, waking
from claudemesh_mcp.routes.settings import SHOWN, TURNS_PER_SENDER, Moment
from tests.support.hostile import frames_of
from tests.support.routing import SESSION, Beside

HOUR = 3_600_000


@pytest.mark.parametrize(
    ("moment", "priorities"),
    [
        (Moment.SESSION, ("now", "next", "low")),
        (Moment.PROMPT, ("now", "next", "low")),
        (Moment.BELL, ("now", "next")),
        (Moment.TOOL, ("now",)),
        (Moment.STOP, ("now", "next")),
    ],
)
def test_what_is_shown_when_is_one_table(moment: Moment, priorities: tuple[str, ...]) -> None:
    assert SHOWN[moment].priorities == priorities


def waits(text: str) -> int:
    """Read from a text how many more wait."""
    found = re.search(r"(\d+) more messages? waits?: call inbox", text)
    return int(found[1]) if found else 0


def test_of_a_thousand_unread_a_prompt_shows_what_fits_and_counts_the_others(bob: Beside) -> None:
    bob.sql.execute("BEGIN")
    for number in range(1_000):
        bob.put(f"Message {number}. {'x' * 400}", priority="low")
    bob.sql.execute("COMMIT")
    text = bob.prompt()
    count = 1_000 - waits(text)
    assert 10 < count < 25
    assert len(text) <= 9_000
    bodies = [body for _, body in frames_of(text, count)]
    assert [body.split(".")[0] for body in bodies] == [f"Message {one}" for one in range(count)]
    assert bob.states() == ["handed"] * count + ["waiting"] * (1_000 - count)


def test_behind_a_thousand_for_later_the_one_for_now_is_found(bob: Beside) -> None:
    bob.sql.execute("BEGIN")
    for _ in range(1_000):
        bob.put(priority="low")
    bob.sql.execute("COMMIT")
    bob.put("Stop the deployment.", priority="now")
    assert "Stop the deployment." in bob.tool()


def test_no_text_is_so_long_that_the_client_shows_its_beginning_only(bob: Beside) -> None:
    for _ in range(5):
        # To the client, which counts units of UTF-16, each of these is two.
        bob.put("\U0001f426" * 1_900)
    text = bob.prompt()
    assert len(text.encode("utf-16-le")) // 2 <= 10_000
    count = 5 - waits(text)
    assert count >= 1
    assert bob.states() == ["handed"] * count + ["waiting"] * (5 - count)


def test_a_long_body_is_cut_and_counts_as_shown(bob: Beside) -> None:
    bob.put("ä" * 1_999 + "z" + "y" * 500)
    ((_, body),) = frames_of(bob.prompt(), 1)
    whole, _, cut = body.partition("\n")
    assert whole == "ä" * 1_999 + "z"
    assert cut == '[cut: 500 bytes more, by inbox(id="msg_1", offset=3999)]'
    bob.stop()
    assert bob.states() == ["seen"]


def test_a_body_of_two_thousand_characters_is_whole(bob: Beside) -> None:
    bob.put("y" * 2_000)
    assert [body for _, body in frames_of(bob.prompt(), 1)] == ["y" * 2_000]


def test_a_flood_of_now_costs_no_more_than_the_tokens_of_an_hour(bob: Beside) -> None:
    bob.sql.execute("BEGIN")
    for _ in range(200):
        bob.put("x" * 1_900, priority="now")
    bob.sql.execute("COMMIT")
    boundaries = [bob.tool(f"toolu_{number}") for number in range(8)]
    shown = sum(len(text) for text in boundaries)
    assert boundaries[-1] == ""
    assert 24_000 < shown < 36_000
    assert sum(waking.pushed_since(bob.sql, 0).values()) <= 8_000
    # Nothing is lost: a prompt of the human goes on where that ended.
    assert 'redelivered="true"' in bob.prompt()
    assert {"handed", "waiting"} == set(bob.states())


def test_twelve_times_in_an_hour_a_turn_is_gone_on_with(bob: Beside) -> None:
    went_on = 0
    for number in range(14):
        bob.put(sender=f"p_{number}")
        went_on += bool(bob.stop())
        facts.put(bob.sql, facts.CONTINUED, 0)
    assert went_on == 12
    bob.age("pushes", "at_ms", HOUR)
    assert bob.stop() != ""


def test_one_turn_is_gone_on_with_six_times(bob: Beside) -> None:
    went_on = 0
    for number in range(8):
        bob.put(sender=f"p_{number}")
        went_on += bool(bob.stop())
    assert went_on == 6
    assert bob.fact(facts.ACTIVITY) == "idle"


def test_the_fourth_turn_of_one_sender_is_held_and_it_is_told(bob: Beside) -> None:
    for turn in range(4):
        bob.put(f"Turn {turn}.")
        assert bool(bob.stop()) == (turn < 3)
    assert bob.row(4)["held"] == "auto_reply_limit"
    assert bob.receipts()[-1] == ("held", "auto_reply_limit")
    assert bob.tool() == ""


def test_a_prompt_of_the_human_releases_what_was_held_and_says_so(bob: Beside) -> None:
    for turn in range(4):
        bob.put(f"Turn {turn}.")
        bob.stop()
    text = bob.prompt()
    assert "Turn 3." in text
    assert "1 of those that wait had been held back" in text
    assert ("delivered", "") in bob.receipts()
    bob.put("Turn 4.")
    assert "Turn 4." in bob.stop()


def test_what_a_bell_brings_is_a_turn_of_its_senders(bob: Beside) -> None:
    nonce = "0123456789abcdef"
    ring = "INSERT OR REPLACE INTO bells (nonce, route, rung_ms) VALUES (?, 'monitor', ?)"
    for turn in range(4):
        bob.put(f"Turn {turn}.")
        bob.sql.execute(ring, (nonce, turn))
        text = bob.prompt(f"<task-notification><event>(bell {nonce})</event></task-notification>")
        assert (f"Turn {turn}." in text) == (turn < 3)
        assert bob.stop() == ""
    assert bob.receipts() == [*[("seen", "monitor")] * 3, ("held", "auto_reply_limit")]


def test_a_notice_of_another_machine_is_no_prompt_of_the_human(bob: Beside) -> None:
    bob.put()
    assert (
        bob.prompt("<task-notification><event>The build is red.</event></task-notification>") == ""
    )
    assert bob.fact(facts.PROMPT_MS) == ""
    assert bob.fact(facts.ACTIVITY) == "working"


def test_a_group_goes_on_with_no_turn_unless_it_is_for_now(bob: Beside) -> None:
    bob.put("To all, later.", conv="g_all")
    assert bob.stop() == ""
    bob.put("To all, now.", conv="g_all", priority="now")
    text = bob.stop()
    assert ["To all, now." in text, "To all, later." in text] == [True, False]


def test_who_may_not_wake_goes_on_with_no_turn_but_is_shown_with_a_prompt(bob: Beside) -> None:
    bob.put(wakes=0, member="mem_other")
    assert bob.stop() == ""
    ((told, _),) = frames_of(bob.prompt(), 1)
    assert told["trust"] == "member"


def test_a_run_that_nobody_attends_goes_on_with_answers_alone(bob: Beside) -> None:
    bob.environ["CLAUDE_CODE_ENTRYPOINT"] = "sdk-cli"
    facts.put(bob.sql, facts.ATTENDED, "0")
    bob.sent("msg_question")
    bob.put("Somebody's word.")
    bob.put("The answer.", re="msg_question")
    bob.put("An answer to another.", re="msg_other")
    bob.put("A stranger's answer.", re="msg_question", sender="p_cleo", handle="cleo")
    text = bob.stop()
    words = ("The answer.", "Somebody's word.", "to another.", "stranger's")
    assert [word in text for word in words] == [True, False, False, False]


def test_what_is_pushed_is_told_by_sender(bob: Beside) -> None:
    bob.put("x" * 400, priority="now")
    bob.put("y" * 40, priority="now", handle="cleo")
    bob.tool()
    pushed = waking.pushed_since(bob.sql, 0)
    assert list(pushed) == ["ada", "cleo"]
    assert pushed["ada"] - pushed["cleo"] == 90


def put_many_for_all(bob: Beside) -> None:
    """Let more have come for a group than one look takes."""
    bob.sql.execute("BEGIN")
    for number in range(100):
        bob.put(f"To all {number}. {'x' * 400}", conv="g_all", sender=f"p_{number}")
    bob.sql.execute("COMMIT")


def test_behind_many_that_may_not_wake_the_one_that_may_goes_on_with_the_turn(bob: Beside) -> None:
    put_many_for_all(bob)
    bob.put("Only to you.")
    assert "Only to you." in bob.stop()


def test_what_rang_comes_before_what_rides_along(bob: Beside) -> None:
    put_many_for_all(bob)
    bob.put("Only to you, first.")
    bob.put("Only to you, second.")
    ring = "INSERT INTO bells (nonce, route, rung_ms) VALUES (?, 'monitor', 1)"
    bob.sql.execute(ring, ("0123456789abcdef",))
    text = bob.prompt("<task-notification>(bell 0123456789abcdef)</task-notification>")
    bodies = [body for _, body in frames_of(text, text.count("</mesh-message-"))]
    assert bodies[:2] == ["Only to you, first.", "Only to you, second."]
    assert bodies[2].startswith("To all 0.")


def test_a_prompt_counts_also_once_another_client_goes_on_with_the_peer(bob: Beside) -> None:
    for number in range(TURNS_PER_SENDER):
        bob.put(f"Turn {number}.")
        assert f"Turn {number}." in bob.stop()
    bob.prompt()
    facts.begin(bob.sql, "1.1", SESSION, attended=True)
    bob.put("After the prompt.")
    assert "After the prompt." in bob.stop()
