"""Brokers of other machines before a mesh is there: where one is, who it is, its admin's secret.

The commands ``mesh create`` and ``mesh trust`` ask it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home, read_private
from claudemesh_mcp.joining import stranger
from claudemesh_mcp.launcher import Launcher
from claudemesh_mcp.meshes import Place
from claudemesh_mcp.tls import fetch_pin, is_loopback
from claudemesh_wire.errors import Invalid, MeshError, NotFound, Unauthenticated
from claudemesh_wire.keys import KEY_BYTES, unb64
from claudemesh_wire.links import site_of

_PIN_DIGITS: Final = 2 * KEY_BYTES


def read_admin_secret(file: Path) -> bytes:
    """Read the secret by which a broker's admin lets others make meshes there.

    Raises:
        NotFound: there is no such file.
        Forbidden: it is open to other users, or somebody else's.
        Invalid: ``bad_admin_secret``: it holds no secret.
    """
    data = read_private(file.expanduser().absolute(), max_bytes=1024)
    if data is None:
        raise NotFound(f"There is no file {file}.", "Ask the broker's admin for its admin.secret.")
    try:
        secret = unb64(data.decode("ascii").strip())
    except (UnicodeError, MeshError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise Invalid(
            f"{file} holds no admin secret.",
            "It is the file admin.secret in the broker's data folder.",
            code="bad_admin_secret",
        )
    return secret


async def locate(text: str, settings: Settings) -> Place:
    """Find a broker by the URL that it printed, and learn its id.

    Args:
        text: ``https://HOST:PORT``, behind a ``#`` the SHA-256 of its certificate in hex.
        settings: Of this process.

    Raises:
        Invalid: ``bad_url``.
        Unauthenticated: ``certificate_invalid``: the URL has to say which certificate it shows.
        MeshError: it can't be reached, or shows another certificate than that.
    """
    url, pin = _read_url(text)
    if not pin and url.startswith("https:") and is_loopback(url):
        # On its own machine: nobody stands in between.
        pin = await fetch_pin(url)
    try:
        return await _met(Place(url, "", pin), settings)
    except Unauthenticated as error:
        if error.code != "certificate_invalid":
            raise
        own = await _pin_of_own(url, settings)
        if not own:
            raise _unvouched(url, error) from error
        return await _met(Place(url, "", own), settings)


async def _met(place: Place, settings: Settings) -> Place:
    async with stranger(place, settings) as client:
        challenge = await client.meet("")
    return Place(place.url, challenge.broker, place.pin)


async def _pin_of_own(url: str, settings: Settings) -> bytes:
    """Give the certificate's SHA-256 if the broker that this home itself runs shows it there."""
    info = Launcher(Home(settings.paths())).find()
    return info.pin if info and info.pin == await fetch_pin(url) else b""


def _unvouched(url: str, error: MeshError) -> MeshError:
    return Unauthenticated(
        error.reason,
        "Write the URL with the certificate's SHA-256 behind a #, as the broker printed it:"
        f" {url}#SHA256",
        code=error.code,
    )


async def as_shown(place: Place, settings: Settings) -> Place:
    """Give how a broker that is known shows itself now: by which certificate, as which broker.

    The certificate is pinned if it was before, or if no authority vouches for it any more. Of a
    broker that shows another id, what the one before had signed counts no more.

    Args:
        place: Where it is, and how it was known.
        settings: Of this process.

    Raises:
        Unavailable: it can't be reached.
    """
    if place.pin:
        shown = await _met(Place(place.url, "", await fetch_pin(place.url)), settings)
    else:
        try:
            shown = await _met(Place(place.url, ""), settings)
        except Unauthenticated as error:
            if error.code != "certificate_invalid":
                raise
            shown = await _met(Place(place.url, "", await fetch_pin(place.url)), settings)
    return replace(shown, charter=place.charter if shown.broker == place.broker else b"")


def _read_url(text: str) -> tuple[str, bytes]:
    try:
        parts = urlsplit(text.strip())
        url = site_of(parts)
        pin = bytes.fromhex(parts.fragment.replace(":", ""))
    except ValueError as error:
        raise _bad_url(text) from error
    is_plain = not (parts.query or parts.username or parts.path.strip("/"))
    if parts.scheme not in {"http", "https"} or not parts.hostname or not is_plain:
        raise _bad_url(text)
    if len(pin) not in {0, KEY_BYTES}:
        raise _bad_url(text)
    return url, pin


def _bad_url(text: str) -> Invalid:
    return Invalid(
        f"{text[:100]!a} is not the URL of a broker.",
        f"Write https://HOST:PORT, perhaps with # and {_PIN_DIGITS} hex digits, as it printed it.",
        code="bad_url",
    )
