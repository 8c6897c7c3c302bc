"""The open tunnels: which connection is at which end, in memory alone.

``features/tunnels.py`` opens them and passes data on; ``session.py`` drops those of a connection
that is gone, so that the other end hears of it at once.
"""

from dataclasses import dataclass
from itertools import count

from claudemesh_broker.delivery import Outlet
from claudemesh_wire import frame
from claudemesh_wire.errors import NotFound, TooMuch
from claudemesh_wire.tunnels import MAX_TUNNELS, TunnelEnded


@dataclass(frozen=True)
class Line:
    """One tunnel: the connections at its ends."""

    caller: Outlet
    callee: Outlet

    def other(self, outlet: Outlet) -> Outlet:
        """Give the end across from this one."""
        return self.callee if outlet is self.caller else self.caller


class Lines:
    """All tunnels of this broker."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._lines: dict[int, Line] = {}
        self._of: dict[Outlet, set[int]] = {}

    def open(self, caller: Outlet, callee: Outlet) -> int:
        """Connect two connections; gives the tunnel's number.

        Raises:
            TooMuch: ``too_many_tunnels``: one of them has as many as it may.
        """
        for outlet in (caller, callee):
            if len(self._of.get(outlet, ())) >= MAX_TUNNELS:
                raise TooMuch(
                    f"{MAX_TUNNELS} lines of this peer are open already.",
                    "Wait until some calls are done.",
                    code="too_many_tunnels",
                    retry_after_s=1.0,
                )
        number = next(self._numbers)
        self._lines[number] = Line(caller, callee)
        for outlet in (caller, callee):
            self._of.setdefault(outlet, set()).add(number)
        return number

    def other(self, number: int, outlet: Outlet) -> Outlet:
        """Give the other end of a tunnel.

        Raises:
            NotFound: ``no_tunnel``: it has ended, or this connection is at neither end.
        """
        line = self._lines.get(number)
        if line is None or outlet not in {line.caller, line.callee}:
            raise NotFound("This tunnel has ended.", "Open another.", code="no_tunnel")
        return line.other(outlet)

    def close(self, number: int, outlet: Outlet, code: str, reason: str) -> None:
        """End a tunnel of this connection, if it is open, and tell the other end."""
        line = self._lines.get(number)
        if line is None or outlet not in {line.caller, line.callee}:
            return
        del self._lines[number]
        for end in {line.caller, line.callee}:
            numbers = self._of[end]
            numbers.discard(number)
            if not numbers:
                del self._of[end]
        ended = TunnelEnded(tunnel=number, code=code, reason=reason)
        line.other(outlet).put(frame.encode(0, 0, ended))

    def drop(self, outlet: Outlet) -> None:
        """End all tunnels of a connection that is gone."""
        for number in list(self._of.get(outlet, ())):
            self.close(number, outlet, "gone", "The other end's connection is gone.")
