"""Probes of wakers: when a tool's hook asks for one, and what is known when it came back or not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from claudemesh_mcp.routes import bells, facts, processes, records, wakerprobes
from claudemesh_mcp.routes.bells import CHANNEL, MONITOR, REWAKE
from claudemesh_mcp.routes.door import now_ms
from claudemesh_mcp.routes.facts import Health
from claudemesh_mcp.routes.processes import started
from claudemesh_mcp.routes.settings import ANSWER_MS, PROBE_RUNG_MS
from tests.routes.test_monitor import answer, ended, gone_pid, line_of, running
from tests.support.routing import SESSION, Beside
from tests.support.transcript import write_down

READY = "claudemesh: ready. Nothing waits, and nothing is to be done. (bell "


@pytest.fixture
def transcript(tmp_path: Path) -> Path:
    """Give the path of the client's transcript, to which nothing is written yet."""
    return tmp_path / "transcript.jsonl"


@pytest.fixture
def busy(bob: Beside) -> Beside:
    """Give bob's session in the midst of a turn, of which its hooks have told."""
    bob.prompt()
    return bob


@contextmanager
def calling(bob: Beside, transcript: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the hook of a tool while something else goes on."""
    told = {"tool_name": "Bash", "tool_use_id": "toolu_1", "transcript_path": str(transcript)}
    said = json.dumps({"session_id": SESSION, "hook_event_name": "PostToolUse", **told})
    with bob.start("hook.py", "PostToolUse") as process:
        try:
            assert process.stdin is not None
            process.stdin.write(said.encode())
            process.stdin.close()
            yield process
        finally:
            process.kill()


def queue(transcript: Path, line: str) -> None:
    """Write down that the client has queued a line, as Claude Code 2.1.330 does."""
    content = f"<task-notification>\n<event>{line}</event>\n</task-notification>"
    told = {"type": "queue-operation", "operation": "enqueue", "content": content}
    write_down(transcript, json.dumps(told))


def known(bob: Beside, route: str = MONITOR, later_ms: int = 0) -> Health:
    return bells.health(bob.sql, route, now_ms() + later_ms)


def claim(bob: Beside, kind: str = MONITOR) -> None:
    """Let a waker be there that never rings: the process of the test has its place."""
    processes.claim(records.place(bob.home, os.getpid(), kind))


def asked(bob: Beside, route: str = MONITOR) -> bool:
    return wakerprobes.of(bob.sql, route) is not None


def probes(bob: Beside) -> list[wakerprobes.WakerProbe]:
    found = [wakerprobes.of(bob.sql, route) for route in bells.ORDER]
    return [probe for probe in found if probe is not None]


def test_the_first_tool_call_has_the_monitor_probed_and_waits_for_the_client_to_take_it(
    busy: Beside, transcript: Path
) -> None:
    with running(busy, "monitor.py") as monitor, running(busy, "hook.py", "rewake") as rewake:
        with calling(busy, transcript) as hook:
            line = line_of(monitor)
            assert line.startswith(READY)
            assert hook.poll() is None
            queue(transcript, line)
            assert ended(hook) == 0
            assert hook.stdout is not None
            assert hook.stdout.read() == b""
        assert known(busy) is Health.UNTRIED
        assert answer(busy, line) == ""
        assert known(busy) is Health.REACHES
        assert bells.reaching(busy.sql, {MONITOR, REWAKE}, now_ms()) == [MONITOR]
        # The rewake hook, which waited to know this, is not probed: it leaves.
        assert ended(rewake) == 0
    assert not asked(busy, REWAKE)


def test_what_is_known_is_not_asked_again(busy: Beside, transcript: Path) -> None:
    with running(busy, "monitor.py") as monitor:
        with calling(busy, transcript) as hook:
            line = line_of(monitor)
            queue(transcript, line)
            assert ended(hook) == 0
        answer(busy, line)
        probe = wakerprobes.of(busy.sql, MONITOR)
        assert busy.tool() == ""
        busy.stop()
        # Not for another session of the same client either: its monitor is the same.
        assert busy.hook("SessionStart", source="clear", session_id="another") == ""
        busy.hook("UserPromptSubmit", prompt="Go on.", session_id="another")
        busy.tool(session_id="another")
        assert wakerprobes.of(busy.sql, MONITOR) == probe


def test_a_probe_costs_none_of_the_wakes_and_its_answer_is_no_prompt_of_a_human(
    busy: Beside,
) -> None:
    wakes, prompted_ms = bells.wakes_left(busy.sql, now_ms()), busy.fact(facts.PROMPT_MS)
    held = busy.put()
    busy.sql.execute("UPDATE inbox SET held = 'auto_reply_limit' WHERE row = ?", (held,))
    wakerprobes.ask(busy.sql, MONITOR, now_ms())
    _, line = wakerprobes.ring(busy.sql, MONITOR, now_ms()) or ("", "")
    assert answer(busy, line) == ""
    assert known(busy) is Health.REACHES
    assert bells.wakes_left(busy.sql, now_ms()) == wakes
    assert (busy.fact(facts.PROMPT_MS), busy.row(held)["held"]) == (prompted_ms, "auto_reply_limit")


def test_a_rewake_hook_without_a_monitor_is_probed_and_ends_by_it(
    busy: Beside, transcript: Path
) -> None:
    with running(busy, "hook.py", "rewake") as rewake:
        with calling(busy, transcript) as hook:
            assert ended(rewake) == 2
            assert rewake.stderr is not None
            line = rewake.stderr.read().decode()
            assert line.startswith(READY)
            queue(transcript, line)
            assert ended(hook) == 0
        assert answer(busy, line) == ""
    assert known(busy, REWAKE) is Health.REACHES


def test_a_monitor_that_nobody_hears_is_silent_and_the_rewake_hook_is_probed_next(
    busy: Beside, transcript: Path
) -> None:
    with running(busy, "monitor.py") as monitor, running(busy, "hook.py", "rewake") as rewake:
        with calling(busy, transcript) as hook:
            line_of(monitor)
            # The client takes nothing: the hook waits no longer than it may.
            assert ended(hook) == 0
        assert known(busy) is Health.UNTRIED
        assert busy.tool("toolu_2") == ""
        assert not asked(busy, REWAKE)
        age(busy, MONITOR, ANSWER_MS)
        assert known(busy) is Health.SILENT
        with calling(busy, transcript) as hook:
            assert ended(rewake) == 2
            assert rewake.stderr is not None
            line = rewake.stderr.read().decode()
            queue(transcript, line)
            assert ended(hook) == 0
        answer(busy, line)
    assert bells.reaching(busy.sql, {MONITOR, REWAKE}, now_ms()) == [REWAKE]


def age(bob: Beside, route: str, by_ms: int) -> None:
    """Let a probe have been asked for earlier."""
    probe = wakerprobes.of(bob.sql, route)
    assert probe is not None
    wakerprobes._put(bob.sql, route, probe._replace(asked_ms=probe.asked_ms - by_ms))


def test_a_waker_that_does_not_ring_in_time_rings_no_more(busy: Beside, transcript: Path) -> None:
    claim(busy)
    with calling(busy, transcript) as hook:
        assert ended(hook) == 0
    assert [probe.is_rung for probe in probes(busy)] == [False]
    age(busy, MONITOR, PROBE_RUNG_MS)
    # What it would say now might be a turn of its own.
    with running(busy, "monitor.py") as monitor:
        busy.put()
        facts.put(busy.sql, facts.ACTIVITY, "idle")
        assert "1 message" in line_of(monitor)
    assert known(busy, later_ms=ANSWER_MS) is Health.SILENT


def test_a_late_answer_counts(busy: Beside) -> None:
    probe = wakerprobes.ask(busy.sql, MONITOR, now_ms() - 2 * ANSWER_MS)
    assert known(busy) is Health.SILENT
    answer(busy, f"{READY}{probe.nonce})")
    assert known(busy) is Health.REACHES


@pytest.mark.parametrize("why", ["print", "dnd", "inbox", "off", "no server", "subagent", "none"])
def test_nobody_is_probed_where_nobody_is_to_be_woken(busy: Beside, why: str) -> None:
    told: dict[str, str] = {}
    match why:
        case "print":
            busy.environ["CLAUDE_CODE_ENTRYPOINT"] = "sdk-cli"
            facts.put(busy.sql, facts.ATTENDED, "0")
        case "dnd":
            facts.set_dnd(busy.sql, on=True)
        case "inbox" | "off":
            facts.set_mode(busy.sql, facts.Mode(why))
        case "no server":
            busy.record(server=gone_pid())
        case "subagent":
            told["agent_id"] = "agent_1"
        case _:
            pass
    if why != "none":
        claim(busy)
    assert busy.tool(**told) == ""
    assert not any(asked(busy, route) for route in bells.ORDER)


def test_a_call_that_brings_messages_has_nobody_probed_and_the_next_one_has(
    busy: Beside, transcript: Path
) -> None:
    claim(busy)
    busy.put("Two herons.", priority="now")
    assert "Two herons." in busy.tool()
    assert not asked(busy)
    with calling(busy, transcript) as hook:
        assert ended(hook) == 0
    assert asked(busy)


def test_a_waker_that_a_bell_has_tried_is_not_probed(busy: Beside) -> None:
    busy.stop()
    with running(busy, "monitor.py") as monitor:
        busy.put()
        answer(busy, line_of(monitor))
        busy.tool()
    assert not asked(busy)


def test_what_an_earlier_client_heard_says_nothing_of_the_wakers_of_this_one(bob: Beside) -> None:
    bob.put()
    for route in (MONITOR, REWAKE, CHANNEL):
        probe = wakerprobes.ask(bob.sql, route, now_ms())
        wakerprobes.answer(bob.sql, [probe.nonce], now_ms())
    rung = bells.ring(bob.sql, MONITOR, {MONITOR}, now_ms())
    assert rung is not None
    assert bells.answer(bob.sql, f"(bell {rung.nonce})", now_ms()) == MONITOR
    wakes = bells.wakes_left(bob.sql, now_ms())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as client:
        facts.begin(bob.sql, f"{client.pid}.{started(client.pid)}", SESSION, attended=True)
        client.kill()
    assert {known(bob, route) for route in bells.ORDER} == {Health.UNTRIED}
    assert bells.wakes_left(bob.sql, now_ms()) == wakes


def test_a_route_silent_by_its_probe_rings_behind_those_that_are_heard_and_at_once_if_none_is(
    busy: Beside,
) -> None:
    at_ms = now_ms()
    wakerprobes.ask(busy.sql, MONITOR, at_ms - ANSWER_MS)
    probe = wakerprobes.ask(busy.sql, REWAKE, at_ms - ANSWER_MS)
    busy.stop()
    busy.put()
    assert bells.is_due(busy.sql, MONITOR, {MONITOR, REWAKE}, at_ms)
    wakerprobes.answer(busy.sql, [probe.nonce], at_ms)
    assert bells.is_due(busy.sql, REWAKE, {MONITOR, REWAKE}, at_ms)
    assert bells.is_due(busy.sql, MONITOR, {MONITOR}, at_ms)


def test_a_hook_that_is_killed_while_it_waits_loses_nothing(busy: Beside, transcript: Path) -> None:
    with running(busy, "monitor.py") as monitor:
        with calling(busy, transcript) as hook:
            line = line_of(monitor)
            hook.kill()
        busy.put("Two herons.", priority="now")
        # The client has taken the line all the same, and the next call shows what has come.
        answer(busy, line)
        assert "Two herons." in busy.tool("toolu_2")
    assert known(busy) is Health.REACHES


def test_a_client_that_keeps_no_transcript_is_waited_for_no_longer(busy: Beside) -> None:
    with running(busy, "monitor.py") as monitor:
        assert busy.tool() == ""
        line = line_of(monitor)
        answer(busy, line)
    assert known(busy) is Health.REACHES


def test_a_damaged_fact_is_no_probe(bob: Beside) -> None:
    for told in ("", "one", "one two three", "one 1 1 1 1"):
        facts.put(bob.sql, facts.WAKER_PROBES[MONITOR], told)
        assert wakerprobes.of(bob.sql, MONITOR) is None
    assert wakerprobes.ring(bob.sql, MONITOR, now_ms()) is None
