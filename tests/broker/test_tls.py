"""The certificate of a broker: made once and kept, or the user's own, or refused with a remedy."""

import hashlib
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from claudemesh_broker.binding import Binding, Tls
from claudemesh_broker.embedded import load_admin_secret
from claudemesh_broker.reach import address_for_others, main_address
from claudemesh_broker.tls import Shown, certificate_of
from claudemesh_wire.errors import Invalid, MeshError, Unavailable
from tests.support.authority import Authority

AUTO = Binding("192.0.2.7", Tls.AUTO, public_url="https://mesh.example.org:7467")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(0o700)
    return folder


def made(data: Path) -> Shown:
    shown = certificate_of(data, AUTO)
    assert shown is not None
    return shown


def test_a_certificate_is_made_once_and_kept(data: Path) -> None:
    first = made(data)
    assert made(data) == first
    assert {path.name for path in data.iterdir()} == {"broker-tls.crt", "broker-tls.key"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in data.iterdir())


def test_it_names_every_way_to_the_broker_for_ten_years(data: Path) -> None:
    shown = made(data)
    named = {"mesh.example.org", "localhost", "192.0.2.7", "127.0.0.1", "::1"}
    assert named <= set(shown.names)
    assert shown.is_self_made
    assert shown.ends - datetime.now(UTC) > timedelta(days=3650)


def test_a_machine_whose_name_no_certificate_can_say_is_named_by_the_rest(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "büro")
    named = {"mesh.example.org", "localhost", "192.0.2.7", "127.0.0.1", "::1"}
    assert named <= set(made(data).names)


def test_its_pin_is_the_hash_of_what_is_shown_on_the_wire(data: Path) -> None:
    shown = made(data)
    der = ssl.PEM_cert_to_DER_cert(shown.certificate.read_text())
    assert shown.pin == hashlib.sha256(der).digest()


@pytest.mark.parametrize("name", ["broker-tls.crt", "broker-tls.key"])
def test_a_lost_half_is_said_and_never_made_anew(data: Path, name: str) -> None:
    made(data)
    (data / name).unlink()
    left = {path.name: path.read_bytes() for path in data.iterdir()}
    with pytest.raises(Unavailable) as caught:
        certificate_of(data, AUTO)
    assert caught.value.code == "certificate_missing"
    assert caught.value.hint
    assert {path.name: path.read_bytes() for path in data.iterdir()} == left


@pytest.mark.parametrize("name", ["broker-tls.crt", "broker-tls.key"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n\n"])
def test_a_damaged_half_is_said_and_left_as_it_is(data: Path, name: str, content: bytes) -> None:
    made(data)
    (data / name).write_bytes(content)
    with pytest.raises(Unavailable) as caught:
        certificate_of(data, AUTO)
    assert caught.value.code == "certificate_damaged"
    assert (data / name).read_bytes() == content


def test_halves_of_two_certificates_are_damaged(data: Path, tmp_path: Path) -> None:
    made(data)
    other = tmp_path / "other"
    other.mkdir(0o700)
    made(other)
    (data / "broker-tls.key").write_bytes((other / "broker-tls.key").read_bytes())
    with pytest.raises(Unavailable) as caught:
        certificate_of(data, AUTO)
    assert caught.value.code == "certificate_damaged"


def test_a_key_that_others_can_read_is_refused(data: Path) -> None:
    made(data)
    (data / "broker-tls.key").chmod(0o644)
    with pytest.raises(MeshError) as caught:
        certificate_of(data, AUTO)
    assert caught.value.code == "wrong_mode"


def test_a_certificate_of_ones_own_is_shown_as_it_is(data: Path, tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("mesh.example.org", "192.0.2.7")
    shown = certificate_of(data, Binding("192.0.2.7", Tls.OWN, files))
    assert shown is not None
    assert shown.names == ("mesh.example.org", "192.0.2.7")
    assert not shown.is_self_made
    assert list(data.iterdir()) == []


def test_one_that_can_not_be_used_is_refused(data: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("one.example"), authority.issue("other.example")
    for files in ((one[0], other[1]), (one[1], one[0]), (tmp_path / "none", one[1])):
        with pytest.raises(Invalid) as caught:
            certificate_of(data, Binding("192.0.2.7", Tls.OWN, files))
        assert caught.value.code == "certificate_unusable"
        assert caught.value.hint


@pytest.mark.parametrize("tls", [Tls.OFF, Tls.PROXY])
def test_without_tls_none_is_made(data: Path, tls: Tls) -> None:
    assert certificate_of(data, Binding("127.0.0.1", tls)) is None
    assert list(data.iterdir()) == []


def test_the_admin_secret_is_made_once_and_kept(data: Path) -> None:
    secret = load_admin_secret(data)
    assert len(secret) == 32
    assert load_admin_secret(data) == secret
    assert (data / "admin.secret").stat().st_mode & 0o777 == 0o600
    (data / "admin.secret").write_bytes(b"short\n")
    with pytest.raises(Unavailable) as caught:
        load_admin_secret(data)
    assert caught.value.code == "admin_secret_damaged"


def test_a_broker_bound_to_one_address_is_reached_there() -> None:
    assert address_for_others("192.0.2.7") == "192.0.2.7"
    assert address_for_others("0.0.0.0")  # noqa: S104 - a setting
    assert main_address(4) is None or main_address(4) != "0.0.0.0"  # noqa: S104 - it is none
