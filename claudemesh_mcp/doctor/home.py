"""Checks of the home: settings, folders, space, keys, logs, and the files of its peers.

``doctor/__init__.py`` lists them.
"""

import os
import shlex
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from claudemesh_mcp import held as held_messages
from claudemesh_mcp.config import Paths, Settings, file_telling
from claudemesh_mcp.doctor.finding import Case, Finding, fail, in_thread, ok, skip, warn
from claudemesh_mcp.home import FILE_MODE, FOLDER_MODE, Home
from claudemesh_mcp.keystore import read_profile
from claudemesh_mcp.logs import FILE_NAME as LOG_NAME
from claudemesh_mcp.peerfaults import DAMAGED_HINT
from claudemesh_mcp.peerfile import SCHEMA_VERSION, connect_to_read
from claudemesh_wire.address import is_handle

_OTHERS: Final = 0o077
_MOST_FILES: Final = 50
_MEBI: Final = 1024 * 1024


async def check_settings(case: Case) -> Finding:
    """Look whether the settings make sense, and where each comes from."""
    case.settings, case.origins = await in_thread(case.load)
    if case.settings.off:
        return await in_thread(partial(_switched_off, case.settings))
    name = case.settings.name
    if name is not None and not is_handle(name.strip().lower()):
        return await in_thread(partial(_bad_name, case, name, case.settings))
    told = ", ".join(f"{key} ({origin})" for key, origin in sorted(case.origins.items()))
    return ok(f"Set here: {told}." if told else "All settings have their defaults.")


def _switched_off(settings: Settings) -> Finding:
    file = file_telling("enabled", settings.project_dir)
    if not file:
        return warn("claudemesh is switched off here.", "Start without CLAUDEMESH=off.")
    return warn(
        f"claudemesh is switched off here, by {file}.",
        "Take `enabled` out of that file, or start with CLAUDEMESH=on.",
    )


def _bad_name(case: Case, name: str, settings: Settings) -> Finding:
    origin = file_telling("name", settings.project_dir) or case.origins.get("name", "")
    return fail(
        # In ASCII: a letter of another alphabet may look like the one that is meant.
        f"{name[:60]!a} ({origin}) can't be a handle, so that no session starts with it.",
        "Write one of 1 to 40 of a-z, 0-9, '.', '_' and '-'.",
    )


async def check_folders(case: Case) -> Finding:
    """Look whether nobody else can look into the home."""
    if not case.paths.data.exists():
        return skip(f"There is no home yet; {case.paths.data} is made at the first start.")
    if not case.paths.data.is_dir():
        return fail(
            f"{case.paths.data} is not a folder.",
            "Move it away, or name another home by CLAUDEMESH_HOME.",
        )
    if sys.platform == "win32":  # its rights don't show in these bits
        return skip("On Windows a user's folders are private by inheritance.")
    faults = await in_thread(lambda: list(_open_to_others(case.paths)))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        repair = None if any(one.is_foreign for one in faults) else _closing(case.paths)
        return fail(f"{faults[0].says}{more}", faults[0].remedy, repair)
    return ok(f"{case.paths.data} is open to this user alone.")


@dataclass(frozen=True, slots=True)
class _Open:
    """A folder or file that others than this user may get at.

    Args:
        path: It.
        found: The mode that it has.
        mode: The mode that it should have.
        is_foreign: Whether it belongs to another user.
    """

    path: Path
    found: int
    mode: int
    is_foreign: bool

    @property
    def says(self) -> str:
        """What is the case, in a sentence."""
        if self.is_foreign:
            return f"{self.path} belongs to another user."
        return f"{self.path} is open to other users (mode {self.found:o})."

    @property
    def remedy(self) -> str:
        """The command that puts it right."""
        path = shlex.quote(str(self.path))
        return f"chown {os.getuid()} {path}" if self.is_foreign else f"chmod {self.mode:o} {path}"


def _closing(paths: Paths) -> Callable[[], str]:
    def close() -> str:
        closed = 0
        for fault in list(_open_to_others(paths)):
            fault.path.chmod(fault.mode)
            closed += 1
        return f"closed {closed} folder(s) and file(s) to other users"

    return close


def _open_to_others(paths: Paths) -> Iterable[_Open]:
    folders = (paths.data, paths.broker, paths.run, paths.keys, paths.meshes, paths.sessions)
    inside = ((paths.run, "*"), (paths.broker, "*"), (paths.keys, "*"), (paths.sessions, "*/*"))
    files = [path for folder, pattern in inside for path in folder.glob(pattern)]
    for path in (*folders, paths.logs, *paths.sessions.glob("*"), *files):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        mode = FOLDER_MODE if stat.S_ISDIR(found.st_mode) else FILE_MODE
        is_foreign = found.st_uid != os.getuid()
        if is_foreign or found.st_mode & _OTHERS:
            yield _Open(path, stat.S_IMODE(found.st_mode), mode, is_foreign)


async def check_disk(case: Case) -> Finding:
    """Look how much space is left where messages are kept."""
    folder = next(one for one in (case.paths.data, *case.paths.data.parents) if one.exists())
    free = (await in_thread(lambda: shutil.disk_usage(folder))).free
    if free < case.least_free_bytes:
        return warn(
            f"{free // _MEBI} MiB are free on the disk of {folder};"
            f" {case.least_free_bytes // _MEBI} should be.",
            "Free some space on that disk.",
        )
    return ok(f"{free // _MEBI} MiB are free on the disk of {folder}.")


async def check_keys(case: Case) -> Finding:
    """Look where the key is kept that protects the others, and whether it still opens them."""
    settings = case.settings
    if settings is None:
        return skip("The settings make no sense.")
    home = Home(case.paths)
    profile = await in_thread(lambda: read_profile(home)) if case.paths.data.is_dir() else None
    if profile is None or profile.storage is None:
        return skip("There are no keys yet; they are made at the first start.")
    await in_thread(lambda: _open_keys(home, settings))
    if profile.storage == "file" and settings.keyring:
        return warn(
            "The keys are protected by a file, not by a keyring: who reads this home has them.",
            "Keep the home on an encrypted disk, or say that it is meant so:"
            " claudemesh config set keyring off",
        )
    kept = {"file": "a file, not a keyring", "keyring": "the keyring of this system"}
    return ok(f"The keys open; kept safe by {kept.get(profile.storage, profile.storage)}.")


def _open_keys(home: Home, settings: Settings) -> None:
    from claudemesh_mcp.identity import open_identity

    open_identity(home, settings)


async def check_logs(case: Case) -> Finding:
    """Say where the logs are."""
    return ok(f"{case.paths.logs / LOG_NAME}, and broker.log beside it.")


@dataclass
class _Counted:
    """What the files of all peers hold."""

    files: int = 0
    unread: int = 0
    pending: int = 0
    held: int = 0
    newer: int = 0


async def check_messages(case: Case) -> Finding:
    """Look whether the files of the peers can be read, and count what waits in them."""
    files = await in_thread(lambda: _newest(case.paths.sessions.glob("*/peer.db")))
    if not files:
        return skip("No session has opened here yet.")
    counted = _Counted()
    for file in files[:_MOST_FILES]:
        try:
            await in_thread(partial(_count, file, counted))
        except (sqlite3.DatabaseError, _Damaged) as error:
            return fail(f"{file} can't be read: {error}.", f"{DAMAGED_HINT} It is {file}.")
    if counted.newer:
        return warn(
            f"{counted.newer} files were written by a newer claudemesh.", "Upgrade claudemesh."
        )
    held = f", {counted.held} held" if counted.held else ""
    return ok(
        f"{counted.files} of {len(files)} files of sessions were looked into and are whole:"
        f" {counted.unread} messages unread{held}, {counted.pending} not yet taken by the broker."
    )


class _Damaged(Exception):
    """SQLite found a fault in a file that it could open."""


def _newest(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)


def _count(file: Path, counted: _Counted) -> None:
    with closing(connect_to_read(file)) as sql:
        (version,) = sql.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            counted.newer += 1
            return
        (said,) = sql.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise _Damaged(str(said).replace("\n", " ")[:200])
        counted.files += 1
        if not version:  # made this moment, and without a table yet
            return
        (unread,) = sql.execute("SELECT count(*) FROM inbox WHERE state <> 'seen'").fetchone()
        (pending,) = sql.execute("SELECT count(*) FROM outbox WHERE state = 'waiting'").fetchone()
        held = held_messages.count(sql) if version >= held_messages.FIRST_VERSION else 0
        counted.unread += unread - held
        counted.pending += pending
        counted.held += held
