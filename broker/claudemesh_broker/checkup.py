"""Looks over a broker's data and says what is wrong, also while it runs; it changes nothing.

``__main__.py`` calls it. Each finding is one line with a state, and a remedy where there is one.
"""

import os
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from claudemesh_broker import embedded
from claudemesh_broker.binding import Tls
from claudemesh_broker.config import BrokerSettings
from claudemesh_broker.datafile import examine_datafile, owner_of_datafile
from claudemesh_broker.embedded import ADMIN_SECRET_FILE, DATABASE_FILE, KEY_FILE
from claudemesh_broker.folders import FolderLock, storage_errors
from claudemesh_broker.tls import certificate_of, self_made
from claudemesh_wire import DATA_VERSION
from claudemesh_wire.errors import Conflict, MeshError, NotFound
from claudemesh_wire.keys import broker_id

_SOON: Final = timedelta(days=30)
_LITTLE_BYTES: Final = 1024 * 1024 * 1024
_TOO_LITTLE_BYTES: Final = 64 * 1024 * 1024
_OTHERS: Final = 0o077
# What tells that a folder is a broker's, and what else a broker leaves in it.
_TELLING: Final = (DATABASE_FILE, KEY_FILE, ADMIN_SECRET_FILE)
_ITS_OWN: Final = (
    *("broker.*", "broker-tls.*", ADMIN_SECRET_FILE, "lock", "run"),
    *("replaced-*", ".restore-*", ".*.tmp*"),
)


class State(StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What was found about one thing.

    Args:
        name: The thing.
        state: How it stands.
        says: What is the case.
        hint: What to do about it, where there is something.
    """

    name: str
    state: State
    says: str
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)


def check_up(settings: BrokerSettings) -> list[Finding]:
    """Look over the data of a broker.

    Args:
        settings: Those that the broker has.

    Raises:
        NotFound: ``no_broker_data``: there is no such folder, or it is not a broker's.
    """
    data = settings.data
    # Whose folder another one is nobody knows: no remedy for a broker's may be told of it.
    with storage_errors(data):
        is_there = data.is_dir()
        is_ours = any((data / name).exists() for name in _TELLING)
    if not is_ours:
        raise NotFound(
            f"{data} holds no file of a broker." if is_there else f"There is no folder {data}.",
            "Name the broker's data folder by --data.",
            code="no_broker_data",
        )
    return [
        _finding(name, look, settings)
        for name, look in (
            ("broker", _lock),
            ("permissions", _permissions),
            ("database", _database),
            ("key", _key),
            ("certificate", _certificate),
            ("admin secret", _admin_secret),
            ("disk", _disk),
        )
    ]


Look = Callable[[BrokerSettings], Finding | str]


def _finding(name: str, look: Look, settings: BrokerSettings) -> Finding:
    try:
        found = look(settings)
    except MeshError as error:
        return Finding(name, State.FAILED, error.reason, error.hint)
    return found if isinstance(found, Finding) else Finding(name, State.OK, found)


def _lock(settings: BrokerSettings) -> str:
    try:
        with FolderLock.take(settings.data, patience_s=0):
            return "does not run"
    except Conflict as error:
        return f"runs, as process {error.details.get('pid', 'unknown')}"


def _permissions(settings: BrokerSettings) -> Finding | str:
    data = settings.data
    unsafe = dict(sorted(_open_to_others(data)))
    if not unsafe:
        return "folder and files are for this user alone"
    names = [str(path) for path in unsafe]
    command = f"chown {os.getuid()}" if any(unsafe.values()) else "chmod go="
    says = f"others than this user may get at {', '.join(names)}"
    return Finding("permissions", State.FAILED, says, f"Close it: {command} {shlex.join(names)}")


def _open_to_others(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Give what others may get at of a broker's folder, and whether it is another user's."""
    if os.name != "posix":
        return
    for path in (folder, *folder.iterdir()):
        if path != folder and not any(fnmatchcase(path.name, one) for one in _ITS_OWN):
            continue
        try:
            found = path.lstat()
        except FileNotFoundError:
            # A broker that runs removes files as well.
            continue
        # A link's own mode says nothing; what the broker reads it refuses to follow.
        is_open = not stat.S_ISLNK(found.st_mode) and found.st_mode & _OTHERS
        is_foreign = found.st_uid != os.getuid()
        if is_foreign or is_open:
            yield path, is_foreign


def _database(settings: BrokerSettings) -> str:
    found = examine_datafile(settings.data / DATABASE_FILE, DATA_VERSION)
    older = (
        "; the next start brings it to this version" if found.data_version < DATA_VERSION else ""
    )
    return f"is whole, of data version {found.data_version}{older}"


def _key(settings: BrokerSettings) -> str:
    key = embedded.read_signing_key(settings.data)
    if key is None:
        raise embedded.missing_key(settings.data)
    # A kill may have come before the database was claimed.
    owner = owner_of_datafile(settings.data / DATABASE_FILE, DATA_VERSION)
    return f"is that of broker {embedded.check_owner(owner or broker_id(key.public), key)}"


def _certificate(settings: BrokerSettings) -> Finding | str:
    # One that was made is looked at even if it is not shown: a later start may use it again.
    is_own = settings.tls is Tls.OWN
    data = settings.data
    shown = certificate_of(data, settings.binding) if is_own else self_made(data)
    if shown is None:
        return "none by these settings: TLS is off, a proxy's, or was never started"
    left = shown.ends - datetime.now(UTC)
    says = f"{shown.certificate.name}, SHA-256 {shown.pin.hex()}, good until {shown.ends:%Y-%m-%d}"
    if left > _SOON:
        return says
    state = State.WARNING if left > timedelta() else State.FAILED
    return Finding("certificate", state, says, "Renew it, and start the broker again.")


def _admin_secret(settings: BrokerSettings) -> str:
    if not (settings.data / ADMIN_SECRET_FILE).exists():
        return "none: the broker was never started for other machines"
    embedded.load_admin_secret(settings.data)
    return f"is in {settings.data / ADMIN_SECRET_FILE}"


def _disk(settings: BrokerSettings) -> Finding | str:
    free = shutil.disk_usage(settings.data).free
    says = f"{free / 1024**3:.1f} GiB are free"
    if free >= _LITTLE_BYTES:
        return says
    state = State.WARNING if free >= _TOO_LITTLE_BYTES else State.FAILED
    return Finding("disk", state, says, "Free some space: what can't be stored is refused.")
