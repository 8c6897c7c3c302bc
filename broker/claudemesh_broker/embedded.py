"""What stands around a broker's life: its key, where it says it listens, when it ends by itself.

``__main__.py`` calls it before the broker listens, once it does, and when it ends. Sessions find
``run/broker.json``, or in ``run/broker-error.json`` why there is none.
"""

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from claudemesh_broker.folders import (
    create_private,
    private_folder,
    read_private,
    replace_private,
    storage_errors,
)
from claudemesh_broker.sql import Sql
from claudemesh_wire import DATA_VERSION, VERSION
from claudemesh_wire.errors import Conflict, Invalid, MeshError, Unavailable
from claudemesh_wire.keys import KEY_BYTES, SigningKey, b64, broker_id, unb64

KEY_FILE: Final = "broker.key"
ADMIN_SECRET_FILE: Final = "admin.secret"  # noqa: S105 - the name of a file
DATABASE_FILE: Final = "broker.sqlite3"
ANNOUNCEMENT_FILE: Final = "broker.json"
FAILURE_FILE: Final = "broker-error.json"
TOKEN_BYTES: Final = 32


@dataclass(frozen=True)
class Announcement:
    """What a broker that listens says about itself to the sessions of its home.

    Args:
        url: ``http://127.0.0.1:PORT``, or with ``https`` where it speaks TLS.
        data: Its data folder.
        started_ms: When it began to listen.
        key: Its signing key; only the public half is written.
        token: Keys the proof of being local; new at every start.
        pin: SHA-256 of the certificate that is shown at ``url``, if it speaks TLS.
        bind: The address that it listens on.
    """

    url: str
    data: Path
    started_ms: int
    key: SigningKey
    token: bytes = field(repr=False)
    pin: bytes = b""
    bind: str = ""

    @property
    def id(self) -> str:
        """The broker's id."""
        return broker_id(self.key.public)

    def to_json(self) -> bytes:
        """Write it as sessions read it."""
        said: dict[str, Any] = {
            "id": self.id,
            "url": self.url,
            "token": b64(self.token),
            "pid": os.getpid(),
            "version": VERSION,
            "data": str(self.data),
            "data_version": DATA_VERSION,
            "started_ms": self.started_ms,
            "key": b64(self.key.public.raw),
            "pin": b64(self.pin),
            "bind": self.bind,
        }
        return json.dumps(said, indent=1).encode()


def new_token() -> bytes:
    """Give the secret that local sessions prove to know, for one start."""
    return secrets.token_bytes(TOKEN_BYTES)


def load_signing_key(data: Path) -> SigningKey:
    """Give the broker's signing key, made once in its data folder; hold the folder's lock.

    Raises:
        Unavailable: ``key_missing`` or ``key_damaged``: there was a key before. A new one would
            make this another broker, which no session of the home would trust.
    """
    path = private_folder(data) / KEY_FILE
    found = read_signing_key(data)
    if found is not None:
        return found
    _refuse_second_key(data)
    seed = secrets.token_bytes(KEY_BYTES)
    return SigningKey(seed) if create_private(path, seed) else load_signing_key(data)


def read_signing_key(data: Path) -> SigningKey | None:
    """Give the signing key in a broker's data folder, or ``None`` when there is none.

    Raises:
        Unavailable: ``key_damaged``.
    """
    path = data / KEY_FILE
    seed = read_private(path)
    if seed is None:
        return None
    if len(seed) != KEY_BYTES:
        raise Unavailable(
            f"{path} is damaged: it is not {KEY_BYTES} bytes long.",
            "Put a backup in its place.",
            code="key_damaged",
        )
    return SigningKey(seed)


def check_owner(owner: str, key: SigningKey) -> str:
    """Give the id of the broker that a key makes, if a database of that owner is its own.

    Raises:
        Conflict: ``key_changed``: the database belongs to another key.
    """
    mine = broker_id(key.public)
    if owner != mine:
        raise Conflict(
            f"The database belongs to broker {owner}, the key beside it is of {mine}.",
            f"Bring back the {KEY_FILE} that was there; sessions trust that key.",
            code="key_changed",
        )
    return mine


def load_admin_secret(data: Path) -> bytes:
    """Give the secret of those who make meshes from another home, made once in the data folder.

    Raises:
        Unavailable: ``admin_secret_damaged``: it is not what was written there.
    """
    path = private_folder(data) / ADMIN_SECRET_FILE
    create_private(path, f"{b64(secrets.token_bytes(TOKEN_BYTES))}\n".encode())
    try:
        secret = unb64((read_private(path) or b"").decode("ascii").strip())
    except (Invalid, UnicodeDecodeError):
        secret = b""
    if len(secret) != TOKEN_BYTES:
        raise Unavailable(
            f"{path} is damaged.",
            "Put a backup in its place, or move it away: the next start makes a new secret.",
            code="admin_secret_damaged",
        )
    return secret


def _refuse_second_key(data: Path) -> None:
    # The key is made before the database, so a database without it has lost it.
    database = data / DATABASE_FILE
    with storage_errors(database):
        is_used = database.exists() and database.stat().st_size > 0
    if is_used:
        raise missing_key(data)


def missing_key(data: Path) -> Unavailable:
    """Say that the key of a broker's data is not there, though the data is."""
    return Unavailable(
        f"{data / KEY_FILE} is missing, though {DATABASE_FILE} beside it is in use.",
        f"Put a backup in its place, or move {DATABASE_FILE} away to start a new broker.",
        code="key_missing",
    )


def claim_database(sql: Sql, key: SigningKey) -> str:
    """Bind a database to the broker whose key lies beside it; gives the broker's id.

    Raises:
        Conflict: ``key_changed``: the database belongs to another key.
    """
    owner = sql.value("SELECT value FROM meta WHERE key = 'broker_id'")
    if owner is None:
        owner = broker_id(key.public)
        sql.execute("INSERT INTO meta (key, value) VALUES ('broker_id', ?)", owner)
    return check_owner(owner, key)


def announce(run: Path, announcement: Announcement) -> None:
    """Tell sessions where the broker listens, and that no start has failed since."""
    private_folder(run)
    replace_private(run / ANNOUNCEMENT_FILE, announcement.to_json())
    _remove(run / FAILURE_FILE)


def withdraw(run: Path, announcement: Announcement) -> bool:
    """Take the announcement back, if it is still this broker's; gives whether it was."""
    path = run / ANNOUNCEMENT_FILE
    if read_private(path) != announcement.to_json():
        return False
    _remove(path)
    return True


def report_failure(run: Path, error: MeshError) -> None:
    """Leave word why the broker could not start, for whoever tried to start it."""
    private_folder(run)
    said = {"error": {**error.as_dict(), "category": error.category}}
    replace_private(run / FAILURE_FILE, json.dumps(said).encode())


@dataclass(frozen=True)
class Rest:
    """What an embedded broker has to do at the moment.

    Args:
        connections: Sessions that are connected.
        last_activity_ms: When the last of them left, or the broker started.
        next_due_ms: When the next row of its schedule is due for which it stays.
    """

    connections: int
    last_activity_ms: int
    next_due_ms: int | None


def may_end(rest: Rest, now_ms: int, idle_exit_ms: int) -> bool:
    """Tell whether an embedded broker has been idle for long enough, with nothing due soon.

    What is due later is not lost: it is run, overdue, at the next start.
    """
    if rest.connections:
        return False
    is_idle = now_ms - rest.last_activity_ms >= idle_exit_ms
    is_due = rest.next_due_ms is not None and rest.next_due_ms - now_ms < idle_exit_ms
    return is_idle and not is_due


def _remove(path: Path) -> None:
    with storage_errors(path):
        path.unlink(missing_ok=True)
