"""How a server is started or reached: what is accepted, what is shown, what is kept."""

import pytest

from claudemesh_mcp.hosting.launch import Launch
from claudemesh_wire.errors import Invalid


@pytest.mark.parametrize(
    "launch",
    [
        Launch(command="npx", args=("-y", "ü"), env={"TOKEN": "s"}, cwd="/tmp"),  # noqa: S108
        Launch(url="https://example.org/mcp?key=s", headers={"Authorization": "Bearer s"}),
        Launch(url="http://127.0.0.1:8000/mcp"),
        Launch(url="http://[::1]:8000/mcp"),
        Launch(url="http://localhost/mcp"),
    ],
)
def test_what_is_written_down_is_read_again(launch: Launch) -> None:
    assert Launch.from_json(launch.to_json()) == launch


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{}", "either a command or a url"),
        (b'{"command":"a","url":"https://b"}', "either a command or a url"),
        (b'{"command":"a","headers":{"a":"b"}}', "headers go with a url"),
        (b'{"command":"a","args":["\\u0000"]}', "NUL"),
        (b'{"command":"a","env":{"A=":"b"}}', "equals sign"),
        (b'{"command":"a","args":"b"}', "no list"),
        (b'{"command":"a","args":[1]}', "no text"),
        (b'{"command":"a","env":[1]}', "objects of texts"),
        (b'{"url":"https://b","args":["c"]}', "go with a command"),
        (b'{"url":"ftp://b"}', "https://"),
        (b'{"url":"https://"}', "https://"),
        (b'{"url":"http://b/mcp"}', "plain http"),
        (b'{"url":"http://127.0.0.1.example.org/mcp"}', "plain http"),
        (b'{"url":"https://user:pass@b"}', "user"),
        (b'{"url":"https://b/ c"}', "escaped"),
        (b'{"url":"https://b:port"}', "url is none"),
        (b'{"url":"https://b","headers":{"a":"b\\r\\nc: d"}}', "character"),
        (b'{"url":"https://b","headers":{"Mcp-Session-Id":"b"}}', "anew"),
        (b'{"url":"https://b","headers":{"Host":"b"}}', "anew"),
        (b"[]", "no object"),
        (b"{", "not JSON"),
        (b'{"command":"' + b"a" * 70_000 + b'"}', "bytes"),
    ],
)
def test_what_could_not_be_started_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(Invalid) as refused:
        Launch.from_json(text)
    assert refused.value.code == "bad_launch"
    assert why in refused.value.reason


def test_nothing_secret_is_shown() -> None:
    local = Launch(command="npx", args=("secret",), env={"A": "secret"})
    remote = Launch(url="https://example.org:8443/secret?k=secret", headers={"A": "secret"})
    assert repr(local) == "Launch('npx')"
    assert repr(remote) == "Launch('https://example.org:8443')"
    assert remote.command_line == "https://example.org:8443"


def test_its_owner_can_see_the_whole_command() -> None:
    assert Launch(command="npx", args=("-y", "a b")).command_line == "npx -y 'a b'"
