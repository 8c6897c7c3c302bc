"""Ends waits that last too long, all those of one length by one timer.

``client.py`` and ``sending.py`` give it the futures they wait for. The loop's own timers are a heap
that is sorted anew for each wait and each end of one; waits of one length end in the order in which
they began.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Deadlines:
    """The waits of one length.

    Args:
        timeout_s: How long each may last.
        late: Is given a future that was not done in time, to settle it.
    """

    def __init__(self, timeout_s: float, late: Callable[[asyncio.Future[Any]], None]) -> None:
        self._timeout_s = timeout_s
        self._late = late
        self._waits: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: asyncio.Future[Any]) -> None:
        """See to it that this wait, which begins now, ends in time."""
        waits, loop = self._waits, future.get_loop()
        # What is over is let go of from the front: behind one that lasts, until that is over too.
        while waits and waits[0][1].done():
            waits.popleft()
        waits.append((loop.time() + self._timeout_s, future))
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._look, loop)

    def stop(self) -> None:
        """Watch no more; who still waits is told by somebody else."""
        self._waits.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        waits = self._waits
        while waits and (waits[0][1].done() or waits[0][0] <= loop.time()):
            future = waits.popleft()[1]
            if not future.done():
                self._late(future)
        self._timer = loop.call_at(waits[0][0], self._look, loop) if waits else None
