"""Copies what makes a broker itself into one file, also while it runs.

``__main__.py`` calls it. The database is copied as it is at one moment: everything that was
accepted before the backup began is in it.
"""

import os
import re
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from claudemesh_broker.archive import NEEDED, OPTIONAL, Manifest, sum_of, write_archive
from claudemesh_broker.datafile import connect_beside, examine_datafile
from claudemesh_broker.embedded import (
    DATABASE_FILE,
    check_owner,
    missing_key,
    read_signing_key,
)
from claudemesh_broker.folders import storage_errors, sync_folder
from claudemesh_broker.leftovers import copy_beside, held_beside, sweep
from claudemesh_broker.sql import storage_failure
from claudemesh_wire import DATA_VERSION
from claudemesh_wire.errors import Conflict, Invalid, NotFound, Unavailable

_DATED: Final = re.compile(r"claudemesh-broker-\d{8}-\d{6}\.tar", re.ASCII)


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
        Unavailable: ``data_corrupt``, ``key_missing``, ``key_damaged``, ``storage_full``,
            ``storage_failed``.
    """
    now_ms = time.time_ns() // 1_000_000
    path = _destination(data, to, now_ms)
    key = read_signing_key(data)
    name = path.name
    sweep(path.parent, _DATED if _DATED.fullmatch(name) else re.compile(re.escape(name)))
    with held_beside(path) as archive, copy_beside(archive) as copy:
        _copy_database(data / DATABASE_FILE, copy)
        broker = examine_datafile(copy, DATA_VERSION).broker
        if key is None:
            raise missing_key(data)
        check_owner(broker, key)
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
