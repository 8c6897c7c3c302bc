"""Gives the certificate that a broker shows: one it made for itself, or one of the user's own.

``server.py`` asks for it before the broker listens; ``checkup.py`` and ``backup.py`` look at the
same files. A certificate that was made is kept for ever: clients pin it.
"""

import hashlib
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from claudemesh_broker.binding import (
    CERTIFICATE_FILE,
    CERTIFICATE_KEY_FILE,
    Binding,
    Tls,
)
from claudemesh_broker.folders import create_private, private_folder, read_private
from claudemesh_broker.reach import main_address
from claudemesh_wire.errors import Invalid, Unavailable

_YEARS_10: Final = timedelta(days=3652)
_DAY: Final = timedelta(days=1)
_MADE_NEW: Final = (
    f"Put a backup in its place. Without one, move {CERTIFICATE_FILE} and {CERTIFICATE_KEY_FILE}"
    " away: the next start makes new ones, and who joined from elsewhere has to trust them anew."
)


@dataclass(frozen=True)
class Shown:
    """A certificate that the broker shows to whoever connects.

    Args:
        certificate: The file it is in, with the chain behind it.
        key: The file of its key.
        pin: SHA-256 of the certificate itself.
        names: The names and addresses that it is for.
        ends: Until when it is good.
        is_self_made: Nobody but the pin vouches for it.
    """

    certificate: Path
    key: Path
    pin: bytes
    names: tuple[str, ...]
    ends: datetime
    is_self_made: bool


def certificate_of(data: Path, binding: Binding) -> Shown | None:
    """Give the certificate that a broker shows, made once if it makes its own; else ``None``.

    Args:
        data: The data folder; hold its lock.
        binding: Where the broker listens, and by what certificate.

    Raises:
        Unavailable: ``certificate_missing`` or ``certificate_damaged``: there was one before. A new
            one would be refused by everybody who pinned it.
        Invalid: ``certificate_unusable``: the user's own can't be read or is not its key's.
    """
    if binding.tls is Tls.AUTO:
        return self_made(data) or _make(data, binding)
    certificate, key = binding.files
    if binding.tls is not Tls.OWN or certificate is None or key is None:
        return None
    try:
        return _read(certificate, key)
    except (OSError, ValueError) as error:
        raise Invalid(
            f"The certificate {certificate} with the key {key} can't be used: {error}.",
            "Name a certificate and its own key, both PEM, that this user can read.",
            code="certificate_unusable",
        ) from error


def self_made(data: Path) -> Shown | None:
    """Give the certificate that was made in a data folder, or ``None`` when none was.

    Raises:
        Unavailable: as for ``certificate_of``.
    """
    files = (data / CERTIFICATE_FILE, data / CERTIFICATE_KEY_FILE)
    absent = [file for file in files if read_private(file) is None]
    if len(absent) == len(files):
        return None
    if absent:
        raise Unavailable(
            f"{absent[0]} is missing, though its other half is there.",
            _MADE_NEW,
            code="certificate_missing",
        )
    try:
        return _read(*files)
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"{files[0]} or its key is damaged: {error}.", _MADE_NEW, code="certificate_damaged"
        ) from error


def _read(certificate: Path, key: Path) -> Shown:
    # What the server will do with them, so that it can't fail there.
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_refuse)
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    return Shown(
        certificate=certificate,
        key=key,
        pin=hashlib.sha256(found.public_bytes(serialization.Encoding.DER)).digest(),
        names=_names_in(found),
        ends=found.not_valid_after_utc,
        is_self_made=found.issuer == found.subject,
    )


def _refuse() -> str:
    raise ValueError("the key asks for a passphrase")


def _names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = said.get_values_for_type(x509.IPAddress)
    return (*said.get_values_for_type(x509.DNSName), *(str(one) for one in addresses))


def _make(data: Path, binding: Binding) -> Shown | None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "claudemesh broker")])
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"),
        False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A day early: the clock of who connects may be behind.
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _YEARS_10)
        .add_extension(x509.SubjectAlternativeName(_names_for(binding)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_encipherment=False,
                encipher_only=False,
                decipher_only=False,
                **usage,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    private_folder(data)
    create_private(data / CERTIFICATE_KEY_FILE, secret)
    create_private(data / CERTIFICATE_FILE, made.public_bytes(serialization.Encoding.PEM))
    return self_made(data)


def _names_for(binding: Binding) -> list[x509.GeneralName]:
    """Give every name under which the broker may be reached, each once."""
    bound = ip_address(binding.bind)
    main = [main_address(version) for version in (4, 6)]
    hosts = [urlsplit(binding.public_url).hostname, socket.gethostname(), "localhost", *main]
    hosts += ["127.0.0.1", "::1", None if bound.is_unspecified else str(bound)]
    # A machine may be called what no certificate can say; others reach it by its address.
    return [_general_name(host) for host in dict.fromkeys(hosts) if host and host.isascii()]


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
