"""Sealed files: only the same profile, for the same purpose, undamaged, opens one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_mcp.home import atomic_write
from claudemesh_mcp.keystore import SealedFile, WrappingKey
from claudemesh_wire.errors import Conflict, Forbidden, Invalid, MeshError

MINE = WrappingKey(bytes(range(32)), "prof_mine", "file")
FOREIGN = WrappingKey(bytes(range(1, 33)), "prof_foreign", "file")
PATH = Path("member.key")


def refused(data: bytes, wrapping: WrappingKey = MINE, purpose: str = "member") -> MeshError:
    with pytest.raises((Conflict, Invalid)) as caught:
        SealedFile.unseal(data, wrapping, purpose, PATH)
    assert str(PATH) in caught.value.reason
    assert caught.value.hint
    return caught.value


def test_what_was_sealed_is_read_again_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "member.key"
    SealedFile.write(path, b"first", MINE, "member")
    SealedFile.write(path, b"second", MINE, "member")
    assert SealedFile.read(path, MINE, "member") == b"second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"second" not in path.read_bytes()


def test_a_file_that_is_not_there_reads_as_none(tmp_path: Path) -> None:
    assert SealedFile.read(tmp_path / "none", MINE, "member") is None


def test_a_sealed_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "member.key"
    SealedFile.write(path, b"x", MINE, "member")
    path.chmod(0o644)
    with pytest.raises(Forbidden) as caught:
        SealedFile.read(path, MINE, "member")
    assert caught.value.code == "wrong_mode"


def test_the_errors_of_a_read_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "member.key"
    atomic_write(path, b"something else")
    with pytest.raises(Invalid) as caught:
        SealedFile.read(path, MINE, "member")
    assert caught.value.code == "key_file_damaged"
    assert str(path) in caught.value.reason


@given(plaintext=st.binary(max_size=300), purpose=st.text(max_size=20))
def test_any_content_and_purpose_come_back(plaintext: bytes, purpose: str) -> None:
    data = SealedFile.seal(plaintext, MINE, purpose)
    assert SealedFile.unseal(data, MINE, purpose, PATH) == plaintext


def test_the_same_content_is_never_sealed_to_the_same_bytes() -> None:
    assert SealedFile.seal(b"x", MINE, "member") != SealedFile.seal(b"x", MINE, "member")


def test_a_foreign_key_is_told_apart_from_damage() -> None:
    assert refused(SealedFile.seal(b"x", FOREIGN, "member")).code == "key_mismatch"


def test_a_file_in_the_place_of_another_is_refused() -> None:
    assert refused(SealedFile.seal(b"x", MINE, "device")).code == "key_file_damaged"


def test_every_flipped_bit_is_refused() -> None:
    data = SealedFile.seal(b"secret", MINE, "member")
    codes: list[str] = []
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        codes.append(refused(bytes(changed)).code)
    # A changed fingerprint can't be told from another key; everything else is damage.
    assert {bit // 8 for bit, code in enumerate(codes) if code == "key_mismatch"} == set(
        range(5, 21)
    )


def test_every_truncation_and_addition_is_refused() -> None:
    data = SealedFile.seal(b"secret", MINE, "member")
    for length in range(len(data)):
        assert refused(data[:length]).code == "key_file_damaged"
    assert refused(data + b"\0").code == "key_file_damaged"


@given(st.binary(max_size=80))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    assert refused(data).code == "key_file_damaged"


def test_the_format_stays_readable() -> None:
    golden = bytes.fromhex(
        "434d534601630dcd2966c4336691125448bbb25b4f2c01b357c228e7c9f88c6d"
        "7baac55cdf0ac19053a2e38e641b79e0f44c406f66b0fd199421c05af4b9a6"
    )
    assert SealedFile.unseal(golden, MINE, "member", PATH) == b"kept for years"
