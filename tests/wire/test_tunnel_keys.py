"""The beginning of a tunnel, and what is sealed in it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import MeshError
from claudemesh_wire.keys import b64, unb64
from claudemesh_wire.tunnel_keys import (
    Answer,
    AnswerFields,
    Directions,
    EphemeralKey,
    Offer,
    OfferFields,
    directions,
)
from tests.wire.world import ADAS, BOBS, CLEOS, MESH, NOW, OTHER_MESH, code_of, seed

ADAS_PAPER, BOBS_PAPER, CLEOS_PAPER = (one.certificate() for one in (ADAS, BOBS, CLEOS))

VECTOR = Path(__file__).parent / "vectors" / "tunnel.json"
ADAS_KEY, BOBS_KEY = EphemeralKey(seed("ada's ephemeral")), EphemeralKey(seed("bob's ephemeral"))


def an_offer(**changed: Any) -> Offer:
    said = {
        "mesh": MESH,
        "caller": ADAS.peer,
        "callee": BOBS.peer,
        "cert": b64(ADAS_PAPER.hash),
        "eph": ADAS_KEY.public,
        "at": NOW,
    }
    return Offer.make(OfferFields(**{**said, **changed}), ADAS.sign.sign)


def an_answer(to: Offer, **changed: Any) -> Answer:
    said = {
        "offer": b64(to.hash),
        "callee": BOBS.peer,
        "cert": b64(BOBS_PAPER.hash),
        "eph": BOBS_KEY.public,
    }
    return Answer.make(AnswerFields(**{**said, **changed}), BOBS.sign.sign)


def both_ends() -> tuple[Directions, Directions]:
    offer = an_offer()
    answer = an_answer(offer)
    secret = ADAS_KEY.agree(answer.fields.eph)
    assert secret == BOBS_KEY.agree(offer.fields.eph)
    return (
        directions(secret, offer, answer, is_caller=True),
        directions(secret, offer, answer, is_caller=False),
    )


def test_both_ends_read_what_the_other_sealed() -> None:
    ada, bob = both_ends()
    for word in (b"one", b"", b"three"):
        assert bob.back.open(ada.out.seal(word)) == word
        assert ada.back.open(bob.out.seal(word)) == word


def test_the_beginning_survives_the_wire() -> None:
    offer = an_offer()
    answer = an_answer(offer)
    read = Offer.parse(offer.blob)
    assert read.fields == offer.fields
    read.check(ADAS_PAPER)
    Answer.parse(answer.blob).check(read, BOBS_PAPER)


@pytest.mark.parametrize("bit", [0, 7, 8 * 15])
def test_an_altered_piece_is_not_opened(bit: int) -> None:
    ada, bob = both_ends()
    sealed = bytearray(ada.out.seal(b"pay ten"))
    sealed[bit // 8] ^= 1 << bit % 8
    assert code_of(lambda: bob.back.open(bytes(sealed))) == "tunnel_broken"


def test_pieces_are_not_opened_twice_or_out_of_their_order() -> None:
    ada, bob = both_ends()
    first, second = ada.out.seal(b"first"), ada.out.seal(b"second")
    assert code_of(lambda: both_ends()[1].back.open(second)) == "tunnel_broken"
    assert bob.back.open(first) == b"first"
    assert code_of(lambda: bob.back.open(first)) == "tunnel_broken"


def test_a_piece_is_not_opened_by_who_sealed_it() -> None:
    ada, _ = both_ends()
    assert code_of(lambda: ada.back.open(ada.out.seal(b"mirror"))) == "tunnel_broken"


def test_another_offer_leads_to_other_keys() -> None:
    offer = an_offer()
    answer = an_answer(offer)
    secret = ADAS_KEY.agree(answer.fields.eph)
    later = an_offer(at=NOW + 1)
    mine = directions(secret, offer, answer, is_caller=True)
    other = directions(secret, later, answer, is_caller=False)
    assert code_of(lambda: other.back.open(mine.out.seal(b"x"))) == "tunnel_broken"


@pytest.mark.parametrize(
    ("offer", "certificate"),
    [
        (an_offer(caller=CLEOS.peer), ADAS_PAPER),
        (an_offer(mesh=OTHER_MESH), ADAS_PAPER),
        (an_offer(cert=b64(CLEOS_PAPER.hash)), ADAS_PAPER),
        (an_offer(), CLEOS_PAPER),
        (replace(an_offer(), blob=an_offer().blob[:-1] + b"\x00"), ADAS_PAPER),
    ],
)
def test_an_offer_of_somebody_else_is_not_believed(offer: Offer, certificate: Certificate) -> None:
    assert code_of(lambda: offer.check(certificate)) == "forged_tunnel"


@pytest.mark.parametrize(
    "changed",
    [
        {"callee": CLEOS.peer},
        {"offer": b64(seed("another offer"))},
        {"cert": b64(CLEOS_PAPER.hash)},
    ],
)
def test_an_answer_to_something_else_is_not_believed(changed: dict[str, Any]) -> None:
    offer = an_offer()
    answer = an_answer(offer, **changed)
    assert code_of(lambda: answer.check(offer, BOBS_PAPER)) == "forged_tunnel"


def test_an_answer_that_another_signed_is_not_believed() -> None:
    offer = an_offer()
    forged = Answer.make(an_answer(offer).fields, CLEOS.sign.sign)
    assert code_of(lambda: forged.check(offer, BOBS_PAPER)) == "forged_tunnel"


def test_a_key_of_small_order_agrees_on_nothing() -> None:
    assert code_of(lambda: ADAS_KEY.agree(b64(bytes(32)))) == "bad_key"


@pytest.mark.parametrize(
    "blob", [b"", bytes(64), bytes(5000), b"{}" + bytes(64), b"[]" + bytes(64)]
)
def test_what_is_no_offer_or_answer_is_refused_with_a_code(blob: bytes) -> None:
    for read in (Offer.parse, Answer.parse):
        with pytest.raises(MeshError):
            read(blob)


def test_an_offer_of_another_version_says_so() -> None:
    blob = an_offer().blob.replace(b'"v":1', b'"v":2')
    assert code_of(lambda: Offer.parse(blob)) == "unsupported_version"


def test_a_tunnel_made_elsewhere_has_the_same_keys_here() -> None:
    given = json.loads(VECTOR.read_bytes())
    caller, callee = (
        Certificate.parse(unb64(given[f"{end}_certificate"])) for end in ("caller", "callee")
    )
    offer, answer = Offer.parse(unb64(given["offer"])), Answer.parse(unb64(given["answer"]))
    offer.check(caller)
    answer.check(offer, callee)
    secret = EphemeralKey(unb64(given["callee_seed"])).agree(offer.fields.eph)
    assert secret == EphemeralKey(unb64(given["caller_seed"])).agree(answer.fields.eph)
    ends = {
        "callee": directions(secret, offer, answer, is_caller=False),
        "caller": directions(secret, offer, answer, is_caller=True),
    }
    for said in given["said"]:
        other = ends["caller" if said["to"] == "callee" else "callee"]
        assert ends[said["to"]].back.open(unb64(said["sealed"])).decode() == said["word"]
        assert other.out.seal(said["word"].encode()) == unb64(said["sealed"])
