"""What can be said: requests that know their reply, notices, refusals, and the catalogue of kinds.

Every feature file declares its messages with these classes; ``frame.py`` writes them as text,
``exchange.py`` pairs them, ``claudemesh_broker.service`` serves them. A mistake of declaration
(no kind, a kind used twice, a request without rule, rate class or reply) fails at import.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from claudemesh_wire.errors import CLASSES, Invalid, MeshError, ProtocolError

KIND_GRAMMAR: Final = re.compile(r"[a-z][a-z_]{0,30}(\.[a-z][a-z_]{0,30})?")
CATALOGUE: Final[dict[str, "type[Message]"]] = {}

_ID = "[a-z2-7]{26}"
PeerId = Annotated[str, StringConstraints(pattern=f"^p_{_ID}$")]
MemberId = Annotated[str, StringConstraints(pattern=f"^mem_{_ID}$")]
MeshId = Annotated[str, StringConstraints(pattern=f"^mesh_{_ID}$")]
MessageId = Annotated[str, StringConstraints(pattern=f"^msg_{_ID}$")]
Digest = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]
"""32 bytes, a hash or a nonce, as base64url in its one canonical spelling."""
SERVER_NAME: Final = "[a-z0-9][a-z0-9_-]{0,39}"
ServerName = Annotated[str, StringConstraints(pattern=f"^{SERVER_NAME}$")]
"""The short name of an MCP server, and of the service that several of one name are."""
Whole = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""A count or a time in milliseconds: no larger than JSON readers and SQLite hold exactly."""


class Rule(StrEnum):
    """Who may ask; the roles that pass each rule are one table in ``ALLOWED``."""

    OPEN = "open"
    """Anybody who reached the port: the handshake itself."""
    READ = "read"
    """Every member of the mesh, observers too; also whatever concerns only oneself."""
    WRITE = "write"
    """Whoever may say something to others."""
    ADMIN = "admin"
    """Who may change the mesh."""
    OWNER = "owner"
    """Who may end it."""


class Role(StrEnum):
    """What a member is in its mesh."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    OBSERVER = "observer"


ALLOWED: Final[dict[Role, frozenset[Rule]]] = {
    Role.OBSERVER: frozenset({Rule.OPEN, Rule.READ}),
    Role.MEMBER: frozenset({Rule.OPEN, Rule.READ, Rule.WRITE}),
    Role.ADMIN: frozenset({Rule.OPEN, Rule.READ, Rule.WRITE, Rule.ADMIN}),
    Role.OWNER: frozenset(Rule),
}


class Rate(StrEnum):
    """Which token bucket a request draws from."""

    AUTH = "auth"
    CHAT = "chat"
    RPC = "rpc"
    SIM = "sim"
    TUNNEL = "tunnel"


class Part(BaseModel):
    """A value inside messages: frozen, unknown fields ignored, bytes as base64url."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        defer_build=True,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


class Message(Part):
    """One unit of meaning on the wire; a subclass is declared with its ``kind``."""

    kind: ClassVar[str] = ""

    def __init_subclass__(cls, **declared: Any) -> None:
        """Let the declaration through to ``__pydantic_init_subclass__``."""
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, *, kind: str = "", **rest: Any) -> None:
        """Enter the class in the catalogue, or refuse its declaration."""
        super().__pydantic_init_subclass__(**rest)
        if cls.__module__ == __name__ and not kind:
            return
        if not kind:
            raise TypeError(f"{cls.__qualname__} declares no kind")
        if not KIND_GRAMMAR.fullmatch(kind):
            raise TypeError(f"{cls.__qualname__}: {kind!r} is not a kind (feature.verb)")
        package, _, module = cls.__module__.rpartition(".")
        feature, dot, _ = kind.partition(".")
        if package == "claudemesh_wire" and dot and feature != module:
            raise TypeError(f"{cls.__qualname__}: kind {kind!r} belongs in {feature}.py")
        if kind in CATALOGUE:
            raise TypeError(f"{kind!r} is declared twice: {CATALOGUE[kind]} and {cls}")
        cls.kind = kind
        CATALOGUE[kind] = cls

    @classmethod
    def from_json(cls, body: str | bytes) -> Self:
        """Read a body of this kind.

        Raises:
            Invalid: the body is not JSON or not of this shape; the reason names the first field.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(step) for step in first["loc"])[:80] or "body"
            raise Invalid(
                f"{cls.kind}: {where}: {first['msg']}.", "Send the fields the kind declares."
            ) from error


ReplyT = TypeVar("ReplyT", bound=Message)


class Request(Message, Generic[ReplyT]):
    """A message that is answered by one reply, or refused.

    Declared as ``class Ask(Request[Answer], kind="feature.ask", rule=Rule.READ, rate=Rate.RPC)``;
    ``audited=True`` marks what the audit log must hold.
    """

    reply: ClassVar[type[Message]]
    rule: ClassVar[Rule]
    rate: ClassVar[Rate]
    audited: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        kind: str = "",
        rule: Rule | None = None,
        rate: Rate | None = None,
        audited: bool = False,
        **rest: Any,
    ) -> None:
        """Keep what stands around every call; refuse a request that leaves it open."""
        if cls.__pydantic_generic_metadata__["origin"] is Request:
            return
        if rule is None or rate is None:
            missing = "rule" if rule is None else "rate class"
            raise TypeError(f"{cls.__qualname__} declares no {missing}")
        cls.reply = _reply_of(cls)
        cls.rule, cls.rate, cls.audited = rule, rate, audited
        super().__pydantic_init_subclass__(kind=kind, **rest)


def _reply_of(request: type[Request[Any]]) -> type[Message]:
    """Give the reply class that stands in the brackets of ``Request[…]``."""
    for parent in request.__bases__:
        metadata = getattr(parent, "__pydantic_generic_metadata__", None)
        if metadata and metadata["origin"] is Request:
            reply = metadata["args"][0]
            if isinstance(reply, type) and issubclass(reply, Message) and reply.kind:
                return reply
    raise TypeError(f"{request.__qualname__} names no reply: write Request[Reply]")


class Notice(Message):
    """A message pushed unasked; nothing answers it."""


class Refused(Message, kind="refused"):
    """The answer to a request that was not done, as an error in text form."""

    category: str
    code: str
    reason: str
    hint: str = ""
    retry_after_s: Annotated[float, Field(ge=0)] | None = None
    details: dict[str, Any] = Field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, error: MeshError) -> "Refused":
        """Put an error into words for the other side."""
        return cls(
            category=error.category,
            code=error.code,
            reason=error.reason,
            hint=error.hint,
            retry_after_s=error.retry_after_s,
            details=error.details,
        )

    def error(self) -> MeshError:
        """Give back the error the other side raised."""
        kind = CLASSES.get(self.category, ProtocolError)
        return kind(
            self.reason,
            self.hint,
            code=self.code,
            retry_after_s=self.retry_after_s,
            details=self.details,
        )
