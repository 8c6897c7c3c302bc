"""The broker's settings: flag over variable over file over default, and no nonsense."""

from pathlib import Path

import pytest

from claudemesh_broker.config import DEFAULT_PORT, BrokerSettings, described
from claudemesh_wire.errors import Invalid
from claudemesh_wire.message import Rate


def load(
    home: Path, file: str = "", variables: dict[str, str] | None = None, **flags: object
) -> BrokerSettings:
    environ = {"CLAUDEMESH_HOME": str(home)} | (variables or {})
    if file:
        (home / "broker").mkdir(exist_ok=True)
        (home / "broker" / "broker.toml").write_text(file)
    return BrokerSettings.load(flags, environ)


def refused(*arguments: object, **rest: object) -> Invalid:
    with pytest.raises(Invalid) as caught:
        load(*arguments, **rest)  # pyright: ignore[reportArgumentType]
    assert caught.value.hint
    return caught.value


def test_without_a_word_everything_has_its_default(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.data, settings.run) == (tmp_path / "broker", tmp_path / "run")
    assert (settings.bind, settings.port, settings.embedded) == ("127.0.0.1", DEFAULT_PORT, False)
    assert (settings.lease_ms, settings.queue_messages) == (90_000, 10_000)
    assert settings.allowances()[Rate.AUTH].burst == 40


def test_a_flag_beats_a_variable_beats_the_file(tmp_path: Path) -> None:
    file, variables = "lease_s = 1\nport = 1\nqueue_messages = 7", {"CLAUDEMESH_BROKER_PORT": "2"}
    settings = load(tmp_path, file, variables | {"CLAUDEMESH_BROKER_LEASE_S": "2.5"}, port=3)
    assert (settings.port, settings.lease_s, settings.queue_messages) == (3, 2.5, 7)


def test_the_file_is_looked_for_in_the_data_folder_that_was_named(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "broker.toml").write_text("port = 4711")
    assert load(tmp_path, data=elsewhere).port == 4711


def test_an_embedded_broker_takes_a_free_port_unless_it_is_told_one(tmp_path: Path) -> None:
    assert load(tmp_path, embedded=True).port == 0
    assert load(tmp_path, embedded=True, port=4711).port == 4711


def test_what_was_not_given_leaves_the_default(tmp_path: Path) -> None:
    settings = load(tmp_path, "", {"CLAUDEMESH_BROKER_LEASE_S": ""}, port=None)
    assert (settings.port, settings.lease_s) == (DEFAULT_PORT, 90)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_loopback_host_is_taken(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, bind=host).bind == host.replace("localhost", "127.0.0.1")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "2001:db8::1"])  # noqa: S104
def test_a_host_that_others_reach_is_refused(tmp_path: Path, host: str) -> None:
    assert refused(tmp_path, bind=host).code == "tls_required"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bind", "example.org"),
        ("port", 65_536),
        ("port", -1),
        ("port", "http"),
        ("port", 80.5),
        ("port", True),
        ("lease_s", 0),
        ("lease_s", float("nan")),
        ("lease_s", float("inf")),
        ("lease_s", [90]),
        ("queue_ttl_s", 8 * 24 * 3600),
        ("frame_bytes", 2**30),
        ("embedded", "perhaps"),
        ("log_level", "loud"),
        ("data", ""),
        ("data", "a\0b"),
        ("data", "~nobody-of-this-name/data"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(tmp_path: Path, name: str, value: object) -> None:
    assert refused(tmp_path, **{name: value}).code == "config_invalid"
    assert refused(tmp_path, "", {f"CLAUDEMESH_BROKER_{name.upper()}": str(value) or " "}).code


@pytest.mark.parametrize(
    "file", ["port = ", "port = 'x'", "lease = 90", "data = '/tmp'", "[port]\nx = 1", "\ufffe\x00"]
)
def test_a_broken_file_is_refused(tmp_path: Path, file: str) -> None:
    assert refused(tmp_path, file).code == "config_invalid"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "broker.toml").write_bytes(b"\xff\xfe\x00")
    assert refused(tmp_path).code == "config_invalid"


def test_an_unknown_flag_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    error = refused(tmp_path, leases_s=1)
    assert "lease_s" in error.hint


def test_settings_made_by_hand_are_read_as_strictly(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        BrokerSettings(data=tmp_path, run=tmp_path, port=-1)


def test_without_a_home_the_folders_are_the_platforms(tmp_path: Path) -> None:
    settings = BrokerSettings.load({}, {})
    assert settings.data.parent == settings.run.parent
    assert settings.data.is_absolute()
    assert tmp_path not in settings.data.parents


def test_every_setting_says_what_it_does() -> None:
    assert all(says.endswith(".") for _, says, _ in described())
