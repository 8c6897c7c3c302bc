"""Links of invites: all that a joiner needs is in them, and nothing that a server must not see."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_wire.errors import MeshError
from claudemesh_wire.keys import make_id
from claudemesh_wire.links import InviteLink
from tests.wire.world import seed

CODE = make_id("", seed("code"))
LINK = InviteLink(
    url="https://host.example:7467",
    code=CODE,
    seed=seed("one-time"),
    mesh=make_id("mesh_", seed("mesh")),
    broker=make_id("b_", seed("broker")),
    pin=seed("certificate"),
)
TEXT = LINK.to_text()


def code_of(text: str) -> str:
    with pytest.raises(MeshError) as caught:
        InviteLink.parse(text)
    return caught.value.code


def test_a_link_is_read_as_it_was_written() -> None:
    assert InviteLink.parse(TEXT) == LINK


def test_a_link_of_a_broker_that_authorities_vouch_for_has_no_pin() -> None:
    bare = InviteLink(LINK.url, LINK.code, LINK.seed, LINK.mesh, LINK.broker)
    assert InviteLink.parse(bare.to_text()) == bare


def test_a_pasted_link_may_have_space_around_it() -> None:
    assert InviteLink.parse(f"  {TEXT}\n") == LINK


def test_the_key_is_in_the_fragment_alone() -> None:
    parts = urlsplit(TEXT)
    assert (parts.scheme, parts.netloc, parts.path) == (
        "https",
        "host.example:7467",
        f"/i/{CODE}",
    )
    assert parts.query == ""


def test_the_key_is_not_shown_when_a_link_is_printed() -> None:
    assert repr(LINK.seed) not in repr(LINK)


def test_an_address_of_version_6_keeps_its_brackets() -> None:
    link = InviteLink("https://[::1]:7467", LINK.code, LINK.seed, LINK.mesh, LINK.broker)
    assert InviteLink.parse(link.to_text()).url == "https://[::1]:7467"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "team",
        "https://host.example",
        TEXT.partition("#")[0],
        TEXT[:-1],
        TEXT + "A",
        TEXT.replace("/i/", "/j/"),
        TEXT.replace(CODE, CODE[:-1]),
        TEXT.replace("https", "ftp"),
        TEXT.replace("https://", "https://user@"),
        TEXT.replace(":7467", ":port"),
        TEXT.replace("#", "?x=1#"),
        TEXT[:-3] + "ü" * 3,
        "https://host/i/" + CODE + "#" + "A" * 2000,
    ],
)
def test_what_is_no_whole_link_is_refused(text: str) -> None:
    assert code_of(text) == "bad_invite"


def test_a_link_of_a_later_version_asks_for_an_update() -> None:
    head, _, fragment = TEXT.partition("#")
    assert code_of(f"{head}#Ag{fragment[2:]}") == "unsupported_version"


@given(st.text())
def test_any_text_is_read_or_refused_in_our_words(text: str) -> None:
    refused = None
    try:
        InviteLink.parse(text)
    except MeshError as error:
        refused = error
    assert refused is None or (refused.code in {"bad_invite", "unsupported_version"})
    assert refused is None or refused.hint
