"""Seals files under the wrapping key of a profile, and says why one does not open.

``keystore.py`` finds the wrapping key; ``identity.py`` keeps private keys in sealed files, written
and read through ``home.py``.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from claudemesh_mcp.home import atomic_write, read_private
from claudemesh_wire.errors import Conflict, Invalid

Storage = Literal["explicit", "credential", "keyring", "file"]

KEY_BYTES: Final = 32
FINGERPRINT_BYTES: Final = 16
NEVER_NEW: Final = (
    "Nothing was changed. Bring the key back, or start anew in another folder by CLAUDEMESH_HOME."
)


@dataclass(frozen=True, slots=True)
class WrappingKey:
    """The key under which every key file of this profile is sealed.

    Args:
        key: 32 bytes.
        profile_id: The profile that it belongs to.
        storage: Where it is kept.
        warning: One sentence for the user, when there is something to know; else empty.
    """

    key: bytes = field(repr=False)
    profile_id: str
    storage: Storage
    warning: str = ""

    @property
    def fingerprint(self) -> bytes:
        """Tell this key from another without giving it away."""
        return hashlib.sha256(self.key).digest()[:FINGERPRINT_BYTES]


class SealedFile:
    """A file that only this profile's wrapping key opens: AES-256-GCM with a random nonce.

    The bytes are ``magic(4) | version(1) | fingerprint(16) | nonce(12) | ciphertext and tag``;
    everything before the nonce is authenticated together with the purpose, so that one key file
    can't be put in the place of another.
    """

    MAGIC: Final = b"CMSF"
    VERSION: Final = 1
    _NONCE: Final = 12
    _HEADER: Final = 4 + 1 + FINGERPRINT_BYTES

    @classmethod
    def write(cls, path: Path, plaintext: bytes, wrapping: WrappingKey, purpose: str) -> None:
        """Replace a sealed file, whole or not at all.

        Args:
            path: The file; its folder exists.
            plaintext: What to keep.
            wrapping: The key of this profile.
            purpose: What it is; the same word opens it.

        Raises:
            Unavailable: The disk is full (``storage_full``) or refuses (``storage_failed``).
        """
        atomic_write(path, cls.seal(plaintext, wrapping, purpose))

    @classmethod
    def read(cls, path: Path, wrapping: WrappingKey, purpose: str) -> bytes | None:
        """Open a sealed file.

        Args:
            path: The file.
            wrapping: The key of this profile.
            purpose: The word it was sealed with.

        Returns:
            What was kept, or ``None`` when there is no such file.

        Raises:
            Forbidden: The file is not private (``wrong_owner``, ``wrong_mode``, ``not_a_file``).
            Conflict: Another wrapping key sealed it (``key_mismatch``).
            Invalid: It is damaged, or has another purpose (``key_file_damaged``).
        """
        data = read_private(path)
        return None if data is None else cls.unseal(data, wrapping, purpose, path)

    @classmethod
    def seal(cls, plaintext: bytes, wrapping: WrappingKey, purpose: str) -> bytes:
        """Give the bytes of a sealed file, for a caller that creates it once."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        header = cls.MAGIC + bytes([cls.VERSION]) + wrapping.fingerprint
        nonce = secrets.token_bytes(cls._NONCE)
        sealed = AESGCM(wrapping.key).encrypt(nonce, plaintext, header + purpose.encode())
        return header + nonce + sealed

    @classmethod
    def unseal(cls, data: bytes, wrapping: WrappingKey, purpose: str, path: Path) -> bytes:
        """Open the bytes of a sealed file; ``path`` is for the words of an error."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        header, rest = data[: cls._HEADER], data[cls._HEADER :]
        if len(header) < cls._HEADER or not header.startswith(cls.MAGIC):
            raise damaged(f"{path} is no sealed file of claudemesh.")
        if header[len(cls.MAGIC)] != cls.VERSION:
            raise damaged(f"{path} is damaged, or a newer claudemesh wrote it.")
        if not hmac.compare_digest(header[-FINGERPRINT_BYTES:], wrapping.fingerprint):
            raise Conflict(
                f"{path} was sealed under another wrapping key than this profile's.",
                NEVER_NEW,
                code="key_mismatch",
            )
        nonce, sealed = rest[: cls._NONCE], rest[cls._NONCE :]
        try:
            return AESGCM(wrapping.key).decrypt(nonce, sealed, header + purpose.encode())
        except (InvalidTag, ValueError) as error:
            raise damaged(f"{path} is damaged, or is not the {purpose} file.") from error


def damaged(reason: str) -> Invalid:
    """Say that a key file can't be used as it is, and that nothing replaces it."""
    return Invalid(reason, f"Restore it from a backup. {NEVER_NEW}", code="key_file_damaged")
