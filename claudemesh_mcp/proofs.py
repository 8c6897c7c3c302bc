"""Keep which printed results the client has proved to have, by asking something later.

``opencalls.py`` adds every result that shows rows, says when it was written out and when a request
begins, and hands on what that proves. Positions are counts of bytes in the client's stream, so
that a request sent before a result was written proves nothing, however late it is read.
"""

from dataclasses import dataclass, field

from claudemesh_mcp.jsonrpc import Id


@dataclass(slots=True, eq=False)
class Printed:
    """A result that shows rows.

    Args:
        request_id: The request it answers.
        tokens: The rows.
        mark: How many bytes had come from the client when it was written out; None before.
    """

    request_id: Id
    tokens: tuple[str, ...]
    mark: int | None = None


@dataclass(slots=True)
class Proofs:
    """The printed results that nothing has proved yet."""

    _open: list[Printed] = field(default_factory=list[Printed])
    _latest: int = -1

    def add(self, request_id: Id, tokens: tuple[str, ...]) -> Printed:
        """Take a result that is about to be written."""
        printed = Printed(request_id, tokens)
        self._open.append(printed)
        return printed

    def written(self, printed: Printed, mark: int) -> tuple[str, ...]:
        """Learn that a result was written; give its rows if a request has come since."""
        printed.mark = mark
        # A fast client's next request may be read before the news of the write gets here.
        is_proved = printed in self._open and mark <= self._latest
        return self._close([printed]) if is_proved else ()

    def request_began(self, start: int) -> tuple[str, ...]:
        """Give the rows that a request proves whose first byte came at this position."""
        self._latest = max(self._latest, start)
        proved = [one for one in self._open if one.mark is not None and one.mark <= start]
        return self._close(proved)

    def request_cancelled(self, request_id: Id) -> tuple[str, ...]:
        """Give the rows of an answer that its asker may have thrown away."""
        return self._close([one for one in self._open if one.request_id == request_id])

    def _close(self, closed: list[Printed]) -> tuple[str, ...]:
        self._open = [one for one in self._open if one not in closed]
        return tuple(token for one in closed for token in one.tokens)
