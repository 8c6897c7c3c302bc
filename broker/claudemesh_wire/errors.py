"""The eight ways a request can fail, each one sentence that a user can act on.

Whoever makes one says what can be done about it, or leaves that to ``remedies.py``.

Everything that refuses raises one of these; only ``service.py``, ``rest.py``, ``client.py``,
``server.py`` and ``opencalls.py`` translate them::

    MeshError
    ├── Invalid          400  what was asked makes no sense
    ├── Unauthenticated  401  the caller has not proved who it is
    ├── Forbidden        403  proved, but not allowed; the hint names what is missing
    ├── NotFound         404  no such peer, group, message
    ├── Conflict         409  it clashes with what is there (a used id, an ambiguous name)
    ├── TooMuch          413 / 429  a size, a quota or a rate; carries ``retry_after_s``
    ├── Unavailable      503  nobody is to blame and a repeat is safe
    └── ProtocolError    500  one side broke the protocol; ``remote`` says which
"""

from typing import Any, ClassVar, Final

from claudemesh_wire.remedies import remedy


class MeshError(Exception):
    """A refusal with a stable code, one sentence of fact, and one of remedy.

    Args:
        reason: What is the case, as one sentence.
        hint: What the reader can do about it; without one, what is known of the code.
        code: A stable snake_case name, when the class's own says too little.
        retry_after_s: Seconds after which a repeat may work.
        details: Data that goes with the refusal (candidates, a new list); JSON values only.
    """

    category: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(
        self,
        reason: str,
        hint: str = "",
        *,
        code: str | None = None,
        retry_after_s: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        """Keep the parts apart, so that each surface can show them in its own way."""
        super().__init__(reason)
        self.reason = reason
        self.code = code or self.category
        self.hint = hint or remedy(self.code, self.category)
        self.retry_after_s = retry_after_s
        self.details: dict[str, Any] = details or {}

    def __str__(self) -> str:
        """Give the fact and, where there is one, the remedy."""
        return f"{self.reason} {self.hint}" if self.hint else self.reason

    def as_dict(self) -> dict[str, Any]:
        """Give the shape that tools, CLI and REST show: {code, message, hint, retry_after_s?}."""
        shown: dict[str, Any] = {"code": self.code, "message": self.reason, "hint": self.hint}
        if self.retry_after_s is not None:
            shown["retry_after_s"] = self.retry_after_s
        if self.details:
            shown["details"] = self.details
        return shown


class Invalid(MeshError):
    """What was asked makes no sense; repeating it will not help."""

    category = "invalid"
    status = 400


class Unauthenticated(MeshError):
    """The caller has not proved who it is."""

    category = "unauthenticated"
    status = 401


class Forbidden(MeshError):
    """The caller is known and may not do this; the hint names the missing grant."""

    category = "forbidden"
    status = 403


class NotFound(MeshError):
    """There is no such thing in this mesh."""

    category = "not_found"
    status = 404


class Conflict(MeshError):
    """The request clashes with what is already there."""

    category = "conflict"
    status = 409


class TooMuch(MeshError):
    """A size, a quota or a rate is exceeded."""

    category = "too_much"
    status = 429


class Unavailable(MeshError):
    """Something is away at the moment; a repeat is safe."""

    category = "unavailable"
    status = 503


class ProtocolError(MeshError):
    """One side broke the protocol: ``remote`` is true when it was the other one."""

    category = "protocol_error"
    status = 500

    def __init__(self, reason: str, hint: str = "", *, remote: bool = True, **rest: Any) -> None:
        """Remember whose fault it was; a local one is a bug of ours."""
        super().__init__(reason, hint, **rest)
        self.remote = remote


CLASSES: Final[dict[str, type[MeshError]]] = {
    kind.category: kind
    for kind in (
        Invalid,
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        TooMuch,
        Unavailable,
        ProtocolError,
    )
}
