"""Finds or makes the wrapping key of this profile, and seals files under it.

``identity.py`` calls ``open_wrapping_key`` under the lock of ``home.py`` as the first step of a
start, and keeps every private key in a ``SealedFile``. A profile that once recorded where its
wrapping key is kept looks there and nowhere else: a missing or foreign key is an error with a
remedy, never a new identity.

Source:
    SECURITY §1 (first start) and §4 (keys at rest).
"""

import base64
import binascii
import hmac
import json
import logging
import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast, get_args

from claudemesh_mcp import oskeyring
from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home, atomic_write, create_once, read_private
from claudemesh_mcp.oskeyring import KeyringFailed
from claudemesh_mcp.sealedfile import (
    KEY_BYTES,
    NEVER_NEW,
    SealedFile,
    Storage,
    WrappingKey,
    damaged,
)
from claudemesh_wire.errors import Conflict, Invalid, MeshError, NotFound, Unavailable

__all__ = [
    "CHECKPOINTS",
    "CREDENTIAL_NAME",
    "Profile",
    "SealedFile",
    "Storage",
    "WrappingKey",
    "open_wrapping_key",
    "profile_file",
    "read_profile",
    "wrapping_key_file",
]

Checkpoint = Callable[[str], None]

CREDENTIAL_NAME: Final = "claudemesh-key"

CHECKPOINTS: Final = (
    "profile:before",
    "profile:after",
    "key:before",
    "keyring:set",
    "key:after",
    "record:before",
    "record:after",
)

_RESTORE: Final = f"Restore it from a backup. {NEVER_NEW}"
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a home remembers about its wrapping key, in ``profile.json``.

    Args:
        id: Random; it names the keyring entry.
        storage: Where the wrapping key is kept; ``None`` until a first start got that far.
        fingerprint: Of the wrapping key, hex; empty until then.
    """

    id: str
    storage: Storage | None = None
    fingerprint: str = ""


def _pass(_name: str) -> None:
    """Go on: outside of tests nothing happens between two steps."""


def profile_file(home: Home) -> Path:
    """Say where a home keeps its profile."""
    return home.data / "profile.json"


def wrapping_key_file(home: Home) -> Path:
    """Say where a home without a keyring keeps its wrapping key."""
    return home.keys / "wrapping.key"


def read_profile(home: Home) -> Profile | None:
    """Read what the home remembers.

    Args:
        home: The home.

    Returns:
        Its profile, or ``None`` before the first start.

    Raises:
        Invalid: The file is damaged (``profile_damaged``).
    """
    data = read_private(profile_file(home))
    if data is None:
        return None
    try:
        fields: Any = json.loads(data)
        if not isinstance(fields["id"], str):
            raise TypeError("no profile")
        profile = Profile(fields["id"], fields.get("storage"), fields.get("fingerprint", ""))
        if profile.storage not in (None, *get_args(Storage)):
            raise ValueError("unknown storage")
        bytes.fromhex(profile.fingerprint)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise Invalid(
            f"{profile_file(home)} is damaged, or a newer claudemesh wrote it.",
            f"Upgrade claudemesh, or restore the file from a backup. {NEVER_NEW}",
            code="profile_damaged",
        ) from error
    return profile


def open_wrapping_key(
    home: Home, settings: Settings, checkpoint: Checkpoint = _pass
) -> WrappingKey:
    """Find this profile's wrapping key, or on the first start make and keep one.

    Every step looks first at what is there already, so that a start which was killed at any
    point is finished by the next one.

    Args:
        home: The home, whose lock the caller holds.
        settings: Where the user wants the key.
        checkpoint: Called with a name of ``CHECKPOINTS`` between the steps.

    Returns:
        The key; its ``warning`` says so when it had to go into a file.

    Raises:
        NotFound: The key is not where it was kept (``wrapping_key_missing``), or the profile is
            gone while keys are there (``profile_missing``).
        Conflict: Another key is in its place (``key_mismatch``).
        Invalid: A file holds no key (``key_file_damaged``) or no profile (``profile_damaged``).
        Unavailable: The keyring does not answer (``keyring_unavailable``).
    """
    profile = read_profile(home)
    if profile is not None and profile.storage is not None:
        return _again(home, settings, profile)
    _refuse_orphans(home)
    if profile is None:
        profile = _new_profile(home, checkpoint)
    checkpoint("key:before")
    wrapping = _first(home, settings, profile.id, checkpoint)
    checkpoint("key:after")
    checkpoint("record:before")
    kept = replace(profile, storage=wrapping.storage, fingerprint=wrapping.fingerprint.hex())
    atomic_write(profile_file(home), _encode_profile(kept))
    checkpoint("record:after")
    if wrapping.warning:
        _log.warning("%s", wrapping.warning)
    return wrapping


def _refuse_orphans(home: Home) -> None:
    # Keys come after the profile: with some here this is no first start, but a lost file.
    known = (wrapping_key_file(home).name,) if profile_file(home).exists() else ()
    if any(path.name not in known and path.name[0] != "." for path in home.keys.iterdir()):
        raise NotFound(
            f"{profile_file(home)} is gone, while keys of it are in {home.keys}.",
            _RESTORE,
            code="profile_missing",
        )


def _new_profile(home: Home, checkpoint: Checkpoint) -> Profile:
    checkpoint("profile:before")
    profile = Profile("prof_" + base64.b32encode(secrets.token_bytes(16)).decode().lower()[:26])
    create_once(profile_file(home), _encode_profile(profile))
    checkpoint("profile:after")
    return profile


def _encode_profile(profile: Profile) -> bytes:
    fields: dict[str, str] = {"id": profile.id}
    if profile.storage is not None:
        fields |= {"storage": profile.storage, "fingerprint": profile.fingerprint}
    return json.dumps(fields, indent=2).encode() + b"\n"


def _first(home: Home, settings: Settings, profile_id: str, checkpoint: Checkpoint) -> WrappingKey:
    explicit = settings.key_file
    if explicit is not None:
        remedy = f"Make it: (umask 077; openssl rand -base64 32 > {shlex.quote(str(explicit))})"
        return WrappingKey(_from_key_file(explicit, remedy), profile_id, "explicit")
    credential = _credential_file(settings)
    if credential is not None and credential.exists():
        return WrappingKey(_from_credential(credential), profile_id, "credential")
    # A start that was killed after it had made this file is finished with the same key.
    if settings.keyring and not wrapping_key_file(home).exists():
        key = _into_keyring(profile_id, checkpoint)
        if key is not None:
            return WrappingKey(key, profile_id, "keyring")
    path = wrapping_key_file(home)
    create_once(path, _encode_key(secrets.token_bytes(KEY_BYTES)))
    warning = (
        f"The wrapping key is kept in the file {path}: no keyring of this system could keep it."
        if settings.keyring
        else f"The wrapping key is kept in the file {path}: the keyring is switched off."
    )
    return WrappingKey(_from_key_file(path), profile_id, "file", warning)


def _again(home: Home, settings: Settings, profile: Profile) -> WrappingKey:
    storage = cast("Storage", profile.storage)
    if storage == "keyring":
        key = _from_keyring(profile.id, settings)
    elif storage == "credential":
        key = _from_credential(_credential_file(settings))
    elif storage == "explicit":
        key = _from_key_file(settings.key_file)
    else:
        key = _from_key_file(wrapping_key_file(home))
    warning = ""
    if storage != "explicit" and settings.key_file is not None:
        warning = (
            f"The key file {settings.key_file} is not used: this profile was made with its"
            f" wrapping key in another place ({storage})."
        )
        _log.warning("%s", warning)
    wrapping = WrappingKey(key, profile.id, storage, warning)
    if not hmac.compare_digest(wrapping.fingerprint.hex(), profile.fingerprint):
        raise Conflict(
            f"The wrapping key found ({storage}) is not the one of this profile.",
            NEVER_NEW,
            code="key_mismatch",
        )
    return wrapping


def _missing(reason: str, hint: str) -> NotFound:
    return NotFound(reason, hint, code="wrapping_key_missing")


def _credential_file(settings: Settings) -> Path | None:
    folder = settings.credentials_dir
    return None if folder is None else folder / CREDENTIAL_NAME


def _from_credential(path: Path | None) -> bytes:
    # Owner and mode are systemd's business here: it may give root's file by an access list.
    try:
        if path is not None:
            return _decode_key(path.read_bytes(), str(path))
    except OSError as error:
        _log.info("credential %s: %s", path, error.strerror)
    raise _missing(
        "systemd did not hand over the wrapping key of this profile.",
        f"Start by the unit that has LoadCredential={CREDENTIAL_NAME}:FILE. {NEVER_NEW}",
    )


def _from_key_file(path: Path | None, remedy: str = _RESTORE) -> bytes:
    if path is None:
        raise _missing(
            "The wrapping key of this profile is in a key file, and none was named.",
            f"Name it by CLAUDEMESH_KEY_FILE. {NEVER_NEW}",
        )
    data = read_private(path)
    if data is None:
        raise _missing(f"There is no key file {path}.", remedy)
    return _decode_key(data, str(path))


def _encode_key(key: bytes) -> bytes:
    return base64.urlsafe_b64encode(key) + b"\n"


def _decode_key(data: bytes, origin: str) -> bytes:
    """Read a key as `openssl rand`, with -base64, -hex or neither, writes it."""
    text = data.strip()
    try:
        if len(data) == KEY_BYTES and not data.isascii():
            return data
        if len(text) == 2 * KEY_BYTES:
            return bytes.fromhex(text.decode("ascii"))
        plain = text.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        key = base64.b64decode(plain + b"=", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) == KEY_BYTES:
        return key
    raise damaged(f"{origin} does not hold a wrapping key of {KEY_BYTES} bytes.")


def _into_keyring(profile_id: str, checkpoint: Checkpoint) -> bytes | None:
    try:
        secret = oskeyring.get_secret(profile_id)
        if secret is None:
            secret = _encode_key(secrets.token_bytes(KEY_BYTES)).decode().strip()
            oskeyring.set_secret(profile_id, secret)
            checkpoint("keyring:set")
            # A null backend reports success; only what comes back has been kept.
            if oskeyring.get_secret(profile_id) != secret:
                raise KeyringFailed("it did not keep what it was given")
        return _decode_key(secret.encode(), "The keyring")
    except (KeyringFailed, MeshError) as error:
        _log.info("no keyring: %s", error)
        return None


def _from_keyring(profile_id: str, settings: Settings) -> bytes:
    try:
        if not settings.keyring:
            raise KeyringFailed("it is switched off by CLAUDEMESH_KEYRING")
        secret = oskeyring.get_secret(profile_id)
    except KeyringFailed as error:
        raise Unavailable(
            f"The keyring that holds this profile's wrapping key does not answer: {error}.",
            f"Unlock it, or start from the desktop session it belongs to. {NEVER_NEW}",
            code="keyring_unavailable",
        ) from error
    if secret is None:
        raise _missing(
            f"The keyring has no entry {oskeyring.SERVICE} / {profile_id}.",
            f"Use the keyring in which this profile was made. {NEVER_NEW}",
        )
    return _decode_key(secret.encode(), "The keyring")
