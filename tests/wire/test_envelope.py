"""Envelopes: what opens, what is refused, and by which name."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_wire.address import direct_conversation
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.envelope import (
    MAX_AHEAD_MS,
    MAX_BODY_BYTES,
    MAX_RECIPIENTS,
    MAX_TTL_MS,
    TRANSIENT,
    Copy,
    Reader,
    Refusal,
    Sealed,
    open_copy,
    parse_header,
    seal,
    verify_key_accepts,
)
from claudemesh_wire.keys import anchor_digest, b64, make_id, peer_id
from tests.wire.world import (
    ADA,
    ADAS,
    BOBS,
    CLEOS,
    DAN,
    DANS,
    DAY,
    MESH,
    NOW,
    OTHER_MESH,
    Forgery,
    as_json,
    code_of,
    commitment,
    forge,
    header,
    letter,
    reading,
    seed,
)


def opened(sealed: Sealed, position: int, reader: Reader) -> bytes:
    """What a reader gets out of its copy, taken apart from bytes as it arrives."""
    whole = Sealed.parse(sealed.to_bytes())
    return open_copy(Copy.parse(whole.copy_for(position).to_bytes()), reader).plaintext


def refused(copy: Copy, reader: Reader | None = None) -> str:
    return code_of(lambda: open_copy(copy, reader or reading(BOBS)))


def forged(**changes: Any) -> Copy:
    """Bob's copy of a message whose header says something else than a client would write."""
    honest = {"kc": commitment(seed("content"))}
    return forge(as_json(header(ADAS, [BOBS]), **honest | changes), ADAS, [BOBS]).copy_for(0)


def test_every_reader_opens_its_own_copy() -> None:
    sealed = letter(ADAS, [BOBS, CLEOS], "Grüße".encode())
    for position, device in enumerate([BOBS, CLEOS]):
        assert opened(sealed, position, reading(device)) == "Grüße".encode()


def test_what_is_opened_comes_with_its_proof() -> None:
    copy = letter(ADAS, [BOBS]).copy_for(0)
    result = open_copy(copy, reading(BOBS))
    assert result.certificate == ADAS.certificate()
    assert result.header_hash == hashlib.sha256(copy.header).digest()
    assert result.header.sender == ADAS.peer
    assert verify_key_accepts(copy, ADAS.sign.public)
    assert not verify_key_accepts(copy, BOBS.sign.public)


def test_256_readers_are_the_most() -> None:
    crowd = [
        peer_id(MESH, DAN.id, anchor_digest(f"crowd {at}")) for at in range(MAX_RECIPIENTS + 1)
    ]
    said = header(ADAS, [BOBS])
    key = BOBS.kem.public

    def sealed_to(count: int) -> Sealed:
        told = said.model_copy(update={"to": crowd[:count], "kgen": [1] * count, "conv": "*"})
        return seal(told, b"to all", [key] * count, ADAS.sign, seed("content"))

    last = reading(BOBS, peer=crowd[MAX_RECIPIENTS - 1])
    assert opened(sealed_to(MAX_RECIPIENTS), MAX_RECIPIENTS - 1, last) == b"to all"
    assert code_of(lambda: sealed_to(MAX_RECIPIENTS + 1)) == "too_many_recipients"


@pytest.mark.parametrize("changes", [{"to": []}, {"kgen": []}, {"kgen": [1, 1]}])
def test_every_reader_has_one_key_and_one_generation(changes: dict[str, Any]) -> None:
    said = header(ADAS, [BOBS]).model_copy(update=changes)
    key = BOBS.kem.public
    assert code_of(lambda: seal(said, b"", [key], ADAS.sign, seed("content"))) == "invalid"


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_a_content_key_has_32_bytes(size: int) -> None:
    said, key = header(ADAS, [BOBS]), BOBS.kem.public
    assert code_of(lambda: seal(said, b"", [key], ADAS.sign, bytes(size))) == "bad_key"


def test_a_body_is_at_most_320_kib_with_its_padding() -> None:
    most = MAX_BODY_BYTES - 4096 - 1
    assert len(letter(ADAS, [BOBS], bytes(most)).body) <= MAX_BODY_BYTES
    assert code_of(lambda: letter(ADAS, [BOBS], bytes(most + 1))) == "message_too_large"


def test_a_header_is_at_most_as_long_as_its_length_can_say() -> None:
    said = header(ADAS, [BOBS]).model_copy(update={"via": "x" * 65_536})
    keys = [BOBS.kem.public]
    sealing = lambda: seal(said, b"", keys, ADAS.sign, seed("content"))  # noqa: E731
    assert code_of(sealing) == "message_too_large"


@given(st.integers(0, 12_000))
def test_a_length_leaks_only_its_step(size: int) -> None:
    body = len(letter(ADAS, [BOBS], bytes(size)).body) - 16
    step = 256 if body <= 4096 else 4096
    assert body % step == 0
    assert size < body <= size + step


@given(st.binary(max_size=600))
def test_padding_is_taken_off_again(plaintext: bytes) -> None:
    sealed = letter(ADAS, [BOBS], plaintext + bytes(3))
    assert opened(sealed, 0, reading(BOBS)) == plaintext + bytes(3)


@pytest.mark.parametrize("padded", [b"", bytes(256), b"text without an end", b"x" + bytes(9)])
def test_broken_padding_is_refused(padded: bytes) -> None:
    raw = as_json(header(ADAS, [BOBS]), kc=commitment(seed("content")))
    sealed = forge(raw, ADAS, [BOBS], Forgery(padded=padded))
    assert refused(sealed.copy_for(0)) == "bad_body"


def test_the_wrong_certificate_is_refused() -> None:
    copy = letter(ADAS, [BOBS]).copy_for(0)
    renewed = ADAS.certificate(not_after=NOW + DAY)
    for wrong in (CLEOS.certificate(), renewed):
        reader = replace(reading(BOBS), certificate=lambda _header, wrong=wrong: wrong)
        assert refused(copy, reader) == "wrong_certificate"


def test_a_certificate_of_another_peer_does_not_make_a_sender() -> None:
    cleos = CLEOS.certificate()
    said = header(ADAS, [BOBS], cert=b64(cleos.hash))
    raw = as_json(said, kc=commitment(seed("content")))
    copy = forge(raw, CLEOS, [BOBS]).copy_for(0)
    assert refused(copy, reading(BOBS, cleos)) == "wrong_certificate"


def certified(certificate: Certificate, **changes: Any) -> str:
    """How an envelope under this certificate is refused."""
    said = header(ADAS, [BOBS], cert=b64(certificate.hash), **changes)
    raw = as_json(said, kc=commitment(seed("content")))
    return refused(forge(raw, ADAS, [BOBS]).copy_for(0), reading(BOBS, certificate))


def test_a_certificate_that_had_expired_when_it_was_written_is_refused() -> None:
    assert certified(ADAS.certificate(not_after=NOW - 1)) == "not_certified"
    assert certified(ADAS.certificate(not_before=NOW + 1)) == "not_certified"


def test_a_certificate_for_another_mesh_is_refused() -> None:
    assert certified(ADAS.certificate(mesh=OTHER_MESH)) == "not_certified"


def test_a_certificate_that_expired_since_still_opens() -> None:
    later = replace(reading(BOBS), now_ms=NOW + DAY)
    assert not ADAS.certificate().covers(NOW + DAY)
    assert opened(letter(ADAS, [BOBS]), 0, later) == b"hello"


def test_a_certificate_that_is_not_here_yet_may_come() -> None:
    reader = reading(BOBS, CLEOS.certificate())
    with pytest.raises(Refusal) as caught:
        open_copy(letter(ADAS, [BOBS]).copy_for(0), reader)
    assert (caught.value.code, caught.value.permanent) == ("unknown_certificate", False)


def test_only_what_later_knowledge_can_cure_is_not_for_good() -> None:
    assert {"unknown_certificate", "membership_behind", "future"} == TRANSIENT
    assert Refusal("x", code="bad_signature").permanent


def test_a_copy_that_is_handed_on_is_not_addressed_to_its_new_reader() -> None:
    copy = letter(ADAS, [BOBS]).copy_for(0)
    assert refused(copy, reading(DANS)) == "not_addressed"


def test_a_reader_cannot_add_another() -> None:
    copy = letter(ADAS, [BOBS]).copy_for(0)
    said = parse_header(copy.header).model_copy(update={"to": [DANS.peer]})
    assert refused(replace(copy, header=as_json(said)), reading(DANS)) == "bad_signature"


def test_a_message_seen_before_is_a_replay() -> None:
    copy = letter(ADAS, [BOBS]).copy_for(0)
    seen = {(ADAS.peer, make_id("msg_", seed("message")))}
    reader = replace(reading(BOBS), seen_before=lambda *key: key in seen)
    assert refused(copy, reader) == "replay"


def test_an_envelope_of_another_mesh_is_refused() -> None:
    reader = replace(reading(BOBS), mesh=OTHER_MESH)
    assert refused(letter(ADAS, [BOBS]).copy_for(0), reader) == "wrong_mesh"


def test_a_direct_conversation_is_that_of_its_participants() -> None:
    others = direct_conversation([ADAS.peer, CLEOS.peer])
    assert refused(letter(ADAS, [BOBS], conv=others).copy_for(0)) == "wrong_conversation"
    for shared in ("@backend", "#news", "*"):
        assert opened(letter(ADAS, [BOBS], conv=shared), 0, reading(BOBS)) == b"hello"


@pytest.mark.parametrize(
    ("times", "now_ms", "code"),
    [
        ({}, NOW - MAX_AHEAD_MS, None),
        ({}, NOW - MAX_AHEAD_MS - 1, "future"),
        ({"exp": NOW + 5}, NOW + 5, None),
        ({"exp": NOW + 5}, NOW + 6, "expired"),
        ({"exp": NOW - 1}, NOW, "malformed"),
        ({"exp": NOW + MAX_TTL_MS + MAX_AHEAD_MS}, NOW, None),
        ({"exp": NOW + MAX_TTL_MS + MAX_AHEAD_MS + 1}, NOW, "malformed"),
    ],
)
def test_an_envelope_has_its_time(times: dict[str, Any], now_ms: int, code: str | None) -> None:
    copy = letter(ADAS, [BOBS], **times).copy_for(0)
    reader = replace(reading(BOBS), now_ms=now_ms)
    if code is None:
        assert open_copy(copy, reader).plaintext == b"hello"
    else:
        assert refused(copy, reader) == code


def test_the_slot_of_another_reader_is_refused() -> None:
    sealed = letter(ADAS, [BOBS, CLEOS])
    swapped = replace(sealed.copy_for(0), slot=sealed.slots[1])
    assert refused(swapped) == "wrong_slot"
    assert refused(sealed.copy_for(1)) == "wrong_slot"


def test_a_slot_sealed_anew_by_somebody_else_is_refused() -> None:
    copy = letter(ADAS, [BOBS]).copy_for(0)
    slot = BOBS.kem.public.seal(seed("content"), b"claudemesh/env/v1/slot" + copy.header_hash)
    assert refused(replace(copy, slot=slot)) == "wrong_slot"


def test_the_body_of_another_envelope_is_refused() -> None:
    one, two = letter(ADAS, [BOBS], b"yes"), letter(ADAS, [BOBS], b"no", seq=2)
    assert refused(replace(one.copy_for(0), body=two.body)) == "bad_signature"
    both = replace(one.copy_for(0), body=two.body, signature=two.signature)
    assert refused(both) == "bad_signature"


def test_a_body_that_the_sender_did_not_seal_under_its_key_is_refused() -> None:
    raw = as_json(header(ADAS, [BOBS]), kc=commitment(seed("content")))
    sealed = forge(raw, ADAS, [BOBS], Forgery(body=bytes(300)))
    assert refused(sealed.copy_for(0)) == "bad_body"
    short = forge(raw, ADAS, [BOBS], Forgery(body=b"x"))
    assert refused(short.copy_for(0)) == "bad_body"


def test_a_message_to_a_key_that_is_gone_is_told_so() -> None:
    copy = letter(ADAS, [BOBS]).copy_for(0)
    assert refused(copy, replace(reading(BOBS), kem_key=lambda _generation: None)) == "no_key"
    assert refused(copy, replace(reading(BOBS), kem_key=lambda _generation: CLEOS.kem)) == "no_key"


def test_a_slot_that_holds_no_key_is_refused() -> None:
    raw = as_json(header(ADAS, [BOBS]), kc=commitment(seed("content")))
    sealed = forge(raw, ADAS, [BOBS], Forgery(slot_keys=(seed("content")[:16],)))
    (slot,) = sealed.slots
    assert len(slot) < 80
    whole = replace(sealed.copy_for(0), slot=slot)
    assert refused(whole) == "no_key"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"v": 2}, "unsupported_version"),
        ({"v": None}, "unsupported_version"),
        ({"v": "1"}, "unsupported_version"),
        ({"v": True}, "malformed"),
        ({"alg": "cm2"}, "unsupported_version"),
        ({"alg": None}, "malformed"),
        ({"kc": None}, "malformed"),
        ({"kc": ""}, "malformed"),
        ({"kc": "AAAA"}, "malformed"),
        ({"kc": "!" * 43}, "malformed"),
        ({"cert": ""}, "malformed"),
        ({"cert": "B" * 43}, "malformed"),
        ({"mh": {"seq": 0, "head": b64(seed("head"))}}, "malformed"),
        ({"mh": {"seq": 1, "head": ""}}, "malformed"),
        ({"mh": None}, "malformed"),
        ({"mesh": "home"}, "malformed"),
        ({"from": None, "sender": ADAS.peer}, "malformed"),
        ({"from": ADAS.peer + "\n"}, "malformed"),
        ({"id": "msg_1"}, "malformed"),
        ({"conv": "bob"}, "malformed"),
        ({"conv": "@"}, "malformed"),
        ({"conv": "@all"}, "malformed"),
        ({"conv": ""}, "malformed"),
        ({"seq": 0}, "malformed"),
        ({"seq": 2**63}, "malformed"),
        ({"ts": 1.5}, "malformed"),
        ({"ts": str(NOW)}, "malformed"),
        ({"to": []}, "malformed"),
        ({"to": [BOBS.peer, BOBS.peer], "kgen": [1, 1]}, "malformed"),
        ({"to": [BOBS.peer, CLEOS.peer]}, "malformed"),
        ({"to": [BOBS.peer] * (MAX_RECIPIENTS + 1)}, "malformed"),
        ({"kgen": [1, 2]}, "malformed"),
        ({"kgen": ["1"]}, "malformed"),
        ({"hop": 5}, "malformed"),
        ({"hop": -1}, "malformed"),
        ({"re": "it"}, "malformed"),
        ({"kind": "k" * 41}, "malformed"),
    ],
    ids=str,
)
def test_a_header_that_is_not_of_this_version_is_refused(
    changes: dict[str, Any], code: str
) -> None:
    assert refused(forged(**changes)) == code


def test_no_reader_is_named_twice() -> None:
    said = header(ADAS, [BOBS]).model_copy(update={"to": [BOBS.peer] * 2, "kgen": [1, 2]})
    raw = as_json(said, kc=commitment(seed("content")))
    assert code_of(lambda: parse_header(raw)) == "malformed"


def test_fields_of_a_later_version_do_not_keep_an_envelope_closed() -> None:
    assert open_copy(forged(later={"x": [1]}), reading(BOBS)).plaintext == b"hello"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"{" * 60_000,
        b'{"to":[],' + as_json(header(ADAS, [BOBS]), kc=commitment(seed("content")))[1:],
        json.dumps({"v": 1, "alg": "cm1"}).encode("utf-16"),
    ],
    ids=len,
)
def test_a_header_that_is_not_clean_json_is_refused(raw: bytes) -> None:
    assert refused(forge(raw, ADAS, [BOBS]).copy_for(0)) in {"malformed", "unsupported_version"}


def test_more_hashes_than_readers_are_refused() -> None:
    raw = as_json(header(ADAS, [BOBS]), kc=commitment(seed("content")))
    sealed = forge(raw, ADAS, [BOBS, CLEOS])
    assert refused(sealed.copy_for(0)) == "malformed"
    assert code_of(sealed.read_header) == "malformed"


def test_the_broker_reads_the_header_that_fits_the_slots() -> None:
    sealed = letter(ADAS, [BOBS, CLEOS])
    assert sealed.read_header().to == [BOBS.peer, CLEOS.peer]
    assert sealed.header_hash == sealed.copy_for(1).header_hash


def test_a_message_may_go_to_oneself() -> None:
    assert opened(letter(ADAS, [ADAS]), 0, reading(ADAS)) == b"hello"
    assert ADAS.owner == ADA
