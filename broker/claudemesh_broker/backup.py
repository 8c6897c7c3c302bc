"""Copies what makes a broker itself into one file, also while it runs.

``__main__.py`` calls it. The database is copied as it is at one moment: everything that was
accepted before the backup began is in it.
"""

import os
import secrets
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from claudemesh_broker.archive import NEEDED, OPTIONAL, Manifest, sum_of, write_archive
from claudemesh_broker.datafile import connect_beside, examine_datafile
from claudemesh_broker.embedded import DATABASE_FILE, KEY_FILE
from claudemesh_broker.folders import FILE_MODE, read_private, storage_errors, sync_folder
from claudemesh_broker.sql import storage_failure
from claudemesh_wire import DATA_VERSION
from claudemesh_wire.errors import Conflict, Invalid, NotFound, Unavailable
from claudemesh_wire.keys import KEY_BYTES, SigningKey, broker_id

_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True)
class Backup:
    """A backup that was made: where it is, and what it holds."""

    path: Path
    manifest: Manifest


def back_up(data: Path, to: Path) -> Backup:
    """Write a backup of a broker's data.

    Args:
        data: The data folder of the broker, which may be running.
        to: The file to write, or a folder for a file named after the time. Nothing is replaced.

    Raises:
        Conflict: ``file_exists``; ``key_changed``: database and key are of two brokers.
        NotFound: ``no_broker_data`` or ``no_folder``.
        Invalid: ``in_data_folder``: it would lie where a broker expects its own files.
        Unavailable: ``data_corrupt``, ``key_missing``, ``storage_full``, ``storage_failed``.
    """
    now_ms = time.time_ns() // 1_000_000
    path = _destination(data, to, now_ms)
    key = read_private(data / KEY_FILE)
    with _temporary(path) as copy, _temporary(path) as archive:
        _copy_database(data / DATABASE_FILE, copy)
        broker = examine_datafile(copy, DATA_VERSION).broker
        _check_key(data, key, broker)
        there = [name for name in OPTIONAL if (data / name).exists()]
        files = {name: data / name for name in (*NEEDED, *there)} | {DATABASE_FILE: copy}
        manifest = Manifest(broker, now_ms, {name: sum_of(one) for name, one in files.items()})
        with storage_errors(path):
            with archive.open("wb") as file:
                write_archive(file, manifest, files)
                file.flush()
                os.fsync(file.fileno())
            _publish(archive, path)
    return Backup(path, manifest)


def _destination(data: Path, to: Path, now_ms: int) -> Path:
    path = to.expanduser().absolute()
    if path.is_dir():
        stamp = datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y%m%d-%H%M%S")
        path /= f"claudemesh-broker-{stamp}.tar"
    if not path.parent.is_dir():
        raise NotFound(
            f"There is no folder {path.parent}.", "Make it, or name another.", code="no_folder"
        )
    if path.parent.resolve() == data.resolve():
        raise Invalid(
            f"{path.parent} is the broker's own folder; what happens to it happens to the backup.",
            "Name another folder, best on another disk.",
            code="in_data_folder",
        )
    if path.exists():
        raise _exists(path)
    return path


def _exists(path: Path) -> Conflict:
    return Conflict(
        f"{path} is there already, and a backup replaces nothing.",
        "Name another file, or a folder.",
        code="file_exists",
    )


def _copy_database(source: Path, copy: Path) -> None:
    try:
        with closing(connect_beside(source)) as live, closing(sqlite3.connect(copy)) as made:
            # In one step, which is one moment of the database.
            live.backup(made)
            # A file by itself: a copy of a log belongs to nothing.
            made.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise storage_failure(error) or Unavailable(
            f"{source} can't be copied: {error}.",
            "Run `claudemesh broker check`.",
            code="data_corrupt",
        ) from error


def _check_key(data: Path, key: bytes | None, broker: str) -> None:
    if key is None or len(key) != KEY_BYTES:
        raise Unavailable(
            f"{data / KEY_FILE} is missing or damaged, so this would be no broker's backup.",
            "Put an older backup of it in its place.",
            code="key_missing",
        )
    if broker_id(SigningKey(key).public) != broker:
        raise Conflict(
            f"The database in {data} and the key beside it are of two brokers.",
            f"Bring back the {KEY_FILE} that was there.",
            code="key_changed",
        )


@contextmanager
def _temporary(path: Path) -> Generator[Path]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with storage_errors(path):
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, FILE_MODE))
    try:
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _publish(archive: Path, path: Path) -> None:
    try:
        # Unlike a rename, it refuses to replace.
        os.link(archive, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError:
        # Disks for carrying about know no links.
        archive.rename(path)
    sync_folder(path.parent)
