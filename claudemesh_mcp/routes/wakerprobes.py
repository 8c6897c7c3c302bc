"""Probes whether a waker is heard, by a bell for nothing that becomes no turn.

A waker rings one beside an idle session, once for each client, by ``bells.probe``. The client makes
a prompt of it, as of any bell; the prompt's hook knows the nonce (``is_one``), notes that it came
back (``answer``), and refuses the prompt, which is the end of it: no request is made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple
from claudemesh_mcp.routes import facts
from claudemesh_mcp.routes.settings import PROBES, RETRY_MS

if TYPE_CHECKING:
    from typing import Final

LINE: Final = "claudemesh: tries whether it can wake this session; nothing is to be done. (bell {})"
HEARD: Final = "claudemesh tried whether messages can wake this session: they can."
"""What the user reads, behind the client's own word that a hook has refused the prompt."""
_PARTS: Final = 5


class WakerProbe(NamedTuple):
    """A probe of a waker.

    Args:
        client: ``PID.START`` of the client whose waker it is.
        nonce: What comes back in a prompt.
        rung_ms: When the waker said it.
        answered_ms: When it came back; 0 if it has not.
        number: How many there have been for this client.
    """

    client: str
    nonce: str
    rung_ms: int
    answered_ms: int
    number: int


def of(sql: sqlite3.Connection, route: str) -> WakerProbe | None:
    """Give the last probe of a route, if this client has one: an earlier one had its own wakers."""
    told = facts.get(sql, facts.WAKER_PROBES[route]).split(" ") if route else []
    client = facts.get(sql, facts.CLIENT)
    if len(told) != _PARTS or told[0] != client or not all(map(str.isdigit, told[2:])):
        return None
    _, nonce, rung_ms, answered_ms, number = told
    return WakerProbe(client, nonce, int(rung_ms), int(answered_ms), int(number))


def is_due(sql: sqlite3.Connection, route: str, now_ms: int) -> bool:
    """Tell whether a route has not been probed, or not been heard and may be probed once more."""
    last = of(sql, route)
    if last is None:
        return True
    return not last.answered_ms and last.number < PROBES and now_ms - last.rung_ms >= RETRY_MS


def is_outstanding(sql: sqlite3.Connection, since_ms: int) -> bool:
    """Tell whether a probe that was rung since then may still come back."""
    found = [of(sql, route) for route in facts.WAKER_PROBES]
    return any(one and not one.answered_ms and one.rung_ms > since_ms for one in found)


def note(sql: sqlite3.Connection, route: str, nonce: str, now_ms: int) -> None:
    """Note, inside a change, that a route says a probe."""
    last = of(sql, route)
    number = last.number + 1 if last is not None else 1
    _put(sql, route, WakerProbe(facts.get(sql, facts.CLIENT), nonce, now_ms, 0, number))


def known(sql: sqlite3.Connection) -> set[str]:
    """Give the nonces that wakers of this client have said."""
    return {probe.nonce for route in facts.WAKER_PROBES if (probe := of(sql, route))}


def answer(sql: sqlite3.Connection, nonces: Collection[str], now_ms: int) -> None:
    """Take note, inside a change, of the probes that came back in a prompt."""
    for route in facts.WAKER_PROBES:
        probe = of(sql, route)
        if probe is not None and probe.nonce in nonces:
            _put(sql, route, probe._replace(answered_ms=now_ms))


def _put(sql: sqlite3.Connection, route: str, probe: WakerProbe) -> None:
    facts.put(sql, facts.WAKER_PROBES[route], " ".join(map(str, probe)))
