"""Messages cut into pieces and joined again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_wire.pieces import MAX_MESSAGE_BYTES, PIECE_BYTES, Joining, cut
from tests.wire.world import code_of


@given(st.lists(st.integers(0, 3 * PIECE_BYTES), max_size=4))
def test_messages_come_out_as_they_went_in(sizes: list[int]) -> None:
    joining = Joining()
    for number, size in enumerate(sizes):
        message = bytes([number]) * size
        *before, last = [joining.add(piece) for piece in cut(message)]
        assert (set(before) <= {None}, last) == (True, message)


@pytest.mark.parametrize(
    ("size", "pieces"),
    [(0, 1), (1, 1), (131_072, 1), (131_073, 2), (262_144, 2), (262_145, 3)],
)
def test_a_message_has_as_many_pieces_as_it_needs(size: int, pieces: int) -> None:
    cut_up = list(cut(b"x" * size))
    assert [piece[:1] for piece in cut_up] == [b"\x00"] * (pieces - 1) + [b"\x01"]


@pytest.mark.parametrize("piece", [b"", b"\x02x", b"x"])
def test_what_does_not_begin_as_a_piece_is_refused(piece: bytes) -> None:
    assert code_of(lambda: Joining().add(piece)) == "malformed"


def test_a_message_that_is_too_long_is_not_cut() -> None:
    assert code_of(lambda: cut(bytes(MAX_MESSAGE_BYTES + 1))) == "message_too_large"


def test_what_never_ends_is_refused_before_it_fills_the_memory() -> None:
    joining = Joining()
    piece = b"\x00" + bytes(PIECE_BYTES)
    for _ in range(33_554_432 // 131_072):
        assert joining.add(piece) is None
    assert code_of(lambda: joining.add(piece)) == "message_too_large"
