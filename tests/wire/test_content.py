"""What is sealed in a message: its fields and its text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_wire.content import ContentFields, Priority, ValidIf, pack, unpack
from claudemesh_wire.envelope import Refusal
from claudemesh_wire.keys import make_id
from tests.wire.world import code_of

EARLIER = make_id("msg_", bytes(16))
CONDITIONS = st.from_regex(r"[0-9a-f]{7,64}", fullmatch=True)
WORDS = {
    "yes": ContentFields(e2e=True),
    "no": ContentFields(e2e=False),
    "none": ContentFields(),
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(TEXT, st.sampled_from(Priority), st.none() | TEXT.map(lambda text: text[:120]))
def test_what_was_packed_is_unpacked(text: str, priority: Priority, thread: str | None) -> None:
    fields = ContentFields(priority=priority, thread=thread)
    assert unpack(pack(fields, text)) == (fields, text)


def test_a_message_without_a_priority_is_for_the_next_moment() -> None:
    assert unpack(b"\x00\x00\x00\x02{}hi")[0].priority is Priority.NEXT


@given(CONDITIONS)
def test_what_goes_with_a_text_for_its_reader_s_session_is_unpacked_too(sha: str) -> None:
    fields = ContentFields(supersedes=EARLIER, valid_if=ValidIf(git_sha=sha))
    assert unpack(pack(fields, "text")) == (fields, "text")


def test_a_message_that_supersedes_nothing_is_written_as_before() -> None:
    fields = ContentFields(priority=Priority.LOW, thread="plan")
    assert pack(fields, "hi") == b'\x00\x00\x00\x22{"priority":"low","thread":"plan"}hi'
    read = unpack(pack(fields, "hi"))[0]
    assert (read.supersedes, read.valid_if) == (None, None)


def test_the_word_of_a_sender_on_all_its_readers_counts_only_where_there_are_several() -> None:
    fields = ContentFields(e2e=True)
    assert unpack(pack(fields, "text")) == (fields, "text")
    told = {said: (one.is_e2e_for(1), one.is_e2e_for(2)) for said, one in WORDS.items()}
    assert told == {"yes": (True, True), "no": (True, False), "none": (True, False)}


@pytest.mark.parametrize(
    "fields",
    [
        '{"e2e":1}',
        '{"supersedes":"msg_1"}',
        '{"supersedes":7}',
        '{"valid_if":{}}',
        '{"valid_if":"0123456"}',
        '{"valid_if":{"git_sha":"012345"}}',
        '{"valid_if":{"git_sha":"0123456X"}}',
        '{"valid_if":{"git_sha":"0123456\\n"}}',
        '{"valid_if":{"git_sha":"' + "a" * 65 + '"}}',
        '{"valid_if":{"git_sha":"0123456","moon":"full"}}',
    ],
)
def test_a_condition_that_is_not_understood_is_not_taken_for_none(fields: str) -> None:
    plaintext = len(fields).to_bytes(4, "big") + fields.encode() + b"text"
    assert code_of(lambda: unpack(plaintext)) == "bad_content"


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"\x00\x00\x00",
        b"\x00\x00\x00\x02",
        b"\xff\xff\xff\xff{}",
        b"\x00\x00\x00\x02[]text",
        b'\x00\x00\x00\x12{"priority":"soon"}text',
        b'\x00\x00\x00\x10{"priority":null}',
        b"\x00\x00\x00\x02{}\xff",
        b"\x00\x00\x00\x02{}\xed\xa0\x80",
        b'\x00\x00\x00\x86{"thread":"' + b"x" * 121 + b'"}',
    ],
)
def test_anything_else_is_refused_for_good(plaintext: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        unpack(plaintext)
    assert (caught.value.code, caught.value.permanent) == ("bad_content", True)


@given(st.binary(max_size=80))
def test_no_plaintext_escapes_as_another_error(plaintext: bytes) -> None:
    try:
        unpack(plaintext)
    except Refusal as refusal:
        code = refusal.code
    else:
        code = "bad_content"
    assert code == "bad_content"


def test_half_a_surrogate_pair_is_refused_by_who_sends_it() -> None:
    assert code_of(lambda: pack(ContentFields(), "\udc00")) == "malformed"


def test_a_text_costs_its_bytes_and_no_more() -> None:
    small, large = pack(ContentFields(), ""), pack(ContentFields(), "ü\n" * 1000)
    assert len(large) - len(small) == 3000
