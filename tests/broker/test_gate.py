"""The gate of a broker for others: its names, and whose word about an address counts."""

from typing import Any

import pytest

from claudemesh_broker.binding import LOOPBACK, Binding, Tls
from claudemesh_broker.gate import Guard
from claudemesh_broker.reach import Reach

ANYWHERE = "0.0.0.0"  # noqa: S104 - a setting
URL = "https://mesh.example.org:7467"
HERE = "192.168.1.7"
STRANGER = "198.51.100.9"


def scope(peer: str, *headers: tuple[str, str], server: str = HERE, host: str = "") -> Any:
    named = [("host", host or "mesh.example.org"), *headers]
    return {
        "headers": [(name.encode(), value.encode()) for name, value in named],
        "client": (peer, 50_000),
        "server": (server, 7467),
    }


def served(bind: str = ANYWHERE, url: str = "") -> Guard:
    return Guard(Binding(bind, Tls.AUTO, public_url=url), Reach(URL, bytes(32)))


def proxied(bind: str = "127.0.0.1", proxies: tuple[str, ...] = LOOPBACK) -> Guard:
    binding = Binding(bind, Tls.PROXY, public_url=URL, proxies=proxies)
    return Guard(binding, Reach(URL))


@pytest.mark.parametrize(
    ("host", "is_let_in"),
    [
        ("mesh.example.org:7467", True),
        ("MESH.example.org", True),
        ("localhost:7467", True),
        ("127.0.0.1:7467", True),
        (f"{HERE}:7467", True),
        ("192.168.1.8:7467", False),
        ("mesh.example.org.evil.example", False),
        ("evil.example", False),
        ("[::1", False),
    ],
)
def test_a_broker_for_others_answers_to_its_own_names(host: str, is_let_in: bool) -> None:  # noqa: FBT001 - a case
    assert served().admits(scope(STRANGER, host=host)) is is_let_in


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        (URL, True),
        ("http://localhost:3000", True),
        ("https://mesh.example.org", False),
        ("http://mesh.example.org:7467", False),
        ("https://evil.example", False),
        ("https://mesh.example.org:x", False),
        ("null", False),
    ],
)
def test_a_page_is_let_in_from_its_own_site_only(origin: str, is_let_in: bool) -> None:  # noqa: FBT001 - a case
    assert served().admits(scope(STRANGER, ("origin", origin))) is is_let_in


def test_two_hosts_are_none() -> None:
    assert not served().admits(scope(STRANGER, ("host", "mesh.example.org")))


@pytest.mark.parametrize(
    "headers",
    [
        [("x-forwarded-for", "127.0.0.1")],
        [("forwarded", "for=127.0.0.1")],
        [("x-real-ip", "127.0.0.1")],
    ],
)
def test_without_a_proxy_nobody_can_say_to_be_another(headers: list[tuple[str, str]]) -> None:
    for guard in (served(), served("127.0.0.1", URL), Guard(Binding("127.0.0.1"))):
        origin = guard.origin_of(scope(STRANGER, *headers))
        assert (origin.address, origin.is_local) == (STRANGER, False)


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ([("x-forwarded-for", STRANGER)], STRANGER),
        ([("x-forwarded-for", f"127.0.0.1, 10.1.2.3, {STRANGER}")], STRANGER),
        ([("x-forwarded-for", "10.1.2.3"), ("x-forwarded-for", f"{STRANGER}:4711")], STRANGER),
        ([("x-forwarded-for", f"{STRANGER}, 127.0.0.1")], STRANGER),
        ([("x-forwarded-for", "[2001:db8::9]:4711")], "2001:db8::9"),
        ([("x-forwarded-for", "2001:db8::9")], "2001:db8::9"),
        ([("x-forwarded-for", f"::ffff:{STRANGER}")], STRANGER),
        ([("forwarded", f"for=10.1.2.3, For={STRANGER};proto=https")], STRANGER),
        ([("forwarded", 'proto=https;for="[2001:db8::9]:4711"')], "2001:db8::9"),
        ([("forwarded", f'for="10.1.2.3, for={STRANGER}')], STRANGER),
        ([("x-forwarded-for", STRANGER), ("forwarded", f"for={STRANGER}")], STRANGER),
    ],
)
def test_a_declared_proxy_tells_whose_connection_it_is(
    headers: list[tuple[str, str]], address: str
) -> None:
    origin = proxied().origin_of(scope("127.0.0.1", *headers, server="127.0.0.1"))
    assert (origin.address, origin.is_local) == (address, False)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-forwarded-for", "unknown")],
        [("x-forwarded-for", f"{STRANGER}, evil.example")],
        [("forwarded", "proto=https")],
        [("forwarded", "for=_hidden")],
        [("x-forwarded-for", STRANGER), ("forwarded", "for=10.1.2.3")],
        [("x-forwarded-for", STRANGER), ("forwarded", "nonsense")],
    ],
)
def test_what_a_proxy_does_not_tell_clearly_is_its_own_connection(
    headers: list[tuple[str, str]],
) -> None:
    origin = proxied().origin_of(scope("127.0.0.1", *headers, server="127.0.0.1"))
    assert (origin.address, origin.is_local) == ("127.0.0.1", False)


def test_only_a_declared_proxy_is_believed_and_nobody_passes_it_by() -> None:
    guard = proxied("10.0.0.5", ("10.0.0.7/32",))
    told = ("x-forwarded-for", STRANGER)
    assert guard.origin_of(scope("10.0.0.7", told)).address == STRANGER
    assert guard.origin_of(scope("10.0.0.8", told)).address == "10.0.0.8"
    assert guard.admits(scope("10.0.0.7", told))
    assert not guard.admits(scope("10.0.0.8", told))
    assert not guard.admits(scope("", told))


def test_a_session_of_the_machine_is_local_beside_a_proxy_on_another() -> None:
    guard = proxied("10.0.0.5", ("10.0.0.7/32",))
    local = scope("127.0.0.1", server="127.0.0.1", host="127.0.0.1:7467")
    assert guard.admits(local)
    assert guard.origin_of(local).is_local


def test_a_connection_to_the_machine_from_itself_is_local() -> None:
    assert served().origin_of(scope("127.0.0.1", server="127.0.0.1")).is_local
    assert served().origin_of(scope(HERE)).is_local
    assert not served().origin_of(scope("192.168.1.8")).is_local


def test_what_is_handed_on_to_loopback_is_not_local() -> None:
    assert not served("127.0.0.1", URL).origin_of(scope("127.0.0.1", server="127.0.0.1")).is_local


NEAR = "127.0.0.1"
BESIDE = proxied("10.0.0.5", ("10.0.0.7/32",))
SAYS = ("x-forwarded-for", STRANGER)
DENIES = ("forwarded", "for=10.1.2.3")


@pytest.mark.parametrize(
    ("guard", "peer", "headers", "at_first", "then"),
    [
        # Whoever comes by itself counts for itself from the first byte, whatever it says.
        (served(), STRANGER, [], STRANGER, STRANGER),
        (served(), STRANGER, [("x-forwarded-for", NEAR)], STRANGER, STRANGER),
        (served(), f"::ffff:{STRANGER}", [], STRANGER, STRANGER),
        (served(), "2001:db8:0:1::9", [], "2001:db8:0:1::/64", "2001:db8:0:1::/64"),
        (BESIDE, "10.0.0.8", [SAYS], "10.0.0.8", "10.0.0.8"),
        # The machine itself, and what hands connections on there, has no limit.
        (served(), HERE, [], "", ""),
        (served(), NEAR, [], "", ""),
        (served(NEAR, URL), NEAR, [], "", ""),
        (Guard(Binding(NEAR)), NEAR, [SAYS], "", ""),
        (BESIDE, NEAR, [SAYS], "", ""),
        (served(), "", [], "", ""),
        # A proxy's connection counts for whom it tells, once that is read.
        (proxied(), NEAR, [SAYS], "", STRANGER),
        (proxied(), NEAR, [("x-forwarded-for", "2001:db8::9")], "", "2001:db8::/64"),
        (BESIDE, "10.0.0.7", [SAYS], "", STRANGER),
        (proxied(), NEAR, [("x-forwarded-for", NEAR)], "", ""),
        # Those for whom it tells nothing, or two things, share one place, on loopback too.
        (proxied(), NEAR, [SAYS, DENIES], "", f"behind {NEAR}"),
        (proxied(), NEAR, [("x-forwarded-for", "unknown")], "", f"behind {NEAR}"),
        (proxied(), NEAR, [("forwarded", "for=_hidden")], "", f"behind {NEAR}"),
        (BESIDE, "10.0.0.7", [SAYS, DENIES], "", "behind 10.0.0.7"),
        (BESIDE, "10.0.0.7", [], "", "behind 10.0.0.7"),
        # Without a word from a proxy it is a session of the machine.
        (proxied(), NEAR, [], "", ""),
    ],
)
def test_a_connection_counts_for_one_place(
    guard: Guard, peer: str, headers: list[tuple[str, str]], at_first: str, then: str
) -> None:
    asked = scope(peer, *headers)
    assert guard.counted_as(peer, HERE) == at_first
    assert guard.origin_of(asked).place == then
