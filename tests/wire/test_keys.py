"""Keys, what they sign, and the ids made of them."""

import hashlib
from itertools import product

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_wire import keys
from claudemesh_wire.keys import KemPrivateKey, KemPublicKey, SigningKey, VerifyKey, b64, unb64
from tests.wire.world import code_of, seed

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def add(left: Point, right: Point) -> Point:
    """The sum of two points of the curve, from its equation."""
    (a, b), (c, d) = left, right
    spread = D * a * b * c * d
    x = (a * d + b * c) * pow(1 + spread, -1, P) % P
    return x, (b * d + a * c) * pow(1 - spread, -1, P) % P


def times(factor: int, point: Point) -> Point:
    total = (0, 1)
    while factor:
        if factor & 1:
            total = add(total, point)
        point, factor = add(point, point), factor >> 1
    return total


def on_curve(y: int) -> Point | None:
    """The point of this y, when there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x, y) if x * x % P == square else None


def small_points() -> set[int]:
    """The y of all eight points of order 1, 2, 4 and 8."""
    found: set[Point] = set()
    y = 2
    while len(found) < 8:
        point = on_curve(y)
        small = times(ORDER, point) if point else (0, 1)
        found |= {times(factor, small) for factor in range(8)}
        y += 1
    return {y for _, y in found}


def spellings() -> list[bytes]:
    """Every way to write such a point in 32 bytes, also those that no encoder gives."""
    written = {y + extra for y, extra in product(small_points(), (0, P)) if y + extra < 2**255}
    return [
        (y | sign << 255).to_bytes(32, "little") for y, sign in product(sorted(written), (0, 1))
    ]


@pytest.mark.parametrize("point", spellings(), ids=bytes.hex)
def test_a_key_under_which_anybody_can_sign_is_refused(point: bytes) -> None:
    assert code_of(lambda: VerifyKey(point)) == "bad_key"


def test_a_signature_that_a_browser_would_refuse_is_refused() -> None:
    key = SigningKey(seed("signer"))
    expanded = hashlib.sha512(key.seed).digest()[:32]
    secret = int.from_bytes(expanded, "little") & (1 << 254) - 8 | 1 << 254
    identity = (1).to_bytes(32, "little")
    message = keys.pae("purpose", "text")
    digest = hashlib.sha512(identity + key.public.raw + message).digest()
    scalar = int.from_bytes(digest, "little") * secret % ORDER
    signature = identity + scalar.to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(key.public.raw).verify(signature, message)
    assert not key.public.accepts(signature, "purpose", "text")


@pytest.mark.parametrize(
    "point",
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ],
)
def test_a_key_to_which_nothing_can_be_sealed_is_refused(point: str) -> None:
    assert code_of(lambda: KemPublicKey(bytes.fromhex(point))) == "bad_key"


@pytest.mark.parametrize("kind", [VerifyKey, SigningKey, KemPublicKey, KemPrivateKey])
@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_has_32_bytes(kind: type, size: int) -> None:
    assert code_of(lambda: kind(seed("key")[:1] * size)) == "bad_key"


@pytest.mark.parametrize("key", [SigningKey(seed("shown")), KemPrivateKey(seed("shown"))])
def test_a_private_key_is_never_shown(key: SigningKey | KemPrivateKey) -> None:
    shown = repr(key) + str([key])
    assert seed("shown").hex() not in shown
    assert repr(seed("shown")) not in shown


PARTS = st.lists(st.binary(max_size=12) | st.text(max_size=6), max_size=4)


@given(PARTS, PARTS)
def test_no_two_lists_of_parts_sign_the_same_bytes(
    left: list[bytes | str], right: list[bytes | str]
) -> None:
    plain = [
        [part.encode() if isinstance(part, str) else part for part in parts]
        for parts in (left, right)
    ]
    assert (keys.pae(*left) == keys.pae(*right)) == (plain[0] == plain[1])


@given(PARTS)
def test_a_signature_covers_its_purpose_and_its_parts(parts: list[bytes | str]) -> None:
    key = SigningKey(seed("signer"))
    signature = key.sign("purpose", *parts)
    assert key.public.accepts(signature, "purpose", *parts)
    assert not key.public.accepts(signature, "another", *parts)
    assert not key.public.accepts(signature, "purpose", *parts, "")
    assert not SigningKey(seed("other")).public.accepts(signature, "purpose", *parts)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 63, 65])
def test_a_signature_of_another_length_is_not_accepted(size: int) -> None:
    assert not SigningKey(seed("signer")).public.accepts(b"\x05" * size, "purpose")


def test_what_is_sealed_opens_with_that_key_and_info_only() -> None:
    own, other = KemPrivateKey(seed("own")), KemPrivateKey(seed("other"))
    sealed = own.public.seal(b"secret", b"info")
    assert len(own.public.seal(bytes(32), b"info")) == keys.SLOT_BYTES
    assert own.open(sealed, b"info") == b"secret"
    assert own.open(sealed, b"another") is None
    assert other.open(sealed, b"info") is None
    assert own.open(sealed[:-1], b"info") is None
    assert own.open(b"", b"info") is None
    assert own.open(bytes(32) + sealed[32:], b"info") is None


@given(st.binary(max_size=40))
def test_base64url_is_read_back(data: bytes) -> None:
    assert unb64(b64(data)) == data


@pytest.mark.parametrize("text", ["A", "AA==", "AB", "A A", "A\n", "++++", "é", "AAA=", "AA\u00b2"])
def test_another_spelling_of_base64url_is_refused(text: str) -> None:
    assert code_of(lambda: unb64(text)) == "malformed"


def test_ids_say_what_they_are_of() -> None:
    key = SigningKey(seed("key")).public
    ids = [
        keys.member_id(key),
        keys.mesh_id(key, b"salt"),
        keys.broker_id(key),
        keys.peer_id("mesh_x", "mem_x", keys.anchor_digest("claude:1")),
    ]
    assert [one.partition("_")[0] for one in ids] == ["mem", "mesh", "b", "p"]
    assert {len(one.partition("_")[2]) for one in ids} == {26}
    assert len({one.partition("_")[2] for one in ids}) == 4


def test_an_anchor_gives_another_peer_to_another_member_or_mesh() -> None:
    peers = {
        keys.peer_id(mesh, member, keys.anchor_digest(anchor))
        for mesh, member, anchor in product(("m", "mm"), ("a", "ma"), ("x", "ax"))
    }
    assert len(peers) == 8


def test_a_proof_of_a_secret_covers_its_parts() -> None:
    assert keys.same(keys.mac(b"secret", "a", "bc"), keys.mac(b"secret", "a", b"bc"))
    assert not keys.same(keys.mac(b"secret", "a", "bc"), keys.mac(b"secret", "ab", "c"))
    assert not keys.same(keys.mac(b"secret", "a"), keys.mac(b"Secret", "a"))
