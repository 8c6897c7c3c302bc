"""Waits beside an idle session for something to wake it for, and rings.

``monitor.py`` and the rewake hook run it, one of each for a client: the newest takes the place of
an older one, and both leave when the client is gone, which may be without a word.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Generator
from contextlib import closing

from claudemesh_mcp.plain import TYPE_CHECKING
from claudemesh_mcp.routes import bells, records
from claudemesh_mcp.routes.bells import Bell
from claudemesh_mcp.routes.ears import Ear
from claudemesh_mcp.routes.facts import Health
from claudemesh_mcp.routes.places import Caller, Places
from claudemesh_mcp.routes.processes import Claim, Living, claim, holder

if TYPE_CHECKING:
    from typing import Final

TICK_MS: Final = 250
_FOLLOW_S: Final = 5.0
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
        self._ears: dict[str, Ear] = {}
        self._stamp = 0
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
        for ear in self._ears.values():
            ear.close()

    def look(self) -> list[Bell]:
        """Look whether there is something to wake for, for any peer of the client, and ring."""
        self._follow_records()
        return [rung for ear in self._ears.values() if (rung := ear.look()) is not None]

    def is_spared(self) -> bool:
        """Tell whether a monitor lives whose bells are known to reach the model."""
        if holder(records.place(self.where.data, self.client.pid, bells.MONITOR)) is None:
            return False
        known = {ear.health(bells.MONITOR) for ear in self._ears.values()}
        return Health.REACHES in known and Health.SILENT not in known

    def _follow_records(self) -> None:
        """Hear at the files of the peers that the client's servers name now."""
        try:
            stamp = os.stat(records.clients(self.where.data)).st_mtime_ns
        except OSError:
            stamp = 0
        # Two changes of a folder within one tick of the system's clock have one stamp.
        if stamp == self._stamp and time.monotonic() < self._next_s:
            return
        self._stamp, self._next_s = stamp, time.monotonic() + _FOLLOW_S
        there = {one.peer: one for one in records.of_client(self.where.data, self.client.pid)}
        for peer, ear in list(self._ears.items()):
            if there.get(peer) != ear.record:
                ear.close()
                del self._ears[peer]
        for peer, record in there.items():
            if peer not in self._ears:
                self._ears[peer] = Ear(self.where, self.kind, record)


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
            if rung:
                # Written together they are one event, and one turn.
                yield "".join(f"{bell.line}\n" for bell in rung).encode()
            elif until():
                return
    finally:
        place.leave()


def _take(where: Places, caller: Caller, kind: str) -> Place | None:
    """Take the place beside a client; none where nobody attends: such a run waits for its hooks."""
    pid = caller.pid
    if not pid:
        found = records.find_by_session(where.data, caller.session)
        pid = found[0].pid if found else 0
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
