"""A tunnel made by the Python, for the other implementation to read."""

from typing import Any

from claudemesh_wire.keys import b64
from claudemesh_wire.tunnel_keys import (
    Answer,
    AnswerFields,
    EphemeralKey,
    Offer,
    OfferFields,
    directions,
)
from tests.wire.world import ADAS, BOBS, MESH, NOW, seed


def tunnel_here() -> dict[str, Any]:
    """Ada's offer, bob's answer, and what they say."""
    mine, theirs = EphemeralKey(seed("ada's eph")), EphemeralKey(seed("bob's eph"))
    caller, callee = ADAS.certificate(), BOBS.certificate()
    asked = OfferFields(
        mesh=MESH,
        caller=ADAS.peer,
        callee=BOBS.peer,
        cert=b64(caller.hash),
        eph=mine.public,
        at=NOW,
    )
    offer = Offer.make(asked, ADAS.sign.sign)
    answered = AnswerFields(
        offer=b64(offer.hash), callee=BOBS.peer, cert=b64(callee.hash), eph=theirs.public
    )
    answer = Answer.make(answered, BOBS.sign.sign)
    secret = mine.agree(theirs.public)
    ends = [directions(secret, offer, answer, is_caller=is_caller) for is_caller in (True, False)]
    words = [("callee", "one"), ("caller", "two"), ("callee", "Grüße")]
    said = [
        {"to": to, "sealed": b64(ends[to == "caller"].out.seal(word.encode()))}
        for to, word in words
    ]
    return {
        "caller": b64(caller.blob),
        "callee": b64(callee.blob),
        "seed": b64(seed("bob's eph")),
        "offer": b64(offer.blob),
        "answer": b64(answer.blob),
        "said": said,
    }
