"""The handshake: what each side believes of the other, and the order of things."""

import hashlib
import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from claudemesh_wire import canonical
from claudemesh_wire.handshake import (
    TRANSITIONS,
    Challenge,
    Claims,
    Facts,
    Hello,
    Mode,
    Session,
    State,
    Step,
    Welcome,
    after,
    as_claims,
    check_challenge,
    check_welcome,
    hello_mac,
    is_hello_signed,
    nonce_text,
    sign_hello,
    welcome_mac,
    write_welcome,
)
from claudemesh_wire.keys import SigningKey, b64, broker_id
from tests.wire.world import ADAS, BOBS, MESH, NOW, OTHER_MESH, code_of, seed

BROKER = SigningKey(seed("broker"))
OTHER = SigningKey(seed("another broker"))
TOKEN = seed("token")
CERTIFICATE = ADAS.certificate().blob
SHARED: dict[str, Any] = {
    "broker": broker_id(BROKER.public),
    "bn": nonce_text(seed("broker nonce")),
    "cn": nonce_text(seed("client nonce")),
    "peer": ADAS.peer,
    "head_seq": 1,
    "head": b64(seed("head")),
    "version": "0.1.0",
}
CLAIMED: dict[str, Any] = {
    **SHARED,
    "v": 1,
    "mode": "attach",
    "mesh": MESH,
    "cert": b64(ADAS.certificate().hash),
}
TOLD: dict[str, Any] = {
    **SHARED,
    "v": 1,
    "handle": "ada",
    "fence": 1,
    "now": NOW,
    "data_version": 1,
    "lease": 90_000,
    "credit": 64,
}


def challenge(**changes: Any) -> Challenge:
    said: dict[str, Any] = {
        "broker": broker_id(BROKER.public),
        "key": BROKER.public.raw,
        "nonce": seed("broker nonce"),
        "now_ms": NOW,
        "version": "0.1.0",
    }
    return Challenge(**{**said, **changes})


def test_the_broker_that_is_expected_is_believed_to_be_it() -> None:
    assert check_challenge(challenge(), broker_id(BROKER.public)) == BROKER.public


@pytest.mark.parametrize(
    ("changes", "expected", "code"),
    [
        ({}, broker_id(OTHER.public), "wrong_broker"),
        ({"broker": broker_id(OTHER.public)}, broker_id(OTHER.public), "wrong_broker"),
        ({"broker": broker_id(OTHER.public)}, broker_id(BROKER.public), "wrong_broker"),
        ({"key": OTHER.public.raw}, broker_id(BROKER.public), "wrong_broker"),
        ({"key": b"short"}, broker_id(BROKER.public), "wrong_broker"),
        ({"key": bytes(32)}, broker_id(BROKER.public), "wrong_broker"),
        ({"nonce": b"short"}, broker_id(BROKER.public), "wrong_broker"),
        ({"nonce": bytes(33)}, broker_id(BROKER.public), "wrong_broker"),
        ({"protocol": 2}, broker_id(BROKER.public), "unsupported_version"),
    ],
)
def test_another_broker_is_not_believed(changes: dict[str, Any], expected: str, code: str) -> None:
    assert code_of(lambda: check_challenge(challenge(**changes), expected)) == code


def hello(claims: bytes | None = None) -> Hello:
    claims = claims or canonical.encode(CLAIMED)
    return Hello(
        claims=claims,
        certificate=CERTIFICATE,
        signature=sign_hello(claims, CERTIFICATE, ADAS.sign),
        token_mac=hello_mac(TOKEN, claims, CERTIFICATE),
    )


def test_a_hello_is_signed_by_its_device() -> None:
    assert is_hello_signed(hello(), ADAS.sign.public)
    assert not is_hello_signed(hello(), BOBS.sign.public)


CHANGES: dict[str, Any] = {
    "v": 2,
    "broker": broker_id(OTHER.public),
    "bn": nonce_text(seed("x")),
    "cn": nonce_text(seed("x")),
    "mode": "call",
    "mesh": OTHER_MESH,
    "peer": BOBS.peer,
    "cert": b64(seed("x")),
    "head_seq": 2,
    "head": b64(seed("x")),
    "version": "9",
    "handles": ["eve"],
    "session": {"type": "human"},
}


@pytest.mark.parametrize("name", [*Claims.model_fields])
def test_no_claim_can_be_changed_after_it_was_signed(name: str) -> None:
    altered = canonical.encode({**CLAIMED, name: CHANGES[name]})
    said = hello().model_copy(update={"claims": altered})
    assert not is_hello_signed(said, ADAS.sign.public)
    assert said.token_mac != hello_mac(TOKEN, said.claims, said.certificate)


def test_a_hello_holds_with_its_own_certificate_only() -> None:
    said = hello().model_copy(update={"certificate": BOBS.certificate().blob})
    assert not is_hello_signed(said, ADAS.sign.public)
    assert said.token_mac != hello_mac(TOKEN, said.claims, said.certificate)


def test_a_hello_for_one_broker_is_no_hello_for_another() -> None:
    theirs = canonical.encode({**CLAIMED, "broker": broker_id(OTHER.public)})
    assert not is_hello_signed(hello().model_copy(update={"claims": theirs}), ADAS.sign.public)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "listen"},
        {"mode": None},
        {"mesh": "home"},
        {"peer": "ada"},
        {"bn": b64(bytes(31))},
        {"cn": ""},
        {"cert": "!"},
        {"head": ""},
        {"head_seq": 0},
        {"handles": ["Ada"]},
        {"handles": ["p_abcdef"]},
        {"handles": ["a"] * 9},
        {"session": {"cwd": "x" * 1001}},
        {"session": {"host": 5}},
        {"version": "1" * 41},
    ],
    ids=lambda value: str(value)[:40],
)
def test_claims_have_their_shape(changes: dict[str, Any]) -> None:
    assert code_of(lambda: as_claims({**CLAIMED, **changes})) == "malformed"


def test_claims_of_another_protocol_are_named() -> None:
    assert code_of(lambda: as_claims({**CLAIMED, "v": 2})) == "unsupported_version"


def test_claims_are_read_as_they_were_made() -> None:
    claims = as_claims({**CLAIMED, "session": {"type": "human", "host": "büro"}})
    assert claims.mode is Mode.ATTACH
    assert claims.session == Session(type="human", host="büro")
    assert claims.handles == []
    assert as_claims(canonical_fields(claims)) == claims


def canonical_fields(claims: Claims) -> dict[str, Any]:
    return claims.model_dump(mode="json")


@dataclass(frozen=True)
class Greeting:
    """A welcome on its way, and what the client checks it against."""

    facts: dict[str, Any] = field(default_factory=lambda: TOLD)
    claims: bytes = field(default_factory=lambda: canonical.encode(CLAIMED))
    signer: SigningKey = BROKER
    token: bytes | None = TOKEN

    def welcome(self) -> Welcome:
        """The welcome as the broker writes it."""
        facts = Facts.model_construct(**self.facts)
        return write_welcome(facts, self.claims, self.signer, self.token, [b"entry"])


def believed(welcome: Welcome, token: bytes | None = TOKEN, **claims: Any) -> str:
    """The code with which a client refuses a welcome, or ``believed``."""
    said = canonical.encode({**CLAIMED, **claims})
    try:
        check_welcome(welcome, said, BROKER.public, token)
    except Exception as error:  # noqa: BLE001 - which one is what is asked
        return str(getattr(error, "code", error))
    return "believed"


def test_a_welcome_is_believed_with_and_without_a_token() -> None:
    welcome = Greeting().welcome()
    facts = check_welcome(welcome, canonical.encode(CLAIMED), BROKER.public, TOKEN)
    assert facts == Facts(**TOLD)
    assert welcome.entries == [b"entry"]
    assert believed(Greeting(token=None).welcome(), token=None) == "believed"
    assert believed(welcome, token=None) == "believed"


def test_a_welcome_without_the_proof_of_the_token_is_not_believed() -> None:
    assert believed(Greeting(token=None).welcome()) == "wrong_broker"
    assert believed(Greeting(token=seed("another token")).welcome()) == "wrong_broker"


def test_a_welcome_signed_by_another_broker_is_not_believed() -> None:
    assert believed(Greeting(signer=OTHER).welcome()) == "wrong_broker"
    unsigned = Greeting().welcome().model_copy(update={"signature": bytes(64)})
    assert believed(unsigned) == "wrong_broker"


def test_a_key_that_is_not_the_claimed_brokers_is_not_believed() -> None:
    claims = canonical.encode(CLAIMED)
    welcome = Greeting(signer=OTHER).welcome()
    checking = lambda: check_welcome(welcome, claims, OTHER.public, TOKEN)  # noqa: E731
    assert code_of(checking) == "wrong_broker"


@pytest.mark.parametrize("name", [*Facts.model_fields])
def test_no_fact_can_be_changed_after_it_was_signed(name: str) -> None:
    changes = {**CHANGES, "handle": "eve", "fence": 2, "now": 1, "data_version": 2}
    changes |= {"last_seen": 5, "lease": 1, "credit": 1, "queued": 7, "succeeds": ["p_" + "a" * 26]}
    altered = canonical.encode({**TOLD, name: changes[name]})
    welcome = Greeting().welcome().model_copy(update={"facts": altered})
    assert believed(welcome) == "wrong_broker"
    proved = welcome.model_copy(
        update={"token_mac": welcome_mac(TOKEN, altered, canonical.encode(CLAIMED))}
    )
    assert believed(proved) == "wrong_broker"


@pytest.mark.parametrize("name", ["cn", "bn", "broker", "peer", "mode", "cert", "head"])
def test_a_welcome_to_other_claims_is_not_believed(name: str) -> None:
    assert believed(Greeting().welcome(), **{name: CHANGES[name]}) == "wrong_broker"


@pytest.mark.parametrize("name", ["cn", "bn", "broker", "peer"])
def test_facts_answer_the_claims_they_are_signed_with(name: str) -> None:
    greeting = replace(Greeting(), facts={**TOLD, name: CHANGES[name]})
    assert believed(greeting.welcome()) == "wrong_broker"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"v": 2}, "unsupported_version"),
        ({"handle": "Ada"}, "malformed"),
        ({"now": "now"}, "malformed"),
        ({"fence": None}, "malformed"),
    ],
)
def test_facts_have_their_shape(changes: dict[str, Any], code: str) -> None:
    facts, claims = canonical.encode({**TOLD, **changes}), canonical.encode(CLAIMED)
    honest = Greeting().welcome()
    digest = honest.model_copy(
        update={
            "facts": facts,
            "signature": sign_facts(facts, claims),
            "token_mac": welcome_mac(TOKEN, facts, claims),
        }
    )
    assert believed(digest) == code


def sign_facts(facts: bytes, claims: bytes) -> bytes:
    return BROKER.sign("claudemesh/welcome/v1", facts, hashlib.sha256(claims).digest())


def test_a_hello_is_no_welcome_and_a_welcome_no_hello() -> None:
    claims = canonical.encode(CLAIMED)
    mirrored = Welcome(facts=claims, signature=sign_hello(claims, claims, BROKER))
    assert believed(mirrored, token=None) == "wrong_broker"
    assert hello_mac(TOKEN, claims, claims) != welcome_mac(TOKEN, claims, claims)


STATES = {
    (State.CHALLENGED, Step.HELLO_ATTACH): State.ATTACHED,
    (State.CHALLENGED, Step.HELLO_CALL): State.CALLING,
    (State.CHALLENGED, Step.REQUEST): "unauthenticated",
    (State.CHALLENGED, Step.CLOSE): State.CLOSED,
    (State.ATTACHED, Step.HELLO_ATTACH): "protocol_error",
    (State.ATTACHED, Step.HELLO_CALL): "protocol_error",
    (State.ATTACHED, Step.REQUEST): State.ATTACHED,
    (State.ATTACHED, Step.CLOSE): State.CLOSED,
    (State.CALLING, Step.HELLO_ATTACH): "protocol_error",
    (State.CALLING, Step.HELLO_CALL): "protocol_error",
    (State.CALLING, Step.REQUEST): State.CALLING,
    (State.CALLING, Step.CLOSE): State.CLOSED,
    (State.CLOSED, Step.HELLO_ATTACH): "protocol_error",
    (State.CLOSED, Step.HELLO_CALL): "protocol_error",
    (State.CLOSED, Step.REQUEST): "protocol_error",
    (State.CLOSED, Step.CLOSE): "protocol_error",
}


@pytest.mark.parametrize(("state", "step"), [*itertools.product(State, Step)])
def test_each_step_leads_where_it_should(state: State, step: Step) -> None:
    expected = STATES[state, step]
    if isinstance(expected, State):
        assert after(state, step) is expected
    else:
        assert code_of(lambda: after(state, step)) == expected


def test_nothing_is_asked_before_the_hello_and_nothing_follows_the_end() -> None:
    assert all(state is not State.CLOSED for state, _ in TRANSITIONS)
    assert (State.CHALLENGED, Step.REQUEST) not in TRANSITIONS
