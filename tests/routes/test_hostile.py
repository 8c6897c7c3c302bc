"""Hostile texts through hooks and bells: nothing forges a frame, nothing of them is in a bell."""

import re
import time
from collections.abc import Callable

import pytest

from claudemesh_mcp.routes import bells, facts
from claudemesh_mcp.routes.settings import CONTINUATIONS
from tests.support.hostile import TEXTS, faults, frames_of
from tests.support.routing import Beside

BELL = re.compile(
    r"claudemesh: \d+ messages? from (?:a peer|[a-z0-9._-]+(?:, [a-z0-9._-]+){0,2}(?: and others)?)"
    r"\. If nothing of it is shown with this notice, call inbox\. \(bell [0-9a-f]{16}\)"
)


def put_all(bob: Beside, priority: str) -> None:
    """Let all of them have come as nobody has cleaned them, each from a sender of its own."""
    for number, text in enumerate(TEXTS):
        bob.put(text, priority=priority, sender=f"p_{number}", handle=f"peer-{number}")


def read_all(bob: Beside, outputs: list[str]) -> list[tuple[dict[str, str], str]]:
    """Read outputs as a model would, until there is no more."""
    (seen,) = bob.sql.execute("SELECT count(*) FROM inbox WHERE state = 'seen'").fetchone()
    assert seen == len(TEXTS)
    return [one for text in outputs for one in frames_of(text, text.count("</mesh-message-"))]


def assert_harmless(bob: Beside, outputs: list[str]) -> None:
    assert max(len(text) for text in outputs) <= 9_000
    found = read_all(bob, outputs)
    assert [told["from"] for told, _ in found] == [f"peer-{number}" for number in range(len(TEXTS))]
    assert {told["trust"] for told, _ in found} == {"own"}
    assert [(body, wrong) for _, body in found if (wrong := faults(body, ">\n"))] == []


def test_the_set_is_as_large_as_it_has_to_be_and_hostile() -> None:
    assert len(set(TEXTS)) == len(TEXTS) >= 60
    # What is left are claims and quotations, which are harmless by their place in a frame alone.
    assert sum(1 for text in TEXTS if faults(text, ">\n")) >= 60


def by_prompt(bob: Beside) -> str:
    """The context of a prompt; the turn that it begins ends without more."""
    text = bob.prompt()
    assert bob.stop() == ""
    return text


def by_tool(bob: Beside) -> str:
    """The context behind a tool call, in a turn that is not gone on with any more."""
    text = bob.tool()
    facts.put(bob.sql, facts.CONTINUED, CONTINUATIONS)
    assert bob.stop() == ""
    an_hour_goes_by(bob)
    return text


def by_stop(bob: Beside) -> str:
    """The reason to go on with a turn."""
    text = bob.stop()
    an_hour_goes_by(bob)
    return text


def an_hour_goes_by(bob: Beside) -> None:
    """Let what was pushed be forgotten, and another turn have begun."""
    bob.sql.execute("DELETE FROM pushes")
    facts.put(bob.sql, facts.CONTINUED, 0)


@pytest.mark.parametrize(
    ("priority", "show"), [("low", by_prompt), ("now", by_tool), ("next", by_stop)]
)
def test_no_text_that_a_hook_shows_forges_anything(
    bob: Beside, priority: str, show: Callable[[Beside], str]
) -> None:
    put_all(bob, priority)
    outputs: list[str] = []
    while text := show(bob):
        outputs.append(text)
    assert_harmless(bob, outputs)


def test_no_name_or_thread_breaks_out_of_the_line_that_it_stands_in(bob: Beside) -> None:
    for text in TEXTS:
        told = dict.fromkeys(("handle", "member_name", "thread", "via", "re"), text[:300])
        bob.put("Hello.", priority="low", **told)
    outputs: list[str] = []
    while text := bob.prompt():
        outputs.append(text)
        bob.stop()
    found = read_all(bob, outputs)
    assert {body for _, body in found} == {"Hello."}
    assert {told["trust"] for told, _ in found} == {"own"}
    assert [value for told, _ in found for value in told.values() if faults(value)] == []


@pytest.mark.parametrize("column", ["text", "handle", "member_name", "thread"])
def test_no_word_of_a_peer_is_in_a_bell(bob: Beside, column: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    for number, text in enumerate(TEXTS):
        bob.sql.execute("DELETE FROM bells")
        bob.sql.execute("DELETE FROM inbox")
        bob.put(**{"text": "Hello.", column: text})
        rung = bells.ring(bob.sql, bells.MONITOR, {bells.MONITOR}, now_ms + number)
        assert rung is not None
        assert BELL.fullmatch(rung.line)
        assert faults(rung.line) == []
