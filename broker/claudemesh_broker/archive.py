"""The form of a backup: one tar file with a manifest and the files that make a broker itself.

``backup.py`` writes it and ``restore.py`` reads it. The manifest comes first and names every other
file with its size and SHA-256, so that a backup can be told to be whole before anything is touched.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from claudemesh_broker.binding import CERTIFICATE_FILE, CERTIFICATE_KEY_FILE
from claudemesh_broker.embedded import ADMIN_SECRET_FILE, DATABASE_FILE, KEY_FILE
from claudemesh_broker.folders import FILE_MODE, storage_errors
from claudemesh_wire import DATA_VERSION, VERSION
from claudemesh_wire.errors import Invalid

NEEDED: Final = (DATABASE_FILE, KEY_FILE)
OPTIONAL: Final = (CERTIFICATE_FILE, CERTIFICATE_KEY_FILE, ADMIN_SECRET_FILE)
MEMBERS: Final = (*NEEDED, *OPTIONAL)
_MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_MOST_MANIFEST_BYTES: Final = 65_536
_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """What a backup says about itself.

    Args:
        broker: The id of the broker.
        made_ms: When it was made.
        sums: Size and SHA-256 of each file.
        version: Of the program that made it.
        data_version: Of the database in it.
    """

    broker: str
    made_ms: int
    sums: Mapping[str, tuple[int, str]]
    version: str = VERSION
    data_version: int = DATA_VERSION

    def to_json(self) -> bytes:
        """Write it as it stands in the backup."""
        said = {
            "format": _FORMAT,
            "broker": self.broker,
            "made_ms": self.made_ms,
            "version": self.version,
            "data_version": self.data_version,
            "files": {name: {"bytes": size, "sha256": sha} for name, (size, sha) in self._sorted()},
        }
        return json.dumps(said, indent=1).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read it.

        Raises:
            ValueError, LookupError, TypeError: it is none, or of a form that is not known.
        """
        told: dict[str, Any] = json.loads(data)
        sums = {
            str(name): (int(one["bytes"]), str(one["sha256"]))
            for name, one in told["files"].items()
        }
        if told["format"] != _FORMAT or not set(NEEDED) <= sums.keys() <= set(MEMBERS):
            raise ValueError("its form is not known")
        return cls(
            str(told["broker"]),
            int(told["made_ms"]),
            sums,
            str(told["version"]),
            int(told["data_version"]),
        )

    def _sorted(self) -> list[tuple[str, tuple[int, str]]]:
        return sorted(self.sums.items())


def sum_of(path: Path) -> tuple[int, str]:
    """Give the size and the SHA-256 of a file."""
    with storage_errors(path), path.open("rb") as file:
        sha = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha


def write_archive(file: IO[bytes], manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Write a backup.

    Args:
        file: Where to.
        manifest: Of these files.
        files: Where each of them is.
    """
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        said = manifest.to_json()
        tar.addfile(_member(_MANIFEST, len(said), manifest), io.BytesIO(said))
        for name, path in files.items():
            with path.open("rb") as content:
                tar.addfile(_member(name, manifest.sums[name][0], manifest), content)


def _member(name: str, size_bytes: int, manifest: Manifest) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size_bytes
    member.mode = FILE_MODE
    member.mtime = manifest.made_ms // 1000
    return member


def unpack_archive(archive: Path, folder: Path) -> Manifest:
    """Unpack a backup, and check that every file is the one that was packed.

    Args:
        archive: The backup.
        folder: An empty folder for this user alone.

    Raises:
        Invalid: ``backup_damaged``: it is none, or not whole.
        Unavailable: ``storage_full``, ``storage_failed``.
    """
    with _damage_named(archive), tarfile.open(archive, "r:") as tar:
        members = iter(tar)
        first = _checked(next(members, None), _MANIFEST, _MOST_MANIFEST_BYTES)
        manifest = Manifest.parse(_content(tar, first).read())
        unread = dict(manifest.sums)
        for member in members:
            size, sha = unread.pop(member.name)
            _checked(member, member.name, size)
            _unpack(_content(tar, member), folder / member.name)
            if sum_of(folder / member.name) != (size, sha):
                raise ValueError(f"{member.name} is not what was packed")
        if unread:
            raise ValueError(f"{min(unread)} is missing")
    return manifest


@contextmanager
def _damage_named(archive: Path) -> Generator[None]:
    try:
        with storage_errors(archive):
            yield
    except (tarfile.TarError, ValueError, LookupError, TypeError, EOFError) as error:
        raise Invalid(
            f"{archive} is no whole backup of a broker: {error}.",
            "Nothing was changed. Take another backup.",
            code="backup_damaged",
        ) from error


def _checked(member: tarfile.TarInfo | None, name: str, most_bytes: int) -> tarfile.TarInfo:
    # Links, devices and holes have no place here, and no name leads out of the folder.
    is_plain = member is not None and member.type == tarfile.REGTYPE and not member.issparse()
    if member is None or not is_plain or member.name != name or member.size > most_bytes:
        raise ValueError(f"{name} is not in its place")
    return member


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    if content is None:
        raise ValueError(f"{member.name} is no file")
    return content


def _unpack(content: IO[bytes], path: Path) -> None:
    with path.open("xb") as file:
        path.chmod(FILE_MODE)
        while chunk := content.read(_CHUNK):
            file.write(chunk)
