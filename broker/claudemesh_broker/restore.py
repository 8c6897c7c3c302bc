"""Puts a backup in the place of a broker's data, after all of it was checked.

``__main__.py`` calls it. What was there is kept in a folder beside it. Until the last step the key
is away, and without its key no broker starts on a database: a restore that is cut off is seen.
"""

import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from claudemesh_broker.archive import MEMBERS, Manifest, unpack_archive
from claudemesh_broker.datafile import examine_datafile
from claudemesh_broker.embedded import DATABASE_FILE, KEY_FILE
from claudemesh_broker.folders import (
    FOLDER_MODE,
    FolderLock,
    private_folder,
    storage_errors,
    sync_folder,
)
from claudemesh_wire import DATA_VERSION
from claudemesh_wire.errors import Conflict, Invalid, NotFound
from claudemesh_wire.keys import KEY_BYTES, SigningKey, broker_id

_SIDE_FILES: Final = (f"{DATABASE_FILE}-wal", f"{DATABASE_FILE}-shm")
"""What SQLite keeps beside the database: they belong to the one that was there."""


@dataclass(frozen=True)
class Restored:
    """What was restored, and where that is which was there before."""

    manifest: Manifest
    kept: Path | None


def restore(archive: Path, data: Path, *, force: bool) -> Restored:
    """Make a folder hold what a backup holds.

    Args:
        archive: The backup.
        data: The data folder of a broker that does not run.
        force: Also when there is a broker's data already.

    Raises:
        Conflict: ``data_in_use``: a broker runs on it; ``data_exists``; ``data_newer``;
            ``key_changed``: the backup's key is not that of its database.
        NotFound: ``no_backup``.
        Invalid: ``backup_damaged``.
        Unavailable: ``storage_full``, ``storage_failed``.
    """
    if not archive.exists():
        raise NotFound(
            f"There is no file {archive}.",
            "Name the file that `claudemesh broker backup` wrote.",
            code="no_backup",
        )
    with FolderLock.take(private_folder(data)):
        there = [name for name in (*MEMBERS, *_SIDE_FILES) if (data / name).exists()]
        if there and not force:
            raise Conflict(
                f"{data} holds a broker's data already: {', '.join(there)}.",
                "With --force the backup takes its place; what is there is kept in a folder.",
                code="data_exists",
            )
        with _workplace(data) as unpacked:
            manifest = unpack_archive(archive, unpacked)
            _check(archive, unpacked, manifest)
            with storage_errors(data):
                kept = _put_aside(data, there) if there else None
                _put_in_place(data, unpacked, manifest)
    return Restored(manifest, kept)


@contextmanager
def _workplace(data: Path) -> Generator[Path]:
    # In the data folder, so that moving from here is a rename.
    folder = data / f".restore-{secrets.token_hex(8)}"
    with storage_errors(folder):
        folder.mkdir(FOLDER_MODE)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(archive: Path, unpacked: Path, manifest: Manifest) -> None:
    broker = examine_datafile(unpacked / DATABASE_FILE, DATA_VERSION).broker
    key = (unpacked / KEY_FILE).read_bytes()
    if len(key) != KEY_BYTES:
        raise Invalid(
            f"The key in {archive} is damaged.",
            "Nothing was changed. Take another backup.",
            code="backup_damaged",
        )
    if not broker == manifest.broker == broker_id(SigningKey(key).public):
        raise Conflict(
            f"In {archive}, database and key are of two brokers.",
            "Nothing was changed. Take another backup.",
            code="key_changed",
        )


def _put_aside(data: Path, there: list[str]) -> Path:
    """Move what is there into a folder of its own; the database also stays until it is replaced."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    kept = data / f"replaced-{stamp}-{secrets.token_hex(2)}"
    kept.mkdir(FOLDER_MODE)
    # The key first: from here to the end no broker starts.
    for name in sorted(there, key=lambda one: one != KEY_FILE):
        if name == DATABASE_FILE:
            os.link(data / name, kept / name)
        else:
            (data / name).rename(kept / name)
        sync_folder(data)
    sync_folder(kept)
    return kept


def _put_in_place(data: Path, unpacked: Path, manifest: Manifest) -> None:
    # The database first and the key last: one without the other is refused.
    order = [DATABASE_FILE, *sorted(manifest.sums.keys() - {DATABASE_FILE, KEY_FILE}), KEY_FILE]
    for name in order:
        with (unpacked / name).open("rb") as file:
            os.fsync(file.fileno())
        (unpacked / name).replace(data / name)
        sync_folder(data)
