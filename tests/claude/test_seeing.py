"""What mixed runs count: offers of a text, told apart, in requests that repeat what came before.

The requests are written here, in the form in which the client sends them.
"""

import json
from typing import Any

from tests.support.claude.asked import Asked
from tests.support.mixed.seeing import Seen, Shown

ONE, OTHER = "heron-1-0-0123abcd", "heron-1-1-89abcdef"
FIRST, SECOND = "0" * 16, "1" * 16


def framed(nonce: str, text: str, more: str = "") -> str:
    return f'<mesh-message-{nonce} id="msg_a"{more}>\n{text}\n</mesh-message-{nonce}>'


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def hook(event: str, text: str) -> dict[str, Any]:
    return system(f"{event} hook additional context: claudemesh: 1 message.\n\n{text}")


def shown(*requests: list[dict[str, Any]]) -> list[Shown]:
    """Read requests, each at the second of its place."""
    seen = Seen()
    asked = [Asked(at, float(at), {}, {"messages": told}) for at, told in enumerate(requests)]
    for count in range(len(asked)):
        seen.read(asked[: count + 1])
    return seen.shown


def test_what_is_repeated_with_its_context_is_one_offer() -> None:
    came = [user("Hello."), hook("UserPromptSubmit", framed(FIRST, ONE))]
    assert shown([user("Hello.")], came, [*came, user("And?")]) == [
        Shown(FIRST, ONE, marked=False, route="prompt", at=1.0)
    ]


def test_a_second_offer_counts_with_its_mark_and_without() -> None:
    came = [hook("PostToolUse:Bash", framed(FIRST, ONE))]
    again = [*came, hook("SessionStart", framed(SECOND, ONE, ' redelivered="true"'))]
    (first, second) = shown(came, again)
    assert (first.route, first.marked) == ("tool-boundary", False)
    assert (second.route, second.marked, second.at) == ("session-start", True, 1.0)
    (_, unmarked) = shown(came, [*came, hook("SessionStart", framed(SECOND, ONE))])
    assert unmarked.marked is False


def test_a_stop_reason_that_stands_there_twice_is_one_offer() -> None:
    text = framed(FIRST, ONE)
    both = [user(f"Stop hook feedback:\n{text}"), system(f"Stop hook blocking error: {text}")]
    assert shown(both) == [Shown(FIRST, ONE, marked=False, route="stop", at=0.0)]


def test_a_bell_names_the_route_of_what_its_prompt_brings() -> None:
    brought = hook("UserPromptSubmit", framed(FIRST, ONE))
    monitor = user("<system-reminder>\n<event>claudemesh: (bell 0123456789abcdef)</event>")
    rewake = user("<system-reminder>\nclaudemesh: 1 message (bell 0123456789abcdef)")
    routes = [shown([bell, brought])[0].route for bell in (monitor, rewake)]
    assert routes == ["monitor", "rewake"]


def test_an_inbox_result_is_an_offer_of_its_own() -> None:
    told = {"messages": [{"text": ONE}, {"text": OTHER, "redelivered": True}]}
    part = {"type": "tool_result", "tool_use_id": "toolu_1", "content": json.dumps(told)}
    assert shown([{"role": "user", "content": [part]}]) == [
        Shown("toolu_1", ONE, marked=False, route="tool", at=0.0),
        Shown("toolu_1", OTHER, marked=True, route="tool", at=0.0),
    ]


def test_a_text_outside_of_any_frame_is_an_offer_without_a_mark() -> None:
    framed_one = hook("UserPromptSubmit", framed(FIRST, ONE))
    (first, bare) = shown([framed_one, system(f"claudemesh: {ONE}")])
    assert (first.offer, bare.offer, bare.marked) == (FIRST, "bare", False)


def test_what_the_model_said_itself_shows_it_nothing() -> None:
    assert shown([user("Hello."), {"role": "assistant", "content": framed(FIRST, ONE)}]) == []
