"""Probes whether a waker is heard, by a bell for nothing in a turn that is under way.

A line that a waker says while a tool's hook runs is folded into that turn, at the boundary behind
it; said at any other time it might be a turn of its own. So the hook of the first tool call that
finds a waker untested asks for a probe, by ``ask``, and holds the boundary open, by ``hold``. The
waker rings, by ``ring``. The hook of a prompt hears the nonce, by ``answer``, as that of any bell.
Each waker is probed once for each client; what ``bells.py`` rings later says more.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Collection

from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple
from claudemesh_mcp.routes import facts
from claudemesh_mcp.routes.settings import PROBE_HELD_MS, PROBE_RUNG_MS

if TYPE_CHECKING:
    from typing import Final

_PARTS: Final = 4
_STEP_S: Final = 0.02
_LINE: Final = "claudemesh: ready. Nothing waits, and nothing is to be done. (bell {})"


class WakerProbe(NamedTuple):
    """A probe of a waker.

    Args:
        nonce: What comes back in a prompt.
        asked_ms: When a hook asked for it.
        is_rung: Whether the waker has said it.
        answered_ms: When it came back; 0 if it has not.
    """

    nonce: str
    asked_ms: int
    is_rung: bool
    answered_ms: int


def of(sql: sqlite3.Connection, route: str) -> WakerProbe | None:
    """Give the probe of a route, if the client that lives has one."""
    told = facts.get(sql, facts.WAKER_PROBES[route]).split(" ") if route else []
    if len(told) != _PARTS:
        return None
    nonce, asked_ms, is_rung, answered_ms = told
    return WakerProbe(nonce, int(asked_ms), is_rung == "1", int(answered_ms))


def ask(sql: sqlite3.Connection, route: str, now_ms: int) -> WakerProbe:
    """Ask a route to ring, inside a change."""
    return _put(sql, route, WakerProbe(os.urandom(8).hex(), now_ms, is_rung=False, answered_ms=0))


def has_reason(sql: sqlite3.Connection, route: str, now_ms: int) -> bool:
    """Tell whether a hook waits for a route to ring; nothing is changed."""
    probe = of(sql, route)
    # What is said later may come behind the turn.
    return bool(probe and not probe.is_rung and 0 <= now_ms - probe.asked_ms < PROBE_RUNG_MS)


def ring(sql: sqlite3.Connection, route: str, now_ms: int) -> tuple[str, str] | None:
    """Ring, inside a change, if a hook waits for it; gives the nonce and the line to be said."""
    probe = of(sql, route)
    if probe is None or not has_reason(sql, route, now_ms):
        return None
    _put(sql, route, probe._replace(is_rung=True))
    return probe.nonce, _LINE.format(probe.nonce)


def answer(sql: sqlite3.Connection, nonces: Collection[str], now_ms: int) -> None:
    """Take note, inside a change, of the probes that came back in a prompt."""
    for route in facts.WAKER_PROBES if nonces else ():
        probe = of(sql, route)
        if probe is not None and probe.nonce in nonces:
            _put(sql, route, probe._replace(answered_ms=now_ms))


def asked_at(sql: sqlite3.Connection, now_ms: int) -> list[WakerProbe]:
    """Give the probes that were asked for at a moment."""
    found = [of(sql, route) for route in facts.WAKER_PROBES]
    return [probe for probe in found if probe is not None and probe.asked_ms == now_ms]


def hold(transcript: str, nonces: Collection[str], are_rung: Callable[[], bool]) -> None:
    """Hold a tool boundary open until the client has taken what wakers say, or some time is over.

    Source: Claude Code 2.1.330 writes down what it queues, before it folds that into a turn.

    Args:
        transcript: The path of the session's transcript.
        nonces: What is looked for in it, behind what stands there now.
        are_rung: Tells whether the wakers have said it.
    """
    # Imported here: hardly any hook waits.
    from select import select

    began_s = time.monotonic()
    offset = _size(transcript)
    missing = [nonce.encode() for nonce in nonces]
    while missing and (held_ms := (time.monotonic() - began_s) * 1000) < PROBE_HELD_MS:
        if held_ms > PROBE_RUNG_MS and not are_rung():
            return
        select([], [], [], _STEP_S)
        said = _behind(transcript, offset)
        missing = [nonce for nonce in missing if nonce not in said]


def _put(sql: sqlite3.Connection, route: str, probe: WakerProbe) -> WakerProbe:
    is_rung = "1" if probe.is_rung else "0"
    told = f"{probe.nonce} {probe.asked_ms} {is_rung} {probe.answered_ms}"
    facts.put(sql, facts.WAKER_PROBES[route], told)
    return probe


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0


def _behind(path: str, offset: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read()
    except (OSError, ValueError):
        return b""
