"""Bells: one short line that wakes an idle session, without a word of any peer in it.

Monitor, rewake hook and server ring one by ``ring``; the hook that sees its nonce come back in a
prompt says so by ``answer`` and shows the messages in that very turn. A bell that nobody answers
makes its route silent: the next route rings, and when all are silent they ring again, ever later.
Before its first bell a route is known by its probe (``wakerprobes.py``).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection

from claudemesh_mcp import staleness
from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple
from claudemesh_mcp.routes import facts, records, wakerprobes
from claudemesh_mcp.routes.facts import Activity, Health, Mode
from claudemesh_mcp.routes.frames import frame
from claudemesh_mcp.routes.places import Folder
from claudemesh_mcp.routes.processes import Living, holder
from claudemesh_mcp.routes.settings import ANSWER_MS, HOUR_MS, RETRY_MS, STALE_MS
from claudemesh_mcp.routes.waking import (
    hold_excess,
    tokens_left,
    tokens_of,
    wakes_left,
    waking_rows,
)

if TYPE_CHECKING:
    from typing import Final

MONITOR: Final = "monitor"
REWAKE: Final = "rewake"
CHANNEL: Final = "channel"
ORDER: Final = (MONITOR, REWAKE, CHANNEL)
"""The first that lives and is not silent rings."""
HOOKS: Final = "hooks"
OVERTAKEN: Final = 0
"""``answered_ms`` of a bell that a human's prompt overtook: it woke nobody, and says nothing."""
UNCLEAR: Final = -1
"""``answered_ms`` of a bell behind which the session worked: it may have been what woke it."""
# Of itself SQLite would look for it in the order of arrival, through all that was seen since.
_NEWEST_OPEN: Final = (
    "SELECT max(received_ms) FROM inbox INDEXED BY inbox_open WHERE state <> 'seen'"
)
_BEFORE_NONCE: Final = "bell "
_NONCE: Final = 16
_HEX: Final = frozenset("0123456789abcdef")
_HANDLE: Final = "[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])?"
_NAMED: Final = 3
_KEPT_MS: Final = 24 * HOUR_MS
_DOUBLINGS: Final = 6
"""After so many a route that nobody hears is tried about once in an hour."""


class Bell(NamedTuple):
    """A bell that was rung.

    Args:
        nonce: What comes back in the prompt that it makes.
        line: What is to be written now.
        messages: How many messages it is for; none if it is a probe.
    """

    nonce: str
    line: str
    messages: int


class _Last(NamedTuple):
    rung_ms: int
    answered_ms: int | None


def living(sql: sqlite3.Connection, data: Folder, pid: int) -> set[str]:
    """Give the routes that could wake a client now.

    Args:
        sql: The peer file.
        data: The home.
        pid: The client.
    """
    found = {kind for kind in (MONITOR, REWAKE) if holder(records.place(data, pid, kind))}
    channel = Living.read(facts.get(sql, facts.CHANNEL))
    return found | ({CHANNEL} if channel is not None and channel.is_alive else set())


def health(sql: sqlite3.Connection, route: str, now_ms: int) -> Health:
    """Say what the last bell of a route says about it, or before the first its probe."""
    last = _last(sql, route) or _probed(sql, route)
    if last is None or (last.answered_ms is None and now_ms - last.rung_ms < ANSWER_MS):
        return Health.UNTRIED
    return Health.SILENT if last.answered_ms is None else Health.REACHES


def reaching(sql: sqlite3.Connection, alive: Collection[str], now_ms: int) -> list[str]:
    """Give the routes that reach the model, by what came back of them; untried ones are not named.

    Args:
        sql: The peer file.
        alive: As ``living`` gives it.
        now_ms: The time.
    """
    proven = [
        route for route in ORDER if route in alive and health(sql, route, now_ms) is Health.REACHES
    ]
    return [*([HOOKS] if facts.hooks(sql) is Health.REACHES else []), *proven]


def has_reason(sql: sqlite3.Connection, now_ms: int) -> bool:
    """Tell whether any route should ring now; nothing is changed."""
    if not _may_be_woken(sql, now_ms):
        return False
    if _is_outstanding(sql, now_ms) or not wakes_left(sql, now_ms):
        return False
    rows = waking_rows(sql, now_ms, attended=True)
    return bool(rows) and _has_use(sql, rows, now_ms)


def is_due(sql: sqlite3.Connection, route: str, alive: Collection[str], now_ms: int) -> bool:
    """Tell whether a route should ring now; nothing is changed."""
    return has_reason(sql, now_ms) and _turn_of(sql, alive, now_ms) == route


def may_probe(sql: sqlite3.Connection, route: str, now_ms: int) -> bool:
    """Tell whether a route may be probed now without a turn; nothing is changed.

    The session is idle, with nothing in the background whose notice would end with the probe's, and
    the hook is known to be heard that refuses the prompt which the probe becomes.
    """
    if not _takes_bells(sql) or facts.activity(sql) is not Activity.IDLE:
        return False
    if facts.get(sql, facts.PROMPTS) != "1" or facts.hooks(sql) is not Health.REACHES:
        return False
    if facts.get(sql, facts.BACKGROUND) != "0" or _last(sql, route) or _probed(sql, route):
        return False
    return not (_is_outstanding(sql, now_ms) or has_reason(sql, now_ms))


def is_probe_due(sql: sqlite3.Connection, route: str, alive: Collection[str], now_ms: int) -> bool:
    """Tell whether a route should be probed now; nothing is changed.

    One at a time, in their order: behind one that is heard, or may be, no other is.
    """
    if route not in alive or not may_probe(sql, route, now_ms):
        return False
    before = [one for one in ORDER[: ORDER.index(route)] if one in alive]
    return all(health(sql, one, now_ms) is Health.SILENT for one in before)


def probe(sql: sqlite3.Connection, route: str, alive: Collection[str], now_ms: int) -> Bell | None:
    """Ring for nothing, if that is due, inside one IMMEDIATE transaction; see ``ring``."""
    if not is_probe_due(sql, route, alive, now_ms):
        return None
    nonce = os.urandom(8).hex()
    wakerprobes.note(sql, route, nonce, now_ms)
    return Bell(nonce, wakerprobes.LINE.format(nonce), 0)


def ring(sql: sqlite3.Connection, route: str, alive: Collection[str], now_ms: int) -> Bell | None:
    """Ring, if it is due, inside one IMMEDIATE transaction of the caller.

    Args:
        sql: The peer file.
        route: The caller's own route.
        alive: As ``living`` gives it.
        now_ms: The time.

    Returns:
        The bell to write at once behind the commit; none if there is nothing to wake for.
    """
    if not is_due(sql, route, alive, now_ms):
        return None
    # For what would not be shown nobody is woken.
    staleness.withhold(sql, now_ms)
    rows = hold_excess(sql, waking_rows(sql, now_ms, attended=True), now_ms)
    if not rows:
        return None
    nonce = os.urandom(8).hex()
    sql.execute("DELETE FROM bells WHERE rung_ms < ?", (now_ms - _KEPT_MS,))
    sql.execute(
        "INSERT INTO bells (nonce, route, rung_ms) VALUES (?, ?, ?)", (nonce, route, now_ms)
    )
    return Bell(nonce, _line(rows, nonce), len(rows))


KINDS: Final = ((is_due, ring), (is_probe_due, probe))
"""What a waker may ring for, first to last: whether it is due, and how it is done."""


def answer(sql: sqlite3.Connection, prompt: str, now_ms: int) -> str | None:
    """Take note that a bell came back in a prompt; gives the route that brought it.

    A probe that was not refused is one, unless that is on its way for which it was not.
    """
    route, found_in = None, nonces(prompt)
    for nonce in found_in:
        found = sql.execute("SELECT route FROM bells WHERE nonce = ?", (nonce,)).fetchone()
        if found is not None:
            sql.execute("UPDATE bells SET answered_ms = ? WHERE nonce = ?", (now_ms, nonce))
            route = str(found[0]).removeprefix(facts.FORMER)
    probed = wakerprobes.answer(sql, found_in, now_ms)
    if probed is None:
        return route
    probe = wakerprobes.rung(sql)[probed]
    told = (probe.nonce, probed, now_ms, now_ms)
    sql.execute("INSERT OR IGNORE INTO bells VALUES (?, ?, ?, ?)", told)
    return route or (None if has_rung_since(sql, probe.rung_ms) else probed)


def nonces(prompt: str) -> list[str]:
    """Give what may be nonces of bells and probes in a prompt."""
    # Without a pattern: `re` would be a fifth of the hook that looks here.
    words = [part[:_NONCE] for part in prompt.split(_BEFORE_NONCE)[1:]]
    return [word for word in words if len(word) == _NONCE and _HEX.issuperset(word)]


def overtake(sql: sqlite3.Connection, now_ms: int, *, by_human: bool) -> None:
    """Take note that the session works already: a bell on its way says nothing about its route."""
    sql.execute(
        "UPDATE bells SET answered_ms = ? WHERE answered_ms IS NULL AND rung_ms > ?",
        (OVERTAKEN if by_human else UNCLEAR, now_ms - ANSWER_MS),
    )


def has_rung_since(sql: sqlite3.Connection, since_ms: int) -> bool:
    """Tell whether a bell was rung since then that has not come back."""
    found = sql.execute(
        "SELECT 1 FROM bells WHERE answered_ms IS NULL AND rung_ms >= ?", (since_ms,)
    ).fetchone()
    return found is not None


def has_rows(sql: sqlite3.Connection, now_ms: int) -> bool:
    """Tell whether there is something that may wake the session, and would be shown."""
    return _takes_bells(sql) and bool(waking_rows(sql, now_ms, attended=True))


def has_outstanding(sql: sqlite3.Connection, now_ms: int) -> bool:
    """Tell whether a bell may still come back."""
    return _is_outstanding(sql, now_ms)


def _takes_bells(sql: sqlite3.Connection) -> bool:
    if facts.mode(sql) is not Mode.PUSH or facts.is_dnd(sql):
        return False
    return facts.get(sql, facts.ATTENDED) == "1"


def _may_be_woken(sql: sqlite3.Connection, now_ms: int) -> bool:
    if not _takes_bells(sql):
        return False
    activity = facts.activity(sql)
    if activity is Activity.WORKING:
        return now_ms - facts.get_int(sql, facts.ACTIVITY_MS) > STALE_MS
    return activity is Activity.IDLE


def _has_use(sql: sqlite3.Connection, rows: list[sqlite3.Row], now_ms: int) -> bool:
    """Tell whether a turn would show something: what fits, and is not kept from being shown."""
    if tokens_of(frame(rows[0], "", "", again=False)) > tokens_left(sql, now_ms):
        return False
    last = sql.execute(
        "SELECT rung_ms, answered_ms, (SELECT max(at_ms) FROM pushes) FROM bells"
        " WHERE answered_ms IS NOT ? ORDER BY rung_ms DESC LIMIT 1",
        (OVERTAKEN,),
    ).fetchone()
    # One that nobody heard says nothing of what is shown: another route may be heard.
    if last is None or last[1] is None or (last[2] or 0) >= last[0]:
        return True
    rung_ms = last[0]
    return now_ms - rung_ms > STALE_MS or any(row["received_ms"] > rung_ms for row in rows)


def _is_outstanding(sql: sqlite3.Connection, now_ms: int) -> bool:
    # What the client takes together with a probe ends with it.
    return has_rung_since(sql, now_ms - ANSWER_MS + 1) or wakerprobes.is_outstanding(sql, now_ms)


def _turn_of(sql: sqlite3.Connection, alive: Collection[str], now_ms: int) -> str | None:
    """Give the route whose turn it is: in their order, the first that is not silent."""
    (newest,) = sql.execute(_NEWEST_OPEN).fetchone()
    may = [one for one in ORDER if one in alive and _may_try(sql, one, newest or 0, now_ms)]
    # Nothing was ever heard by a channel that is untested: most clients drop it.
    known = [one for one in may if one != CHANNEL or health(sql, one, now_ms) is Health.REACHES]
    # A probe that was not heard says less than a bell.
    doubted = [one for one in (MONITOR, REWAKE) if one in alive and _last(sql, one) is None]
    for route in (*known, *doubted, *may):
        return route
    return _turn_of_silent(sql, alive, newest or 0, now_ms)


def _turn_of_silent(
    sql: sqlite3.Connection, alive: Collection[str], newest_ms: int, now_ms: int
) -> str | None:
    """Give the route to be tried again for what is waiting: the one that rang longest ago.

    A line may be lost by a route that works: without this the session would be deaf until the
    next message. Each time is twice as late, so that unheard bells leave turns of the hour.
    """
    rung = {
        route: last.rung_ms for route in ORDER if route in alive and (last := _last(sql, route))
    }
    if not rung:
        return None
    (unheard,) = sql.execute(
        "SELECT count(*) FROM bells WHERE answered_ms IS NULL AND rung_ms >= ?", (newest_ms,)
    ).fetchone()
    doublings = min(max(unheard - len(rung), 0), _DOUBLINGS)
    if now_ms - max(rung.values()) < RETRY_MS << doublings:
        return None
    return min(rung, key=rung.__getitem__)


def _may_try(sql: sqlite3.Connection, route: str, newest_ms: int, now_ms: int) -> bool:
    if health(sql, route, now_ms) is not Health.SILENT:
        return True
    last = _last(sql, route)
    return last is not None and now_ms - last.rung_ms >= RETRY_MS and newest_ms > last.rung_ms


def _last(sql: sqlite3.Connection, route: str) -> _Last | None:
    found = sql.execute(
        "SELECT rung_ms, answered_ms FROM bells WHERE route = ?"
        " AND (answered_ms IS NULL OR answered_ms > ?) ORDER BY rung_ms DESC LIMIT 1",
        (route, OVERTAKEN),
    ).fetchone()
    return None if found is None else _Last(*found)


def _probed(sql: sqlite3.Connection, route: str) -> _Last | None:
    probe = wakerprobes.of(sql, route)
    return None if probe is None else _Last(probe.rung_ms, probe.answered_ms or None)


def _line(rows: list[sqlite3.Row], nonce: str) -> str:
    # Imported here: hooks, which ring no bell, have this module too.
    import re

    told = dict.fromkeys(row["handle"] for row in rows)
    handles = [one for one in told if re.fullmatch(_HANDLE, one, re.ASCII)]
    named = ", ".join(handles[:_NAMED]) + (" and others" if len(handles) > _NAMED else "")
    many = f"{len(rows)} messages" if len(rows) > 1 else "1 message"
    return (
        f"claudemesh: {many} from {named or 'a peer'}. If nothing of it is shown with this notice,"
        f" call inbox. (bell {nonce})"
    )
