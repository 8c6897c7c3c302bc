"""Frames: one line of text each, checked before anything is parsed."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_wire import frame
from claudemesh_wire.errors import Invalid, TooMuch
from claudemesh_wire.frame import MAX_DEPTH, MAX_FRAME_BYTES, Frame
from claudemesh_wire.meshes import AskMesh
from claudemesh_wire.presence import UpdatePresence
from claudemesh_wire.search import PeerFilters, SearchPeers
from tests.wire.world import code_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NUMBERS = st.integers(1, 10**15 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(NUMBERS, TEXT, st.dictionaries(TEXT, JSON, max_size=3))
def test_what_was_written_is_read(number: int, summary: str, profile: dict[str, object]) -> None:
    message = UpdatePresence(summary=summary, profile=profile)
    text = frame.encode(number, 0, message)
    received = frame.decode(text)
    assert (received.number, received.answers, received.kind) == (number, 0, "presence.update")
    assert UpdatePresence.from_json(received.body) == message
    assert "\n" not in text


def test_a_frame_is_four_fields() -> None:
    assert frame.decode('12 0 search.peers {"query": "a b  c"}') == Frame(
        12, 0, "search.peers", '{"query": "a b  c"}'
    )
    assert frame.encode(0, 7, AskMesh()) == "0 7 meshes.info {}"


def test_none_is_left_out_and_null_inside_a_profile_is_kept() -> None:
    text = frame.encode(1, 0, UpdatePresence(profile={"a": None}))
    assert text == '1 0 presence.update {"profile":{"a":null}}'
    assert "null" not in frame.encode(1, 0, SearchPeers(filters=PeerFilters(type="human")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1",
        "1 0",
        "1 0 meshes.info",
        "1 0  {}",
        " 1 0 meshes.info {}",
        "1  0 meshes.info {}",
        "1\t0 meshes.info {}",
        "01 0 meshes.info {}",
        "-1 0 meshes.info {}",
        "+1 0 meshes.info {}",
        "1.0 0 meshes.info {}",
        "1e3 0 meshes.info {}",
        "1_0 0 meshes.info {}",
        "1000000000000000 0 meshes.info {}",
        "0 1000000000000000 meshes.info {}",
        "\u0661 0 meshes.info {}",
        "\u00b2 0 meshes.info {}",
        "1 2 meshes.info {}",
        "1 0 Meshes.info {}",
        "1 0 meshes.info.x {}",
        "1 0 meshes/info {}",
        "1 0 meshes.info\n {}",
        "1 0 " + "x" * 32 + " {}",
        "1 0 m\u00e9sh {}",
        "1\n0 meshes.info {}",
        "\ufeff1 0 meshes.info {}",
        "1 0 \ud800 {}",
    ],
    ids=ascii,
)
def test_what_is_no_frame_is_refused(text: str) -> None:
    assert code_of(lambda: frame.decode(text)) == "invalid"


@given(st.text(max_size=60) | st.text('0123456789 .abc{}[]"\\', max_size=40))
def test_no_text_escapes_as_another_error(text: str) -> None:
    try:
        received = frame.decode(text)
    except (Invalid, TooMuch):
        return
    assert text == f"{received.number} {received.answers} {received.kind} {received.body}"


@pytest.mark.parametrize("character", ["x", "é", "€", "👋", "\ud800"])
def test_a_frame_is_at_most_a_mebibyte(character: str) -> None:
    size = len(character.encode("utf-8", "surrogatepass"))
    start = "1 0 meshes.info "
    most = (MAX_FRAME_BYTES - len(start)) // size
    assert frame.decode(start + character * most).kind == "meshes.info"
    assert code_of(lambda: frame.decode(start + character * (most + 1))) == "frame_too_large"


def test_nobody_writes_a_frame_that_nobody_reads() -> None:
    large = UpdatePresence(profile={"x": "y" * MAX_FRAME_BYTES})
    assert code_of(lambda: frame.encode(1, 0, large)) == "frame_too_large"
    half = UpdatePresence(profile={"x": "\ud800"})
    assert code_of(lambda: frame.encode(1, 0, half)) == "invalid"


def nested(depth: int, text: str = "1") -> str:
    return f"{'[' * depth}{text}{']' * depth}"


@pytest.mark.parametrize(
    "body",
    [
        nested(MAX_DEPTH),
        nested(MAX_DEPTH - 2, '{"a":' + "{}" * 40 + "}"),
        json.dumps({"text": "[{" * 5000}),
        json.dumps({"text": '"[{\\' * 5000}),
        "[" + ",".join(["[]"] * 500) + "]",
        '{"a":"\\"' + "[" * 40 + '"}',
    ],
    ids=len,
)
def test_brackets_in_texts_and_beside_each_other_are_no_depth(body: str) -> None:
    assert frame.decode(f"1 0 meshes.info {body}").body == body


@pytest.mark.parametrize(
    "body",
    [
        nested(MAX_DEPTH + 1),
        '{"a":' * (MAX_DEPTH + 1),
        '"' + "x" * 50 + '"' + nested(MAX_DEPTH + 1),
        '"\\\\"' + nested(MAX_DEPTH + 1),
        "[" * 500_000,
    ],
    ids=len,
)
def test_deeper_than_32_levels_is_refused_unparsed(body: str) -> None:
    assert code_of(lambda: frame.decode(f"1 0 meshes.info {body}")) == "invalid"


def test_looking_for_depth_takes_no_more_than_the_frame() -> None:
    text = "a\\n" * (MAX_FRAME_BYTES // 4)
    body = f'{{"text":"{text}","brackets":"{"[" * 40}"}}'
    tracemalloc.start()
    try:
        frame.check_depth(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MAX_FRAME_BYTES
