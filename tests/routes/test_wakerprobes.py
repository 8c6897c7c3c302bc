"""Probes of wakers: when one is rung, that it becomes no turn, and what is known by it."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from claudemesh_mcp.routes import bells, facts, wakerprobes
from claudemesh_mcp.routes.bells import CHANNEL, MONITOR, REWAKE
from claudemesh_mcp.routes.door import now_ms
from claudemesh_mcp.routes.facts import Health
from claudemesh_mcp.routes.places import Places
from claudemesh_mcp.routes.processes import Living, started
from claudemesh_mcp.routes.ringing import Place
from claudemesh_mcp.routes.settings import ANSWER_MS, HOUR_MS, RETRY_MS
from tests.routes.test_monitor import answer, ended, gone_pid, line_of, running
from tests.support.routing import SESSION, Beside, beside

TRIES = "claudemesh: tries whether it can wake this session; nothing is to be done. (bell "
ALL = {MONITOR, REWAKE, CHANNEL}
REFUSED = {
    "decision": "block",
    "reason": "claudemesh tried whether messages can wake this session: they can.",
    "hookSpecificOutput": {"hookEventName": "UserPromptSubmit", "suppressOriginalPrompt": True},
}


@pytest.fixture
def idle(bob: Beside) -> Beside:
    """Give bob's session behind its first turn, by which its hooks were found to be heard."""
    bob.prompt()
    bob.stop()
    heard(bob)
    return bob


def heard(bob: Beside) -> None:
    """Note what the server has found in the transcript of that turn."""
    facts.put(bob.sql, facts.HOOKS, Health.REACHES.value)
    facts.put(bob.sql, facts.PROMPTS, "1")


@pytest.fixture
def work(idle: Beside) -> Iterator[Beside]:
    """Give the peer of the same client in a second mesh."""
    with beside(idle.home, "p_" + "w" * 26, "work", "mesh_work") as opened:
        opened.prompt()
        opened.stop()
        heard(opened)
        yield opened


def said(bob: Beside, prompt: str) -> Any:
    """Give what the hook of a prompt prints, as the client reads it."""
    told = {"session_id": SESSION, "hook_event_name": "UserPromptSubmit", "prompt": prompt}
    ran = bob.feed("UserPromptSubmit", json.dumps(told).encode())
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out) if ran.out else None


def notice(*lines: str) -> str:
    """Give the prompt that the client makes of a monitor's lines."""
    event = "\n".join(line.strip() for line in lines)
    return f"<task-notification>\n<event>{event}</event>\n</task-notification>"


def known(bob: Beside, route: str = MONITOR, later_ms: int = 0) -> Health:
    return bells.health(bob.sql, route, now_ms() + later_ms)


def probed(bob: Beside, route: str = MONITOR, *, ago_ms: int = 0) -> str:
    """Let a route have said a probe; gives its line."""
    nonce = os.urandom(8).hex()
    wakerprobes.note(bob.sql, route, nonce, now_ms() - ago_ms)
    return wakerprobes.LINE.format(nonce)


def due(bob: Beside, *alive: str, later_ms: int = 0) -> list[str]:
    """Give the routes that are to be probed now."""
    at_ms = now_ms() + later_ms
    return [one for one in bells.ORDER if bells.is_probe_due(bob.sql, one, alive, at_ms)]


def test_the_monitor_is_probed_behind_the_first_turn_and_its_prompt_is_refused(
    idle: Beside,
) -> None:
    with running(idle, "monitor.py") as monitor, running(idle, "hook.py", "rewake") as rewake:
        line = line_of(monitor)
        assert line.startswith(TRIES)
        assert known(idle) is Health.UNTRIED
        at_ms = idle.fact(facts.ACTIVITY_MS)
        assert said(idle, notice(line)) == REFUSED
        assert known(idle) is Health.REACHES
        assert bells.reaching(idle.sql, ALL, now_ms()) == ["hooks", MONITOR]
        # No turn has begun, and none of the hour's is gone.
        assert (idle.fact(facts.ACTIVITY), idle.fact(facts.ACTIVITY_MS)) == ("idle", at_ms)
        assert bells.wakes_left(idle.sql, now_ms()) == 12
        # The rewake hook, which waited to know this, is not probed: it leaves.
        assert ended(rewake) == 0
    assert wakerprobes.of(idle.sql, REWAKE) is None


def test_a_rewake_hook_without_a_monitor_is_probed_and_ends_by_it(idle: Beside) -> None:
    with running(idle, "hook.py", "rewake") as rewake:
        assert ended(rewake) == 2
        assert rewake.stderr is not None
        line = rewake.stderr.read().decode()
    assert line.startswith(TRIES)
    prompt = notice("claudemesh:") + f"<system-reminder>claudemesh: {line}</system-reminder>"
    assert said(idle, prompt) == REFUSED
    assert known(idle, REWAKE) is Health.REACHES


def test_behind_a_waker_that_nobody_hears_the_next_one_is_probed(idle: Beside) -> None:
    assert due(idle, *ALL) == [MONITOR]
    probed(idle)
    assert due(idle, *ALL) == []
    assert due(idle, *ALL, later_ms=ANSWER_MS) == [REWAKE]
    probed(idle, REWAKE, ago_ms=ANSWER_MS)
    assert due(idle, *ALL, later_ms=ANSWER_MS) == [CHANNEL]
    assert due(idle, MONITOR, CHANNEL, later_ms=ANSWER_MS) == [CHANNEL]


def test_a_waker_is_probed_once(idle: Beside) -> None:
    line = probed(idle, ago_ms=RETRY_MS)
    assert (due(idle, MONITOR), known(idle)) == ([], Health.SILENT)
    # Late it is heard all the same.
    assert said(idle, notice(line)) == REFUSED
    assert (due(idle, MONITOR), known(idle)) == ([], Health.REACHES)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (facts.ACTIVITY, "working"),
        (facts.ACTIVITY, "ended"),
        (facts.HOOKS, ""),
        (facts.HOOKS, "silent"),
        (facts.ATTENDED, "0"),
        (facts.DND, "1"),
        (facts.MODE, "inbox"),
        (facts.MODE, "off"),
        (facts.BACKGROUND, "1"),
        (facts.BACKGROUND, ""),
        (facts.PROMPTS, ""),
    ],
)
def test_nobody_is_probed_where_it_might_be_a_turn_or_nobody_is_to_be_woken(
    idle: Beside, key: str, value: str
) -> None:
    assert due(idle, MONITOR) == [MONITOR]
    facts.put(idle.sql, key, value)
    assert due(idle, *ALL) == []
    assert bells.probe(idle.sql, MONITOR, ALL, now_ms()) is None


def test_nobody_is_probed_while_something_may_ring_or_is_to_be_rung_for(idle: Beside) -> None:
    idle.put()
    assert due(idle, *ALL) == []
    assert bells.ring(idle.sql, MONITOR, ALL, now_ms()) is not None
    assert due(idle, *ALL) == []


def test_no_bell_rings_while_a_probe_may_come_back_with_which_it_would_be_refused(
    idle: Beside,
) -> None:
    line = probed(idle)
    row = idle.put()
    assert not bells.has_reason(idle.sql, now_ms())
    idle.sql.execute("DELETE FROM inbox WHERE row = ?", (row,))
    assert said(idle, notice(line)) == REFUSED
    idle.put()
    assert bells.is_due(idle.sql, MONITOR, ALL, now_ms())


def test_a_waker_that_a_bell_has_tried_is_not_probed(idle: Beside) -> None:
    with running(idle, "monitor.py") as monitor:
        idle.put()
        # Whichever it was first: with the message there it is the bell.
        while "1 message" not in (line := line_of(monitor)):
            said(idle, notice(line))
        answer(idle, line)
        idle.stop()
    for route in bells.ORDER:
        facts.put(idle.sql, facts.WAKER_PROBES[route], "")
    assert due(idle, *ALL) == []


def test_without_a_server_that_judges_nobody_is_probed(idle: Beside) -> None:
    idle.record(server=gone_pid())
    place = Place(Places(str(idle.home), str(idle.home / "logs")), Living.now(os.getpid()), MONITOR)
    assert place.look() == []
    idle.record()
    (rung,) = place.look()
    assert (rung.line.startswith(TRIES), rung.messages) == (True, 0)
    place.leave()


def test_what_runs_in_the_background_when_a_turn_ends_is_known(bob: Beside) -> None:
    ours = {"id": "b1", "type": "monitor", "command": "exec python '/x/claudemesh_mcp/monitor.py'"}
    other, shell = {**ours, "command": "./watch"}, {"id": "b2", "type": "shell"}
    given: list[Any] = [[ours], [shell, ours], [], [other], [{"type": "monitor"}], "none", [1]]
    for tasks, kept in zip(given, "0101100", strict=True):
        bob.prompt()
        bob.hook("Stop", background_tasks=tasks)
        assert bob.fact(facts.BACKGROUND) == kept


@pytest.mark.parametrize(
    "prompt",
    [
        "{line}",
        "Look: {notice}",
        "{notice} What is it?",
        "{notice}<task-notification>The tests have run.</task-notification>",
        "<task-notification><event>Built.\n{line}</event></task-notification>",
        "<channel source='mesh'>{line}</channel>{notice}",
        "<channel source='chat'>Hello. {line}</channel>",
        "{notice}<system-reminder>The tests have run.</system-reminder>",
        "<system-reminder>The tests have run.</system-reminder>{notice}",
        "{notice} <task-notification>(bell 0123456789abcdef)</task-notification>",
        "<task-notification>{line} (bell 0123456789abcdef)</task-notification>",
    ],
)
def test_no_prompt_with_anything_else_in_it_is_refused(idle: Beside, prompt: str) -> None:
    line = probed(idle)
    made = prompt.format(line=line, notice=notice(line))
    assert (said(idle, made) or {}).get("decision") is None


def test_a_probe_behind_which_a_bell_was_rung_is_let_pass(idle: Beside) -> None:
    # As where a dialog keeps the notices back: what the client takes together ends together.
    line = probed(idle, ago_ms=ANSWER_MS)
    idle.put("Two herons.")
    rung = bells.ring(idle.sql, MONITOR, {MONITOR}, now_ms())
    assert rung is not None
    assert said(idle, notice(line)) is None
    assert "Two herons." in str(said(idle, notice(rung.line)))
    idle.stop()
    assert idle.receipts() == [("seen", "monitor")]


def test_a_probe_behind_which_another_mesh_has_rung_is_let_pass(idle: Beside, work: Beside) -> None:
    line = probed(idle)
    work.put("Three swans.")
    rung = bells.ring(work.sql, MONITOR, {MONITOR}, now_ms())
    assert rung is not None
    # It shows nothing itself: to that mesh it is another's notice.
    assert said(idle, notice(line)) is None
    assert "Three swans." in str(said(idle, notice(rung.line)))
    idle.stop()
    assert work.receipts() == [("seen", "monitor")]


def test_a_probe_is_let_pass_where_it_can_not_be_known_what_stands_behind_it(
    idle: Beside, work: Beside
) -> None:
    line = probed(idle)
    work.sql.execute("DROP TABLE bells")
    assert said(idle, notice(line)) is None
    assert known(idle) is Health.REACHES


def test_a_probe_that_comes_back_when_messages_wait_is_a_bell(idle: Beside) -> None:
    line = probed(idle)
    idle.put("Two herons.")
    shown = said(idle, notice(line))
    assert "Two herons." in shown["hookSpecificOutput"]["additionalContext"]
    assert idle.fact(facts.ACTIVITY) == "working"
    assert bells.wakes_left(idle.sql, now_ms()) == 11
    idle.stop()
    assert idle.receipts() == [("seen", "monitor")]
    assert known(idle) is Health.REACHES


@pytest.mark.parametrize("why", ["low", "held", "dnd"])
def test_a_probe_is_refused_where_what_waits_causes_no_turn(idle: Beside, why: str) -> None:
    line = probed(idle)
    idle.put(priority="low" if why == "low" else "next")
    if why == "held":
        idle.sql.execute("UPDATE inbox SET held = 'auto_reply_limit'")
    facts.set_dnd(idle.sql, on=why == "dnd")
    assert said(idle, notice(line)) == REFUSED


def test_a_probe_of_a_time_that_has_not_come_holds_no_bell_back(idle: Beside) -> None:
    probed(idle, ago_ms=-HOUR_MS)
    facts.put(idle.sql, facts.ACTIVITY_MS, now_ms() + HOUR_MS)
    idle.prompt()
    idle.stop()
    idle.put()
    assert not bells.has_reason(idle.sql, now_ms())
    assert bells.has_reason(idle.sql, now_ms() + ANSWER_MS)


def test_a_bell_beside_a_probe_shows_what_it_is_for(idle: Beside) -> None:
    line = probed(idle, ago_ms=ANSWER_MS)
    idle.put("Two herons.")
    rung = bells.ring(idle.sql, MONITOR, {MONITOR}, now_ms())
    assert rung is not None
    shown = said(idle, notice(line, rung.line))
    assert "Two herons." in shown["hookSpecificOutput"]["additionalContext"]


def test_a_probe_is_refused_also_where_its_answer_can_not_be_noted(idle: Beside) -> None:
    line = probed(idle)
    with closing(sqlite3.connect(idle.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert said(idle, notice(line)) == REFUSED
    assert "hook UserPromptSubmit: OperationalError" in idle.log
    assert known(idle) is Health.UNTRIED


def test_probes_of_two_meshes_are_one_notice_and_none_of_them_is_a_turn(
    idle: Beside, work: Beside
) -> None:
    with running(idle, "monitor.py") as monitor:
        assert monitor.stdout is not None
        lines = [line_of(monitor), monitor.stdout.readline().decode()]
        assert lines[0] != lines[1]
        assert said(idle, notice(*lines)) == REFUSED
    assert [known(one) for one in (idle, work)] == [Health.REACHES, Health.REACHES]


def test_the_probe_of_one_mesh_lets_the_other_go_on_as_it_was(idle: Beside, work: Beside) -> None:
    work.put("Three swans.", priority="low")
    assert said(idle, notice(probed(idle))) == REFUSED
    assert (work.fact(facts.ACTIVITY), work.states()) == ("idle", ["waiting"])


def test_what_a_prompt_has_printed_is_not_doubted_by_a_probe(idle: Beside) -> None:
    idle.put("Two herons.")
    assert "Two herons." in idle.prompt()
    said(idle, notice(probed(idle)))
    idle.stop()
    assert idle.receipts() == [("seen", "prompt")]


def test_what_an_earlier_client_heard_says_nothing_of_the_wakers_of_this_one(bob: Beside) -> None:
    bob.put()
    for route in bells.ORDER:
        wakerprobes.note(bob.sql, route, f"{len(route):016}", now_ms())
        wakerprobes.answer(bob.sql, [f"{len(route):016}"], now_ms())
    rung = bells.ring(bob.sql, MONITOR, {MONITOR}, now_ms())
    assert rung is not None
    wakes = bells.wakes_left(bob.sql, now_ms())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as client:
        facts.begin(bob.sql, str(Living(client.pid, started(client.pid))), SESSION, attended=True)
        client.kill()
    assert {known(bob, route) for route in bells.ORDER} == {Health.UNTRIED}
    assert bells.wakes_left(bob.sql, now_ms()) == wakes
    # One that comes back late shows what it was rung for.
    assert bells.answer(bob.sql, f"(bell {rung.nonce})", now_ms()) == MONITOR
    assert known(bob) is Health.UNTRIED
    # The earlier one, which lives, is known as it was when it speaks again.
    facts.begin(bob.sql, bob.client, SESSION, attended=True)
    assert known(bob, REWAKE) is Health.REACHES


def test_a_route_silent_by_its_probe_rings_behind_those_that_are_heard_and_at_once_if_none_is(
    idle: Beside,
) -> None:
    probed(idle, MONITOR, ago_ms=ANSWER_MS)
    line = probed(idle, REWAKE, ago_ms=ANSWER_MS)
    idle.put()
    # Before a channel that was never heard, too.
    assert bells.is_due(idle.sql, MONITOR, ALL, now_ms())
    wakerprobes.answer(idle.sql, bells.nonces(line), now_ms())
    assert bells.is_due(idle.sql, REWAKE, ALL, now_ms())
    assert bells.is_due(idle.sql, MONITOR, {MONITOR, CHANNEL}, now_ms())
    assert bells.is_due(idle.sql, CHANNEL, {CHANNEL}, now_ms())


def test_a_damaged_fact_is_no_probe(idle: Beside) -> None:
    client = idle.client
    odd = ("a b c", "two 3", "two 3 4 5", "two ² 0", f"two {'9' * 5_000} 0", "two 3 -1")
    for told in ("", "one", "1.2 two 3 4", *(f"{client} {words}" for words in odd)):
        facts.put(idle.sql, facts.WAKER_PROBES[MONITOR], told)
        assert wakerprobes.of(idle.sql, MONITOR) is None
    assert due(idle, MONITOR) == [MONITOR]
