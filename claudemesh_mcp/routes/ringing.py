"""Waits beside an idle session for something to wake it for, and rings.

``monitor.py`` and the rewake hook run it, one of each for a client: the newest takes the place of
an older one, and both leave when the client is gone, which may be without a word.
"""

from __future__ import annotations

import os
import select
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress

from claudemesh_mcp.plain import TYPE_CHECKING
from claudemesh_mcp.routes import bells, facts, records
from claudemesh_mcp.routes.bells import Bell, Health
from claudemesh_mcp.routes.door import change, note_fault, now_ms, open_file
from claudemesh_mcp.routes.places import Caller, Places
from claudemesh_mcp.routes.processes import Claim, Living, claim, holder
from claudemesh_mcp.routes.records import Record

if TYPE_CHECKING:
    from typing import Final

TICK_MS: Final = 250
_AGAIN_S: Final = 1.0
"""What no change of the file tells: that a bell has not been answered, or an hour has gone by."""
_FAULT_S: Final = 5.0
_SURE_S: Final = 10.0
_RUNG: Final = 2


class Place:
    """The place of one kind beside one client.

    Args:
        where: The home.
        client: The client.
        kind: ``monitor`` or ``rewake``.
    """

    def __init__(self, where: Places, client: Living, kind: str) -> None:
        self.where = where
        self.client = client
        self.kind = kind
        self._claim: Claim = claim(records.place(where.data, client.pid, kind))
        self._sql: sqlite3.Connection | None = None
        self._record: Record | None = None
        self._stamp = 0
        self._version: int = -1
        self._next_s = 0.0
        self._sure_s = 0.0

    @property
    def is_mine(self) -> bool:
        """Whether the client lives, and no newer process took this place."""
        # To ask for a process's start takes a process on some systems; its number is not given to
        # another so soon.
        if time.monotonic() < self._sure_s:
            return self.client.exists and self._claim.holds
        self._sure_s = time.monotonic() + _SURE_S
        return self.client.is_alive and self._claim.holds

    def leave(self) -> None:
        """Leave the place."""
        self._claim.release()
        self._close()

    def look(self) -> Bell | None:
        """Look whether there is something to wake for, and ring."""
        try:
            self._follow_record()
            return self._ring(self._sql) if self._sql is not None else None
        except (sqlite3.Error, OSError) as fault:
            # Locked, or gone: the next look may find it otherwise.
            self._close()
            note_fault(self.where, self.kind, fault)
            self._next_s = time.monotonic() + _FAULT_S
            return None

    def _follow_record(self) -> None:
        """Open the file of the peer that the client's server names now."""
        try:
            stamp = os.stat(records.place(self.where.data, self.client.pid)).st_mtime_ns
        except OSError:
            stamp = 0
        if stamp != self._stamp:
            self._stamp = stamp
            self._close()
            self._record = records.find(self.where.data, self.client.pid)
            self._next_s = 0.0
        if self._sql is None and self._record is not None and time.monotonic() >= self._next_s:
            self._sql = open_file(self._record.file)
            if self._sql is None:
                self._next_s = time.monotonic() + _FAULT_S

    def _ring(self, sql: sqlite3.Connection) -> Bell | None:
        version = int(sql.execute("PRAGMA data_version").fetchone()[0])
        if version == self._version and time.monotonic() < self._next_s:
            return None
        self._version, self._next_s = version, time.monotonic() + _AGAIN_S
        at_ms = facts.corrected(sql, now_ms())
        # First what asks for no process: mostly there is nothing to ring for.
        if not (bells.has_reason(sql, at_ms) and self._has_server):
            return None
        alive = bells.living(sql, self.where.data, self.client.pid)
        if not bells.is_due(sql, self.kind, alive, at_ms):
            return None
        with change(sql):
            return bells.ring(sql, self.kind, alive, at_ms)

    def is_spared(self) -> bool:
        """Tell whether a monitor lives whose bells are known to reach the model."""
        if holder(records.place(self.where.data, self.client.pid, bells.MONITOR)) is None:
            return False
        with suppress(sqlite3.Error):
            sql = self._sql
            if sql is not None:
                at_ms = facts.corrected(sql, now_ms())
                return bells.health(sql, bells.MONITOR, at_ms) is Health.REACHES
        return False

    @property
    def _has_server(self) -> bool:
        """Whether somebody judges what a turn would show; without it hooks show nothing."""
        return self._record is not None and Living(self._record.server, 0).is_alive

    def _close(self) -> None:
        if self._sql is not None:
            with suppress(sqlite3.Error), closing(self._sql):
                self._sql = None
        self._version = -1


def monitor(where: Places, caller: Caller) -> int:
    """Write a line whenever the session is to be woken, as long as its client lives."""
    place = _take(where, caller, bells.MONITOR)
    if place is not None:
        with closing(_lines(place)) as lines:
            for line in lines:
                os.write(1, line)
    return 0


def rewake(where: Places, caller: Caller) -> int:
    """Wait until the session is to be woken; gives the exit code by which that is done.

    It waits beside a monitor too, until that one is known to reach the model: a monitor whose
    lines nobody hears would leave no other way.
    """
    place = _take(where, caller, bells.REWAKE)
    if place is not None:
        with closing(_lines(place, until=place.is_spared)) as lines:
            for line in lines:
                os.write(2, line)
                return _RUNG
    return 0


def _lines(place: Place, until: Callable[[], bool] = lambda: False) -> Generator[bytes, None, None]:
    """Give a line for each wake, while the place is its own and somebody hears; then leave it."""
    reader = _Reader()
    try:
        while place.is_mine and reader.is_there():
            rung = place.look()
            if rung is not None:
                yield f"{rung.line}\n".encode()
            elif until():
                return
    finally:
        place.leave()


def _take(where: Places, caller: Caller, kind: str) -> Place | None:
    """Take the place beside a client; none where nobody attends: such a run waits for its hooks."""
    pid = caller.pid
    if not pid:
        record = records.find_by_session(where.data, caller.session)
        pid = record.pid if record else 0
    client = Living.now(pid)
    if not (caller.is_attended and client.is_alive):
        return None
    return Place(where, client, kind)


class _Reader:
    """Who reads what is written: waits a tick, and tells whether somebody still does."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._poll.register(1, 0)

    def is_there(self) -> bool:
        """Wait; gives whether anybody still reads."""
        # With nothing asked for, it ends early only when the reader is gone: of a pipe by ERR, of a
        # socket or a terminal by HUP. To go on would be to wait no more.
        return not self._poll.poll(TICK_MS)
