"""Hears what there is to ring for in one peer's file, for a client's monitor or rewake hook.

``ringing.py`` has one for each peer of the client: one for each mesh that it has a server of.
"""

from __future__ import annotations

import sqlite3
import time

from claudemesh_mcp.plain import TYPE_CHECKING, closing, suppress
from claudemesh_mcp.routes import bells, facts, rests
from claudemesh_mcp.routes.bells import Bell
from claudemesh_mcp.routes.door import change, note_fault, now_ms, open_file
from claudemesh_mcp.routes.facts import Health
from claudemesh_mcp.routes.places import Places
from claudemesh_mcp.routes.processes import Living
from claudemesh_mcp.routes.records import Record

if TYPE_CHECKING:
    from typing import Final

_AGAIN_S: Final = 1.0
"""What no change of the file tells: that a bell has not been answered, or an hour has gone by."""
_FAULT_S: Final = 5.0


class Ear:
    """The look of one route into one peer's file.

    Args:
        where: The home.
        kind: ``monitor`` or ``rewake``.
        record: The peer.
    """

    def __init__(self, where: Places, kind: str, record: Record) -> None:
        self.record = record
        self._where = where
        self._kind = kind
        self._sql: sqlite3.Connection | None = None
        self._version: int = -1
        self._next_s = 0.0

    def look(self) -> Bell | None:
        """Look whether there is something to wake for, and ring."""
        try:
            if self._sql is None and time.monotonic() >= self._next_s:
                self._sql = open_file(self.record.file)
                if self._sql is None:
                    self._next_s = time.monotonic() + _FAULT_S
            return self._ring(self._sql) if self._sql is not None else None
        except (sqlite3.Error, OSError) as fault:
            # Locked, or gone: the next look may find it otherwise.
            self.close()
            note_fault(self._where, self._kind, fault)
            self._next_s = time.monotonic() + _FAULT_S
            return None

    def health(self, route: str) -> Health:
        """Say what is known here of a route."""
        with suppress(sqlite3.Error):
            if self._sql is not None:
                return bells.health(self._sql, route, facts.corrected(self._sql, now_ms()))
        return Health.UNTRIED

    def close(self) -> None:
        """Leave the file."""
        if self._sql is not None:
            with suppress(sqlite3.Error), closing(self._sql):
                self._sql = None
        self._version = -1

    def _ring(self, sql: sqlite3.Connection) -> Bell | None:
        version = int(sql.execute("PRAGMA data_version").fetchone()[0])
        if version == self._version and time.monotonic() < self._next_s:
            return None
        self._version, self._next_s = version, time.monotonic() + _AGAIN_S
        data, pid = self._where.data, self.record.pid
        rests.take(sql, data, self.record)
        at_ms = facts.corrected(sql, now_ms())
        # First what asks for no process: mostly there is nothing to ring for. Without a server that
        # judges what a turn would show, hooks show nothing.
        has_reason = bells.has_reason(sql, at_ms) or bells.may_probe(sql, self._kind, at_ms)
        if not (has_reason and Living(self.record.server, 0).is_alive):
            return None
        alive = bells.living(sql, data, pid)
        for is_due, ring in bells.KINDS:
            if is_due(sql, self._kind, alive, at_ms):
                with change(sql):
                    return ring(sql, self._kind, alive, facts.corrected(sql, now_ms()))
        return None
