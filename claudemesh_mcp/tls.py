"""Says how a broker proves over TLS that it is the one: by its pinned certificate, or by a CA.

``connection.py`` asks before it connects and again before it sends anything; ``fetch_pin`` is for
the user who accepts a certificate that changed.
"""

import asyncio
import hashlib
import hmac
import ssl
from ipaddress import ip_address
from urllib.parse import urlsplit

import anyio

from claudemesh_wire.errors import Invalid, MeshError, Unauthenticated, Unavailable


def context_for(url: str, pin: bytes) -> ssl.SSLContext | None:
    """Give what a connection to a broker is secured by; ``None`` for plain http on loopback.

    Args:
        url: The broker's address.
        pin: SHA-256 of the certificate it has to show; without one a CA has to vouch for it.

    Raises:
        Invalid: ``tls_required``: plain http to another machine, or where a certificate is pinned.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        return _unchecked() if pin else ssl.create_default_context()
    if pin or not is_loopback(url):
        raise Invalid(
            f"With http:// others could read what is sent to {url}.",
            "Use its https:// address; the broker's owner runs it with TLS.",
            code="tls_required",
        )
    return None


def check_pin(transport: asyncio.BaseTransport, pin: bytes) -> None:
    """Refuse a broker that shows another certificate than the one that is pinned.

    Args:
        transport: A connection on which nothing was sent yet.
        pin: SHA-256 of the certificate it has to show; without one nothing is checked.

    Raises:
        Unauthenticated: ``certificate_changed``.
    """
    if not pin:
        return
    shown = _pin_of(transport)
    if not hmac.compare_digest(shown, pin):
        raise Unauthenticated(
            f"The broker shows certificate {_short(shown)}, not the one this mesh trusts,"
            f" {_short(pin)}.",
            "If the broker's certificate was renewed on purpose: claudemesh mesh trust NAME",
            code="certificate_changed",
            details={"shown": shown.hex(), "trusted": pin.hex()},
        )


def refused(url: str, error: ssl.SSLCertVerificationError) -> MeshError:
    """Say that no authority vouches for the certificate of a broker."""
    return Unauthenticated(
        f"The certificate of the broker at {url} is not good: {error.verify_message}.",
        "Ask the broker's owner to renew it, or for an invite that pins it; SSL_CERT_FILE names"
        " the certificates of a CA of your own.",
        code="certificate_invalid",
    )


async def fetch_pin(url: str, limit_s: float = 10.0) -> bytes:
    """Give the SHA-256 of the certificate that a broker shows at this moment, whoever it is.

    Args:
        url: Its address, ``https://HOST:PORT``.
        limit_s: How long it is waited for.

    Raises:
        Invalid: ``tls_required``: the address is not of https.
        Unavailable: ``unreachable``: nobody speaks TLS there.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise Invalid(
            f"A broker at {url} shows no certificate.",
            "Use its https:// address.",
            code="tls_required",
        )
    try:
        with anyio.fail_after(limit_s):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 443, ssl=_unchecked()
            )
    except OSError as error:
        raise Unavailable(
            f"Nobody shows a certificate at {url}.",
            "Check the address, and whether the broker runs there.",
            code="unreachable",
        ) from error
    pin = _pin_of(writer.transport)
    writer.transport.abort()
    return pin


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The pin says more than any authority could, so neither name nor issuer is asked for.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _pin_of(transport: asyncio.BaseTransport) -> bytes:
    spoken: ssl.SSLObject = transport.get_extra_info("ssl_object")
    return hashlib.sha256(spoken.getpeercert(binary_form=True) or b"").digest()


def _short(pin: bytes) -> str:
    return f"{pin[:8].hex()}…"


def is_loopback(url: str) -> bool:
    """Tell whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
