"""Probes whether a waker is heard, by a bell for nothing that becomes no turn.

A waker rings one beside an idle session, once for each client, by ``bells.probe``. The client makes
a prompt of it, as of any bell; ``refusing.py`` has the hook of that prompt refuse it, which is the
end of it: no request is made. That it came back is noted by ``answer``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple
from claudemesh_mcp.routes import facts
from claudemesh_mcp.routes.settings import ANSWER_MS

if TYPE_CHECKING:
    from typing import Final

LINE: Final = "claudemesh: tries whether it can wake this session; nothing is to be done. (bell {})"
_PARTS: Final = 4
_DIGITS: Final = 16


class WakerProbe(NamedTuple):
    """The probe of a waker.

    Args:
        client: ``PID.START`` of the client whose waker it is.
        nonce: What comes back in a prompt.
        rung_ms: When the waker said it.
        answered_ms: When it came back; 0 if it has not.
    """

    client: str
    nonce: str
    rung_ms: int
    answered_ms: int


def of(sql: sqlite3.Connection, route: str) -> WakerProbe | None:
    """Give the probe of a route, if this client has one: an earlier one had its own wakers."""
    told = facts.get(sql, facts.WAKER_PROBES[route]).split(" ")
    client = facts.get(sql, facts.CLIENT)
    if len(told) != _PARTS or told[0] != client or not all(map(_is_number, told[2:])):
        return None
    return WakerProbe(client, told[1], int(told[2]), int(told[3]))


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= _DIGITS


def rung(sql: sqlite3.Connection) -> dict[str, WakerProbe]:
    """Give the probes that wakers of this client have said, by their routes."""
    found = {route: of(sql, route) for route in facts.WAKER_PROBES}
    return {route: probe for route, probe in found.items() if probe is not None}


def is_outstanding(sql: sqlite3.Connection, now_ms: int) -> bool:
    """Tell whether a probe may still come back."""
    probes = rung(sql).values()
    return any(not one.answered_ms and now_ms - one.rung_ms < ANSWER_MS for one in probes)


def note(sql: sqlite3.Connection, route: str, nonce: str, now_ms: int) -> None:
    """Note, inside a change, that a route says its probe."""
    _put(sql, route, WakerProbe(facts.get(sql, facts.CLIENT), nonce, now_ms, 0))


def answer(sql: sqlite3.Connection, nonces: Collection[str], now_ms: int) -> str | None:
    """Take note, inside a change, of the probes that came back; gives the route of one."""
    heard = {route: probe for route, probe in rung(sql).items() if probe.nonce in nonces}
    for route, probe in heard.items():
        _put(sql, route, probe._replace(answered_ms=now_ms))
    return next(iter(heard), None)


def follow_clock(sql: sqlite3.Connection, now_ms: int) -> None:
    """Let what is noted of a time that has not come be of now."""
    for route, probe in rung(sql).items():
        if probe.rung_ms > now_ms:
            _put(sql, route, probe._replace(rung_ms=now_ms))


def _put(sql: sqlite3.Connection, route: str, probe: WakerProbe) -> None:
    facts.put(sql, facts.WAKER_PROBES[route], " ".join(map(str, probe)))
