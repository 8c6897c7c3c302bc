"""Certificates: what is read, what is refused, what they prove."""

from typing import Any

import pytest
from pydantic import ValidationError

from claudemesh_wire import canonical
from claudemesh_wire.certificate import (
    DOMAIN,
    MAX_CERTIFICATE_BYTES,
    MAX_LIFETIME_MS,
    Certificate,
    CertificateFields,
    locality_tag,
)
from claudemesh_wire.keys import SIGNATURE_BYTES, b64
from tests.wire.world import ADA, ADAS, BOB, BOBS, NOW, Device, code_of, seed


def signed(fields: dict[str, Any]) -> bytes:
    """A certificate whose fields no honest side would write."""
    payload = canonical.encode(fields)
    return payload + ADA.key.sign(DOMAIN, payload)


def test_a_certificate_is_read_as_it_was_issued() -> None:
    issued = ADAS.certificate(caps=["message"])
    parsed = Certificate.parse(issued.blob)
    assert parsed == issued
    assert parsed.hash == issued.hash
    assert parsed.sign_key == ADAS.sign.public
    assert parsed.kem_key == ADAS.kem.public
    assert parsed.is_signed_by(ADA.key.public)


def test_another_member_did_not_sign_it() -> None:
    certificate = ADAS.certificate()
    assert not certificate.is_signed_by(BOB.key.public)
    moved = Certificate.issue(BOBS.fields(member=ADA.id), BOB.key)
    assert not moved.is_signed_by(ADA.key.public)


def test_every_bit_of_a_certificate_is_signed() -> None:
    blob = ADAS.certificate().blob
    for at in range(len(blob)):
        altered = bytearray(blob)
        altered[at] ^= 1
        assert not Certificate(bytes(altered), ADAS.fields()).is_signed_by(ADA.key.public)


def test_it_covers_what_is_signed_in_its_time() -> None:
    certificate = ADAS.certificate(not_before=NOW, not_after=NOW + 10)
    covered = [certificate.covers(at) for at in (NOW - 1, NOW, NOW + 10, NOW + 11)]
    assert covered == [False, True, True, False]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"v": 2}, "unsupported_version"),
        ({"v": None}, "unsupported_version"),
        ({"mesh": "mesh_1"}, "malformed"),
        ({"member": ADAS.peer}, "malformed"),
        ({"peer": ADA.id}, "malformed"),
        ({"peer": None}, "malformed"),
        ({"handle": "Ada"}, "malformed"),
        ({"handle": ""}, "malformed"),
        ({"handle": "-ada"}, "malformed"),
        ({"handle": "ada "}, "malformed"),
        ({"handle": "ada\n"}, "malformed"),
        ({"handle": "a" * 41}, "malformed"),
        ({"handle": "ädä"}, "malformed"),
        ({"handle": "p_abcdef"}, "malformed"),
        ({"handle": "mesh_x"}, "malformed"),
        ({"peer": BOBS.peer}, "foreign_peer"),
        ({"not_after": str(NOW)}, "malformed"),
        ({"not_after": ADAS.fields().not_before + MAX_LIFETIME_MS + 1}, "malformed"),
        ({"kem_generation": 2**60}, "malformed"),
        ({"caps": "message"}, "malformed"),
        ({"sign": "short"}, "malformed"),
        ({"sign": b64(bytes(31))}, "bad_key"),
        ({"sign": b64(bytes(32))}, "bad_key"),
        ({"kem": b64(bytes(33))}, "bad_key"),
        ({"kem": b64(bytes(32))}, "bad_key"),
        ({"kem": b64(b"\x01" + bytes(31))}, "bad_key"),
        ({"kem": b64(ADAS.kem.public.raw) + "="}, "malformed"),
    ],
    ids=str,
)
def test_what_is_no_certificate_is_refused(changes: dict[str, Any], code: str) -> None:
    blob = signed(ADAS.fields().model_dump(mode="json") | changes)
    assert code_of(lambda: Certificate.parse(blob)) == code


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        bytes(SIGNATURE_BYTES),
        b"{}" + bytes(SIGNATURE_BYTES - 1),
        b"[]" + bytes(SIGNATURE_BYTES),
        signed({"v": 1, "caps": ["x" * MAX_CERTIFICATE_BYTES]}),
    ],
    ids=len,
)
def test_what_has_not_the_size_or_shape_of_one_is_refused(blob: bytes) -> None:
    assert code_of(lambda: Certificate.parse(blob)) in {"malformed", "unsupported_version"}


def test_nobody_issues_a_handle_that_looks_like_an_id() -> None:
    with pytest.raises(ValidationError):
        Device(ADA, "b_roker").fields()


def test_who_shares_the_secret_file_is_on_the_same_machine() -> None:
    secret = seed("machine")
    tag = locality_tag(secret, ADAS.sign.public)
    near = ADAS.certificate(locality=tag)
    assert near.is_local_to(secret)
    assert not near.is_local_to(seed("another machine"))
    assert not ADAS.certificate().is_local_to(secret)
    assert not BOBS.certificate(locality=tag).is_local_to(secret)
    assert not BOBS.certificate(locality="ü").is_local_to(secret)


def test_fields_of_a_later_version_are_kept_in_the_bytes_and_ignored() -> None:
    blob = signed(ADAS.fields().model_dump(mode="json") | {"later": {"x": 1}})
    certificate = Certificate.parse(blob)
    assert certificate.fields == ADAS.fields()
    assert certificate.is_signed_by(ADA.key.public)
    assert set(CertificateFields.model_fields) == set(ADAS.fields().model_dump())
