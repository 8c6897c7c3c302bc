"""Addresses: one grammar, and nothing that only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from claudemesh_wire.address import (
    HANDLE_PATTERN,
    Address,
    AddressKind,
    GroupName,
    Handle,
    direct_conversation,
    handle_from,
    is_conversation,
    is_handle,
    parse,
)
from claudemesh_wire.errors import Invalid
from tests.wire.world import ADAS, BOBS, CLEOS, code_of

HANDLES = st.from_regex(HANDLE_PATTERN, fullmatch=True).filter(is_handle)
NAMES = st.from_regex("[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", fullmatch=True)
PEERS = st.from_regex("p_[a-z2-7]{6,26}", fullmatch=True)


class Named(BaseModel):
    """What the wire's models check of names."""

    handle: Handle = "ada"
    group: GroupName = "backend"


ADDRESSES = st.one_of(
    HANDLES.map(lambda name: Address(AddressKind.HANDLE, name)),
    st.tuples(HANDLES, HANDLES).map(lambda two: Address(AddressKind.MEMBER_HANDLE, *two)),
    PEERS.map(lambda peer: Address(AddressKind.PEER_ID, peer)),
    NAMES.filter("all".__ne__).map(lambda name: Address(AddressKind.GROUP, name)),
    NAMES.map(lambda name: Address(AddressKind.TOPIC, name)),
    st.just(Address(AddressKind.EVERYBODY, "*")),
)


@given(ADDRESSES)
def test_what_was_printed_is_parsed(address: Address) -> None:
    assert parse(str(address)) == address
    assert parse(f"  {str(address).upper()} ") == address


def test_each_form_has_its_meaning() -> None:
    kinds = {
        "ada": AddressKind.HANDLE,
        "Ada-2": AddressKind.HANDLE,
        "ada/laptop": AddressKind.MEMBER_HANDLE,
        ADAS.peer: AddressKind.PEER_ID,
        ADAS.peer[:8]: AddressKind.PEER_ID,
        "@backend": AddressKind.GROUP,
        "#news": AddressKind.TOPIC,
        "*": AddressKind.EVERYBODY,
        "@all": AddressKind.EVERYBODY,
        "@ALL": AddressKind.EVERYBODY,
    }
    assert {text: parse(text).kind for text in kinds} == kinds
    assert parse("ada/laptop") == Address(AddressKind.MEMBER_HANDLE, "laptop", member="ada")


def test_only_groups_topics_and_everybody_stand_for_many() -> None:
    many = [text for text in ("ada", "a/b", ADAS.peer, "@g", "#t", "*") if parse(text).is_multicast]
    assert many == ["@g", "#t", "*"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "@",
        "#",
        "/",
        "ada/",
        "/ada",
        "a/b/c",
        "@a/b",
        "**",
        "@*",
        "ada ada",
        "ada,bob",
        "-ada",
        "ada-",
        ".",
        "_x",
        "a" * 41,
        "@" + "a" * 65,
        "p_",
        ADAS.peer[:7],
        ADAS.peer + "a",
        "p_abc1de",
        "mem_abcdefgh",
        "mesh_x",
        "msg_x",
        "b_x",
        "ada/mem_x",
        "b_x/ada",
        "ada\n",
        "\tada",
        "ada\x00",
        "\x1b[31mada",
        "\x1fada",
        "ada\u200b",
        "\u202eada",
        "\u00a0ada",
        "\ufeffada",
        "\u212aim",
        "ad\u0430",
        "\uff41da",
        "adaﬁ",
        "İda",
        "ada\ud800",
        "é",
        "👋",
        "@gr\u00fcn",
    ],
    ids=ascii,
)
def test_what_is_no_address_is_refused(text: str) -> None:
    assert code_of(lambda: parse(text)) == "bad_address"


@given(st.text(max_size=50))
def test_no_text_escapes_as_another_error(text: str) -> None:
    try:
        shown = str(parse(text))
    except Invalid as error:
        shown = f"{error.code} {error}"
    assert shown.isascii()
    assert shown.isprintable()


@given(st.text() | st.text("ABCpm_.-/ \u212a", max_size=60))
def test_any_text_gives_a_handle(text: str) -> None:
    handle = handle_from(text)
    assert is_handle(handle)
    assert Named(handle=handle).handle == handle
    assert handle_from(handle) == handle


@pytest.mark.parametrize(
    ("text", "handle"),
    [
        ("Claude Mesh", "claude-mesh"),
        ("  .dotfiles ", "dotfiles"),
        ("p_project", "p-project"),
        ("mem_x_y", "mem-x_y"),
        ("café", "caf"),
        ("***", "peer"),
        ("", "peer"),
        ("a" * 39 + "-b", "a" * 39),
    ],
)
def test_a_folder_gives_the_handle_one_expects(text: str, handle: str) -> None:
    assert handle_from(text) == handle


def test_what_gives_no_handle_gets_the_one_that_is_offered() -> None:
    assert handle_from("日本", otherwise="me") == "me"


@pytest.mark.parametrize("handle", ["p_abcdef", "mem_x", "Ada", "ada\n", "", "a" * 41, "ä"])
def test_a_message_carries_no_handle_that_is_none(handle: str) -> None:
    assert not is_handle(handle)
    with pytest.raises(ValidationError):
        Named(handle=handle)


@pytest.mark.parametrize("group", ["all", "@x", "", "X", "a" * 65, "a\n", "-"])
def test_a_message_carries_no_group_that_nobody_can_address(group: str) -> None:
    with pytest.raises(ValidationError):
        Named(group=group)


@given(st.permutations([ADAS.peer, BOBS.peer, CLEOS.peer]))
def test_a_conversation_is_the_same_for_all_who_are_in_it(order: list[str]) -> None:
    name = direct_conversation([*order, order[0]])
    assert name == direct_conversation([ADAS.peer, BOBS.peer, CLEOS.peer])
    assert name != direct_conversation(order[:2])
    assert is_conversation(name)


@pytest.mark.parametrize("text", ["*", "@backend", "#news", "#all"])
def test_what_is_sent_to_many_is_a_conversation_too(text: str) -> None:
    assert is_conversation(text)


@pytest.mark.parametrize(
    "text", ["", "ada", "@", "@all", "@A", "#a b", "d_", "d_" + "a" * 25, "d_" + "a" * 26 + "\n"]
)
def test_nothing_else_is_a_conversation(text: str) -> None:
    assert not is_conversation(text)
