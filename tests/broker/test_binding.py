"""Where a broker may listen: what is refused, and what each refusal says to do instead."""

import errno
import socket
from typing import Any

import pytest

from claudemesh_broker import server
from claudemesh_broker.binding import (
    Binding,
    Tls,
    as_public_url,
    as_trusted,
    is_loopback,
    plain_address,
)
from claudemesh_broker.config import BrokerSettings
from claudemesh_wire.errors import Invalid, Unavailable

ANYWHERE = "0.0.0.0"  # noqa: S104 - what is asked for and refused
URL = "https://mesh.example.org"


def settings(**flags: Any) -> BrokerSettings:
    return BrokerSettings.load(flags, {"CLAUDEMESH_HOME": "/nowhere"})


def refused(**flags: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        settings(**flags)
    return caught.value


@pytest.mark.parametrize(
    "flags",
    [
        {"bind": ANYWHERE},
        {"bind": "::"},
        {"bind": "192.168.1.7"},
        {"bind": "192.168.1.7", "tls": "off"},
        {"public_url": URL},
    ],
)
def test_others_are_not_let_in_without_tls(flags: dict[str, str]) -> None:
    error = refused(**flags)
    assert error.code == "tls_required"
    assert f"claudemesh broker run --bind {flags.get('bind', '127.0.0.1')} --tls auto" in error.hint


@pytest.mark.parametrize(
    "flags",
    [
        {"bind": ANYWHERE, "tls": "auto"},
        {"bind": ANYWHERE, "tls_cert": "a.crt", "tls_key": "a.key"},
        {"bind": "10.0.0.5", "tls": "proxy", "public_url": URL},
        {"tls": "proxy", "public_url": URL},
        {"tls": "auto", "public_url": URL},
    ],
)
def test_with_tls_or_behind_a_proxy_they_are(flags: dict[str, str]) -> None:
    assert settings(**flags).binding.is_public


@pytest.mark.parametrize("flags", [{}, {"tls": "auto"}, {"bind": "::1"}, {"bind": "127.0.0.9"}])
def test_on_loopback_a_broker_is_for_its_machine_alone(flags: dict[str, str]) -> None:
    assert not settings(**flags).binding.is_public


def test_files_of_a_certificate_mean_that_it_is_shown() -> None:
    assert settings(tls_cert="a.crt", tls_key="a.key").tls is Tls.OWN


@pytest.mark.parametrize(
    "flags",
    [
        {"tls": "own"},
        {"tls_cert": "a.crt"},
        {"tls_key": "a.key"},
        {"tls": "auto", "tls_cert": "a.crt", "tls_key": "a.key"},
        {"tls": "proxy"},
        {"tls": "perhaps"},
        {"bind": "mesh.example.org"},
        {"proxies": "everybody"},
        {"proxies": 5},
        {"public_url": "http://mesh.example.org", "tls": "auto"},
        {"tls_cert": "a\0b", "tls_key": "a.key"},
        {"tls_cert": "~nobody-of-this-name/a", "tls_key": "a.key"},
    ],
)
def test_what_does_not_go_together_is_refused(flags: dict[str, Any]) -> None:
    error = refused(**flags)
    assert error.code == "config_invalid"
    assert error.hint


@pytest.mark.parametrize(
    "flags", [{"bind": ANYWHERE, "tls": "auto"}, {"tls": "proxy", "public_url": URL}]
)
def test_a_broker_of_a_session_is_for_its_machine_alone(flags: dict[str, str]) -> None:
    error = refused(embedded=True, **flags)
    assert error.code == "not_loopback"
    assert "claudemesh broker run" in error.hint


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://mesh.example.org", URL),
        ("https://Mesh.Example.org/", URL),
        ("https://[2001:db8::1]:7467", "https://[2001:db8::1]:7467"),
    ],
)
def test_a_public_url_is_read_in_one_form(text: str, url: str) -> None:
    assert as_public_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "mesh.example.org",
        "wss://mesh.example.org",
        "https://",
        "https://:7467",
        "https://mesh.example.org:0",
        "https://mesh.example.org:99999",
        "https://me@mesh.example.org",
        "https://mesh.example.org/mesh",
        "https://mesh.example.org?x=1",
        "https://mesh.example.org#x",
        "https://mesh example.org",
        "https://[::1",
        "https://größe.example.org",
        7,
    ],
)
def test_what_is_no_public_url_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="https://HOST"):
        as_public_url(text)


def test_proxies_are_a_text_or_a_list() -> None:
    assert as_trusted("10.0.0.7, 10.1.0.0/16") == ("10.0.0.7/32", "10.1.0.0/16")
    assert as_trusted(["::1"]) == ("::1/128",)


def test_an_address_of_ipv4_in_the_clothes_of_ipv6_is_what_it_is() -> None:
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("::ffff:192.168.1.7")
    assert str(plain_address("::ffff:192.168.1.7")) == "192.168.1.7"
    assert settings(bind="::ffff:127.0.0.1").bind == "127.0.0.1"
    assert refused(bind="::ffff:192.168.1.7").code == "tls_required"


def test_tls_can_be_off_in_the_words_of_a_file() -> None:
    assert settings(tls=False).tls is Tls.OFF
    assert not Binding("127.0.0.1").tls.is_served


@pytest.mark.parametrize("call", ["__init__", "setsockopt"])
def test_a_system_without_that_protocol_is_said_in_our_words(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket.socket, call, fail)
    with pytest.raises(Unavailable) as caught, server.listen("::", 0):
        pass
    assert caught.value.code == "port_unavailable"
    assert caught.value.hint
