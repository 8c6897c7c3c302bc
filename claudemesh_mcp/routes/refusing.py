"""Refuses the prompt that a waker's probe became, so that the client makes no request of it.

``looking.py`` asks for each notice of a machine, before it changes anything. What the client takes
together with a refused notice ends with it: where a bell was rung behind the probe, or messages
wait that may cause a turn, the probe is let pass, and counts as a bell.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

from claudemesh_mcp.plain import TYPE_CHECKING, suppress
from claudemesh_mcp.routes import bells, facts, wakerprobes
from claudemesh_mcp.routes.door import now_ms, open_file

if TYPE_CHECKING:
    from typing import Any, Final

HEARD: Final = "claudemesh tried whether messages can wake this session: they can."
"""What the user reads, behind the client's own word that a hook has refused the prompt."""
REFUSAL: Final[dict[str, Any]] = {
    "decision": "block",
    "reason": HEARD,
    "hookSpecificOutput": {"hookEventName": "UserPromptSubmit", "suppressOriginalPrompt": True},
}
_EVENT: Final = ("<event>", "</event>")
_REMINDER: Final = ("<system-reminder>", "</system-reminder>")
_NOTICES: Final = ("</task-notification>", "</channel>")
_BEFORE_REWAKE: Final = "claudemesh:"


def is_refused(prompt: str, files: Iterable[str]) -> bool:
    """Tell whether a notice is that of probes and of nothing else, and nothing stands behind them.

    Args:
        prompt: The notice.
        files: The files of the client's peers: one for each mesh.
    """
    nonces = set(bells.nonces(prompt))
    if not nonces or not _is_nothing_else(prompt, nonces):
        return False
    opened = [sql for path in files if (sql := _opened(path)) is not None]
    try:
        said = [probe for sql in opened for probe in _said(sql) if probe.nonce in nonces]
        if nonces - {probe.nonce for probe in said}:
            return False
        since_ms = min(probe.rung_ms for probe in said)
        return not any(_has_more(sql, since_ms) for sql in opened)
    finally:
        for sql in opened:
            sql.close()


def _is_nothing_else(prompt: str, nonces: Collection[str]) -> bool:
    """Tell whether all that a notice says is the lines of these probes."""
    rest = prompt
    for nonce in nonces:
        rest = rest.replace(wakerprobes.LINE.format(nonce), "", 1)
    if bells.nonces(rest) or sum(map(rest.count, _NOTICES)) != 1 or rest.count(_REMINDER[1]) > 1:
        return False
    told = [rest.partition(begin)[2].partition(end)[0] for begin, end in (_EVENT, _REMINDER)]
    is_channel = _NOTICES[1] in rest
    if is_channel and not rest.rpartition(_NOTICES[1])[0].rstrip().endswith(">"):
        return False
    return not "".join(told).replace(_BEFORE_REWAKE, "").strip()


def _opened(path: str) -> sqlite3.Connection | None:
    with suppress(sqlite3.Error, OSError):
        return open_file(path)
    return None


def _said(sql: sqlite3.Connection) -> list[wakerprobes.WakerProbe]:
    with suppress(sqlite3.Error):
        return list(wakerprobes.rung(sql).values())
    return []


def _has_more(sql: sqlite3.Connection, since_ms: int) -> bool:
    with suppress(sqlite3.Error):
        at_ms = facts.corrected(sql, now_ms())
        return bells.has_rung_since(sql, since_ms) or bells.has_rows(sql, at_ms)
    # A turn too many loses nothing; a bell that ends with the probe would.
    return True
