"""Altered envelopes: no bit and no byte can be changed, and one body has one key."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_wire.envelope import (
    MAX_BODY_BYTES,
    MAX_RECIPIENTS,
    Copy,
    Refusal,
    Sealed,
    open_copy,
)
from tests.wire.world import (
    ADAS,
    BOBS,
    CLEOS,
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

WHOLE = letter(ADAS, [BOBS, CLEOS])
BLOB = WHOLE.copy_for(0).to_bytes()


def read(blob: bytes) -> bytes:
    return open_copy(Copy.parse(blob), reading(BOBS)).plaintext


def flips(blob: bytes) -> Iterator[bytes]:
    altered = bytearray(blob)
    for at in range(len(blob)):
        for bit in range(8):
            altered[at] ^= 1 << bit
            yield bytes(altered)
            altered[at] ^= 1 << bit


@pytest.mark.unmeasured
def test_every_bit_of_a_copy_counts() -> None:
    assert read(BLOB) == b"hello"
    for at, altered in enumerate(flips(BLOB)):
        with pytest.raises(Refusal) as caught:
            read(altered)
        assert caught.value.code, f"bit {at}"


def test_every_byte_of_a_copy_counts() -> None:
    for size in range(len(BLOB)):
        for shorter in (BLOB[:size], BLOB[len(BLOB) - size :], BLOB[:size] + BLOB[size + 1 :]):
            with pytest.raises(Refusal):
                read(shorter)


def test_nothing_can_be_added_to_a_copy() -> None:
    for at in range(len(BLOB) + 1):
        with pytest.raises(Refusal):
            read(BLOB[:at] + b"\x00" + BLOB[at:])


@pytest.mark.unmeasured
def test_every_bit_of_a_sealed_envelope_counts_for_one_of_its_readers() -> None:
    def opened(blob: bytes) -> list[bytes]:
        whole = Sealed.parse(blob)
        copies = (whole.copy_for(at) for at in range(len(whole.read_header().to)))
        readers = (reading(BOBS), reading(CLEOS))
        pairs = zip(copies, readers, strict=True)
        return [open_copy(copy, reader).plaintext for copy, reader in pairs]

    assert opened(WHOLE.to_bytes()) == [b"hello", b"hello"]
    for altered in flips(WHOLE.to_bytes()):
        with pytest.raises(Refusal):
            opened(altered)


@given(st.binary(max_size=400))
def test_junk_is_refused_by_both_parsers(blob: bytes) -> None:
    for kind in (Sealed, Copy):
        for junk in (blob, b"\x01" + blob, BLOB[:7] + blob):
            try:
                kind.parse(junk)
            except Refusal as refusal:
                code = refusal.code
            else:
                code = "parsed"
            assert code in {"malformed", "unsupported_version", "parsed"}


def test_a_whole_envelope_is_not_a_copy_and_a_copy_not_a_whole_envelope() -> None:
    alone = letter(ADAS, [BOBS])
    assert code_of(lambda: Copy.parse(alone.to_bytes())) == "malformed"
    assert code_of(lambda: Sealed.parse(alone.copy_for(0).to_bytes())) == "malformed"
    assert code_of(lambda: read(WHOLE.to_bytes())) == "malformed"


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_of_the_layout_is_named(version: int) -> None:
    for kind, blob in ((Copy, BLOB), (Sealed, WHOLE.to_bytes())):
        altered = bytes([version]) + blob[1:]
        assert code_of(lambda kind=kind, altered=altered: kind.parse(altered)) == (
            "unsupported_version"
        )


def test_more_slots_or_hashes_than_readers_can_be_are_refused_unread() -> None:
    slots = replace(WHOLE, slots=(bytes(80),) * (MAX_RECIPIENTS + 1))
    assert code_of(lambda: Sealed.parse(slots.to_bytes())) == "malformed"
    none = replace(WHOLE, slots=())
    assert code_of(lambda: Sealed.parse(none.to_bytes())) == "malformed"
    copy = replace(WHOLE.copy_for(0), slot_hashes=bytes(32) * (MAX_RECIPIENTS + 1))
    assert code_of(lambda: Copy.parse(copy.to_bytes())) == "malformed"


def test_a_body_above_its_limit_or_without_a_byte_is_refused_unread() -> None:
    for body in (bytes(MAX_BODY_BYTES + 1), b""):
        whole = replace(WHOLE, body=body)
        assert code_of(lambda whole=whole: Sealed.parse(whole.to_bytes())) == "malformed"
        copy = whole.copy_for(0).to_bytes()
        assert code_of(lambda copy=copy: Copy.parse(copy)) == "malformed"


# One body under two keys: AES-GCM does not commit to its key, so a dishonest sender can show two
# readers two texts. The field of GHASH, bit by bit, as in NIST SP 800-38D.
REDUCTION = 0xE1 << 120


def multiply(left: int, right: int) -> int:
    product = 0
    for bit in range(127, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (REDUCTION if right & 1 else 0)
    return product


def invert(value: int) -> int:
    """By Fermat: the power 2^128 - 2; one is the leftmost bit."""
    result = 1 << 127
    for _ in range(127):
        value = multiply(value, value)
        result = multiply(result, value)
    return result


def block_cipher(key: bytes, block: bytes) -> int:
    # One block of AES itself, of which GCM's tag is made.
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
    return int.from_bytes(encryptor.update(block))


def ghash(key: int, blocks: list[int]) -> int:
    total = 0
    for block in blocks:
        total = multiply(total ^ block, key)
    return total


def body_for_two_keys(keys: tuple[bytes, bytes], aad: bytes) -> bytes:
    """A ciphertext whose one tag is right under both keys: solve for its last block."""
    counter = bytes(12) + (1).to_bytes(4)
    subkeys = [block_cipher(key, bytes(16)) for key in keys]
    aads = [int.from_bytes(aad[at : at + 16]) for at in range(0, len(aad), 16)]
    first = int.from_bytes(b"chosen freely...")
    lengths = (len(aad) * 8 << 64) | 32 * 8
    tags = [
        block_cipher(key, counter) ^ ghash(subkey, [*aads, first, 0, lengths])
        for key, subkey in zip(keys, subkeys, strict=True)
    ]
    squares = [multiply(subkey, subkey) for subkey in subkeys]
    last = multiply(tags[0] ^ tags[1], invert(squares[0] ^ squares[1]))
    tag = tags[0] ^ multiply(last, squares[0])
    return b"".join(part.to_bytes(16) for part in (first, last, tag))


def test_one_body_cannot_say_two_things() -> None:
    keys = seed("content"), seed("another content")
    raw = as_json(header(ADAS, [BOBS, CLEOS]), kc=commitment(keys[0]))
    aad = hashlib.sha256(raw).digest()
    body = body_for_two_keys(keys, aad)
    shown = {AESGCM(key).decrypt(bytes(12), body, aad) for key in keys}
    assert len(shown) == 2
    sealed = forge(raw, ADAS, [BOBS, CLEOS], Forgery(keys[0], slot_keys=keys, body=body))
    assert code_of(lambda: open_copy(sealed.copy_for(1), reading(CLEOS))) == "commitment"
