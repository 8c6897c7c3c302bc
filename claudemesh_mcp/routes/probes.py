"""Probes whether what hooks print comes before the model: by a nonce, and the transcript.

``events.py`` has one carried by the first look behind each start of a session, in a new client by
that of its first prompt, and by each that shows messages. The session's server looks for it in the
transcript and settles it: there stands what a hook has brought, and behind it the model's reply.
One that is not there ten seconds behind the end of a turn makes the hooks silent, as a bell does
that nobody answers; then the next prompt carries another.
"""

from __future__ import annotations

import os
import sqlite3

from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple
from claudemesh_mcp.routes import facts
from claudemesh_mcp.routes.facts import Activity, Health, Mode
from claudemesh_mcp.routes.offers import Look, Offer
from claudemesh_mcp.routes.settings import ANSWER_MS, Moment

if TYPE_CHECKING:
    from typing import Final

_READY: Final = "claudemesh: ready."
_PARTS: Final = 5
_BRING: Final = (Moment.SESSION, Moment.PROMPT, Moment.BELL)
"""What is brought by these costs no turn, and is no more than a line where nothing waits."""


class Probe(NamedTuple):
    """A nonce that a hook prints.

    Args:
        nonce: The nonce.
        at_ms: When it is printed.
        offset: How many bytes the transcript has then; what it shows of the nonce is behind them.
        is_of_prompt: ``1`` if the hook of a prompt prints it, else ``0``.
        path: The transcript; empty if the client names none, which can't be probed.
    """

    nonce: str
    at_ms: int
    offset: int
    is_of_prompt: str
    path: str


class Verdict(NamedTuple):
    """What a probe says.

    Args:
        probe: The probe.
        health: What is known by it.
    """

    probe: Probe
    health: Health


def carry(sql: sqlite3.Connection, look: Look, made: Offer | None, probe: Probe) -> Offer | None:
    """Have a look carry a probe if it is due; gives what is to be printed then.

    Args:
        sql: The peer file, in a change.
        look: The look.
        made: What it shows; frames have a nonce of their own, so that they cost no line.
        probe: The probe for where it shows none; how long the transcript is, is asked here.
    """
    if not probe.path or look.moment is Moment.STOP:
        return made
    known = made.holder.rpartition(":")[2] if made else ""
    if not known:
        if look.moment not in _BRING or not _is_due(sql, look):
            return made
        said = made.text if made else _READY
        made = Offer(f"{said} (probe {probe.nonce})", "")
    carried = probe._replace(
        nonce=known or probe.nonce,
        offset=_size(probe.path),
        is_of_prompt="1" if _is_of_prompt(look) else "0",
    )
    told = " ".join(map(str, carried))
    # SQLite takes no lone surrogate.
    facts.put(sql, facts.PROBE, told.encode("utf-8", "replace").decode())
    return made


def forget(sql: sqlite3.Connection) -> None:
    """Let nothing be known: a session has started, into whose context nothing came yet."""
    facts.put(sql, facts.PROBE, "")
    facts.put(sql, facts.HOOKS, "")


def unsettled(sql: sqlite3.Connection) -> Probe | None:
    """Give the probe that is to be looked for."""
    told = facts.get(sql, facts.PROBE).split(" ", _PARTS - 1)
    if len(told) != _PARTS:
        return None
    nonce, at_ms, offset, is_of_prompt, path = told
    return Probe(nonce, int(at_ms), int(offset), is_of_prompt, path)


def verdict(sql: sqlite3.Connection, now_ms: int) -> Verdict | None:
    """Say what the probe that is not settled says of the hooks; none as long as that is open.

    What can't be read says nothing.
    """
    # Imported here: hooks, which settle nothing, have this module too.
    from claudemesh_mcp.routes.transcript import Trace, trace

    probe = unsettled(sql)
    if probe is None:
        return None
    found = trace(probe.path, probe.offset, probe.nonce)
    if found is Trace.ANSWERED:
        return Verdict(probe, Health.REACHES)
    ended_ms = facts.get_int(sql, facts.ACTIVITY_MS)
    is_over = facts.activity(sql) is Activity.IDLE and ended_ms > probe.at_ms
    # The client writes some things down a while after they were so.
    if found is not Trace.ABSENT or not is_over or now_ms - ended_ms < ANSWER_MS:
        return None
    return Verdict(probe, Health.SILENT)


def settle(sql: sqlite3.Connection, found: Verdict) -> None:
    """Note a verdict, inside a change, unless there is another probe by now."""
    if unsettled(sql) == found.probe:
        facts.put(sql, facts.PROBE, "")
        facts.put(sql, facts.HOOKS, found.health.value)
        if found.probe.is_of_prompt == "1":
            facts.put(sql, facts.PROMPTS, "1" if found.health is Health.REACHES else "")


def _is_due(sql: sqlite3.Connection, look: Look) -> bool:
    if facts.is_dnd(sql) or facts.mode(sql) is Mode.OFF:
        return False
    last = unsettled(sql)
    if facts.get(sql, facts.PROMPTS) == "1" or facts.get(sql, facts.ATTENDED) != "1":
        return last is None and facts.hooks(sql) is not Health.REACHES
    # Where somebody is to be waked this hook has to be known: it refuses the probes of wakers.
    return _is_of_prompt(look) and (last is None or last.is_of_prompt != "1")


def _is_of_prompt(look: Look) -> bool:
    return look.moment is Moment.BELL or look.route == Moment.PROMPT.value


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0  # Before the first prompt there is none.
