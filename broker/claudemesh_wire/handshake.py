"""How a connection begins: challenge, hello, welcome, the bytes that get signed, the state table.

The broker sends ``Challenge``; the client answers with the request ``Hello``, whose claims are
signed by the device key; the reply ``Welcome`` carries facts signed by the broker's key, and the
client sends nothing else before it has checked them. Claims and facts are exact JSON bytes.
"""

import hashlib
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from claudemesh_wire import canonical
from claudemesh_wire.address import Handle
from claudemesh_wire.errors import Invalid, ProtocolError, Unauthenticated
from claudemesh_wire.keys import SigningKey, VerifyKey, b64, broker_id, mac, same
from claudemesh_wire.message import (
    Digest,
    MeshId,
    Message,
    Notice,
    PeerId,
    Rate,
    Request,
    Rule,
    Whole,
)

HELLO_DOMAIN: Final = "claudemesh/hello/v1"
WELCOME_DOMAIN: Final = "claudemesh/welcome/v1"
ADMIN_DOMAIN: Final = "claudemesh/hello/v1/admin"
CHARTER_DOMAIN: Final = "claudemesh/charter/v1"
NONCE_BYTES: Final = 32
PROTOCOL: Final = 1
MAX_CLOCK_ERROR_MS: Final = 2 * 60 * 1000


class Mode(StrEnum):
    """What a connection is for."""

    ATTACH = "attach"
    """The peer itself: presence, pushes, acks; one per peer, the newest wins."""
    CALL = "call"
    """Requests only; any number, no presence, no notices."""


class Challenge(Notice, kind="handshake.challenge"):
    """The broker's first words."""

    broker: str
    key: bytes
    nonce: bytes
    now_ms: Whole
    version: str
    protocol: int = PROTOCOL


class Session(canonical.Signed):
    """What a session says of itself in its hello; all of it is shown to other peers.

    Without ``multicast`` what goes to a group or to all does not go to it.
    """

    type: Annotated[str, Field(max_length=40)] = "claude"
    channel: Annotated[str, Field(max_length=40)] = ""
    model: Annotated[str, Field(max_length=80)] = ""
    host: Annotated[str, Field(max_length=80)] = ""
    project: Annotated[str, Field(max_length=200)] = ""
    cwd: Annotated[str, Field(max_length=1000)] = ""
    multicast: bool = True


class Claims(canonical.Signed):
    """What a client claims; ``bn`` and ``cn`` are the two nonces, hashes are base64url."""

    v: int = PROTOCOL
    broker: str
    bn: Digest
    cn: Digest
    mode: Annotated[Mode, Field(strict=False)]
    mesh: MeshId
    peer: PeerId
    cert: Digest
    head_seq: Annotated[int, Field(ge=1)]
    head: Digest
    version: Annotated[str, Field(max_length=40)]
    handles: list[Handle] = Field(max_length=8, default_factory=list[Handle])
    session: Session = Session()


class Welcome(Message, kind="handshake.welcome"):
    """The broker's signed answer; ``entries`` are the membership entries the client lacks.

    ``charter`` is the broker's word that it serves this mesh: whoever shows it again may offer the
    log to this broker when it has lost it.
    """

    facts: bytes
    signature: bytes
    token_mac: bytes = b""
    entries: list[bytes] = Field(default_factory=list[bytes])
    charter: bytes = b""


class Hello(Request[Welcome], kind="handshake.hello", rule=Rule.OPEN, rate=Rate.AUTH, audited=True):
    """The client's signed claims, its certificate, and what a broker may be lacking.

    ``token_mac`` proves the local token without sending it, ``admin_mac`` the admin's secret;
    ``log`` offers the membership log to a broker that does not know the mesh, ``charter`` shows
    that it knew it before.
    """

    claims: bytes
    certificate: bytes
    signature: bytes
    token_mac: bytes = b""
    admin_mac: bytes = b""
    charter: bytes = b""
    log: list[bytes] = Field(default_factory=list[bytes])


class Facts(canonical.Signed):
    """What the broker says in its welcome; times in milliseconds.

    ``succeeds`` are the ended peers of the same member whose place this one has taken.
    """

    v: int = PROTOCOL
    broker: str
    bn: str
    cn: str
    peer: PeerId
    handle: Handle
    fence: int
    head_seq: int
    head: str
    now: int
    version: str
    data_version: int
    last_seen: int | None = None
    lease: int
    credit: int
    queued: int = 0
    succeeds: list[PeerId] = Field(default_factory=list[PeerId])


class Closing(Notice, kind="handshake.closing"):
    """Why the broker is about to close: ``replaced``, ``draining``, ``protocol``, ``removed``."""

    code: str
    reason: str


def sign_hello(claims: bytes, certificate: bytes, device: SigningKey) -> bytes:
    """Sign claims together with the certificate they are made under."""
    return device.sign(HELLO_DOMAIN, claims, hashlib.sha256(certificate).digest())


def is_hello_signed(hello: Hello, device: VerifyKey) -> bool:
    """Tell whether the hello's signature is this device's."""
    digest = hashlib.sha256(hello.certificate).digest()
    return device.accepts(hello.signature, HELLO_DOMAIN, hello.claims, digest)


def hello_mac(token: bytes, claims: bytes, certificate: bytes) -> bytes:
    """Prove knowledge of the local token in a hello."""
    return mac(token, HELLO_DOMAIN, claims, hashlib.sha256(certificate).digest())


def admin_mac(secret: bytes, claims: bytes, certificate: bytes) -> bytes:
    """Prove knowledge of the broker's admin secret in a hello."""
    return mac(secret, ADMIN_DOMAIN, claims, hashlib.sha256(certificate).digest())


def write_charter(broker: SigningKey, mesh: str) -> bytes:
    """Sign that this broker serves a mesh."""
    return broker.sign(CHARTER_DOMAIN, mesh)


def is_charter(charter: bytes, broker: VerifyKey, mesh: str) -> bool:
    """Tell whether this broker said that it serves a mesh."""
    return broker.accepts(charter, CHARTER_DOMAIN, mesh)


def welcome_mac(token: bytes, facts: bytes, claims: bytes) -> bytes:
    """Prove knowledge of the local token in a welcome."""
    return mac(token, WELCOME_DOMAIN, facts, hashlib.sha256(claims).digest())


def write_welcome(
    facts: Facts, claims: bytes, broker: SigningKey, token: bytes | None, entries: list[bytes]
) -> Welcome:
    """Sign the facts for the client that made these claims."""
    raw = canonical.encode(facts)
    return Welcome(
        facts=raw,
        signature=broker.sign(WELCOME_DOMAIN, raw, hashlib.sha256(claims).digest()),
        token_mac=welcome_mac(token, raw, claims) if token else b"",
        entries=entries,
    )


def check_welcome(
    welcome: Welcome, claims: bytes, key: VerifyKey, token: bytes | None = None
) -> Facts:
    """Believe a welcome, or say why not.

    Args:
        welcome: What the broker answered.
        claims: The exact claims it answers.
        key: The broker's key; its hash must be the id that the claims name.
        token: The local token; its proof is demanded when there is one.

    Raises:
        Unauthenticated: ``wrong_broker``: signature, token proof, id or nonces do not fit.
    """
    said = canonical.decode(claims, Claims, "claims")
    digest = hashlib.sha256(claims).digest()
    signed = key.accepts(welcome.signature, WELCOME_DOMAIN, welcome.facts, digest)
    proved = token is None or same(welcome.token_mac, welcome_mac(token, welcome.facts, claims))
    if not (signed and proved and broker_id(key) == said.broker):
        raise _wrong_broker()
    facts = canonical.decode(welcome.facts, Facts, "welcome")
    if (facts.broker, facts.bn, facts.cn, facts.peer) != (
        said.broker,
        said.bn,
        said.cn,
        said.peer,
    ):
        raise _wrong_broker()
    return facts


def check_challenge(challenge: Challenge, expected_broker: str) -> VerifyKey:
    """Give the broker's key if it is the broker that was expected.

    Raises:
        Unauthenticated: ``wrong_broker``: another broker, no key, or a nonce of the wrong size.
        ProtocolError: ``unsupported_version``: a broker of another protocol.
    """
    if challenge.protocol != PROTOCOL:
        raise ProtocolError(
            f"The broker speaks protocol {challenge.protocol}, this side {PROTOCOL}.",
            "Update the older side.",
            code="unsupported_version",
        )
    try:
        key = VerifyKey(challenge.key)
    except Invalid as error:
        raise _wrong_broker() from error
    fits = challenge.broker == broker_id(key) == expected_broker
    if not fits or len(challenge.nonce) != NONCE_BYTES:
        raise _wrong_broker()
    return key


def nonce_text(nonce: bytes) -> str:
    """Write a nonce as claims and facts hold it."""
    return b64(nonce)


def _wrong_broker() -> Unauthenticated:
    return Unauthenticated(
        "The broker is not the one this session expects.",
        "Ask whoever runs it; if it was replaced on purpose: claudemesh mesh trust NAME.",
        code="wrong_broker",
    )


class State(StrEnum):
    """Where a connection is, as the broker sees it."""

    CHALLENGED = "challenged"
    ATTACHED = "attached"
    CALLING = "calling"
    CLOSED = "closed"


class Step(StrEnum):
    """What moves a connection on."""

    HELLO_ATTACH = "hello_attach"
    HELLO_CALL = "hello_call"
    REQUEST = "request"
    CLOSE = "close"


TRANSITIONS: Final[dict[tuple[State, Step], State]] = {
    (State.CHALLENGED, Step.HELLO_ATTACH): State.ATTACHED,
    (State.CHALLENGED, Step.HELLO_CALL): State.CALLING,
    (State.CHALLENGED, Step.CLOSE): State.CLOSED,
    (State.ATTACHED, Step.REQUEST): State.ATTACHED,
    (State.ATTACHED, Step.CLOSE): State.CLOSED,
    (State.CALLING, Step.REQUEST): State.CALLING,
    (State.CALLING, Step.CLOSE): State.CLOSED,
}


def after(state: State, step: Step) -> State:
    """Give the next state.

    Raises:
        Unauthenticated: a request came before the hello.
        ProtocolError: the step does not exist in this state, as a second hello.
    """
    following = TRANSITIONS.get((state, step))
    if following is not None:
        return following
    if state is State.CHALLENGED:
        raise Unauthenticated("The first request is the hello.", "Say hello first.")
    raise ProtocolError(f"A {step} has no place in a connection that is {state}.")


def as_claims(fields: dict[str, Any]) -> Claims:
    """Make claims from plain values, validated as the broker will."""
    return canonical.decode(canonical.encode(fields), Claims, "claims")
