"""Brings hooks, monitor and server of one client together: session records, and aliases.

The server writes a record of its client when its peer is open, by ``write``; hooks and monitor
``find`` it by the client's pid. An alias says which peer a Claude session belongs to, so that
``opening.py`` resumes it in a new client. Folders are made on first use; every file is private.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from claudemesh_mcp.plain import TYPE_CHECKING, NamedTuple, suppress
from claudemesh_mcp.routes import jsontext
from claudemesh_mcp.routes.places import Folder
from claudemesh_mcp.routes.processes import Living, replace_file

if TYPE_CHECKING:
    from typing import Any, Final

VERSION: Final = 1
_PEER: Final = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_PEER_LENGTH: Final = 28
_OTHERS_WRITE: Final = 0o022
_RECORD_BYTES: Final = 65_536
_NUMBERS: Final = ("pid", "start", "server")


class Record(NamedTuple):
    """Which peer the session of a client is.

    Args:
        pid: The client's process.
        start: When it started, as ``processes.started`` tells it.
        server: The process of its server, which wrote this.
        peer: The peer's id.
        file: The path of the peer's file.
        session: The id of the client's session when the server was started, or nothing.
        handle: The peer's handle.
        mesh: What the home calls the mesh.
        member: The id of the home's member in it.
    """

    pid: int
    start: int
    server: int
    peer: str
    file: str
    session: str
    handle: str
    mesh: str
    member: str

    @property
    def client(self) -> Living:
        """The client's process."""
        return Living(self.pid, self.start)


def clients(data: Folder) -> str:
    """Give the folder of the records in a home."""
    return os.path.join(os.fspath(data), "run", "clients")


def place(data: Folder, pid: int, kind: str = "json") -> str:
    """Give the path of a client's record, or of what else is kept of it (``monitor``)."""
    return os.path.join(clients(data), f"{pid}.{kind}")


def write(data: Folder, record: Record) -> None:
    """Say which peer a client's session is; of two servers of one client the latest wins.

    Raises:
        OSError: the disk refuses.
    """
    import json

    told = {"v": VERSION, **record._asdict()}
    replace_file(place(data, record.pid), json.dumps(told).encode())


def remove(data: Folder, pid: int, server: int) -> None:
    """Take back what a server said, unless another server of the client has written since."""
    found = _read(place(data, pid))
    if found is not None and found.server == server:
        _unlink(place(data, pid))


def sweep(data: Folder) -> None:
    """Remove what is kept of clients that are gone."""
    gone = dict[int, bool]()
    for name in _names(data):
        pid = _pid(name)
        if pid not in gone:
            record = _read(place(data, pid))
            gone[pid] = not (record.client if record else Living(pid, 0)).is_alive
        if gone[pid]:
            _unlink(os.path.join(clients(data), name))


def find(data: Folder, pid: int) -> Record | None:
    """Give the record of a living client; none while its server has not written it."""
    found = _read(place(data, pid)) if pid and _is_own(data) else None
    return found if found is not None and found.pid == pid and found.client.is_alive else None


def find_by_session(data: Folder, session: str) -> Record | None:
    """Give the record of the client whose peer a session belongs to by its alias."""
    peer = peer_of(data, session) if _is_own(data) else None
    for record in _all(data) if peer else ():
        if record.peer == peer and record.client.is_alive:
            return record
    return None


def of_peer(data: Folder, peer: str) -> Record | None:
    """Give the record of the living client whose session a peer is."""
    return next((one for one in _all(data) if one.peer == peer and one.client.is_alive), None)


def alias(data: Folder, session: str, peer: str) -> None:
    """Say which peer a Claude session belongs to from now on.

    Raises:
        OSError: the disk refuses.
    """
    if session:
        replace_file(_alias(data, session), peer.encode())


def unalias(data: Folder, session: str) -> None:
    """Let a Claude session belong to no peer."""
    if session:
        _unlink(_alias(data, session))


def peer_of(data: Folder, session: str) -> str | None:
    """Give the peer that a Claude session belongs to, if its alias says so."""
    if not session:
        return None
    try:
        with open(_alias(data, session), "rb") as file:
            told = file.read(64).decode("ascii", "replace").strip()
    except OSError:
        return None
    is_peer = len(told) == _PEER_LENGTH and told.startswith("p_") and set(told[2:]) <= _PEER
    return told if is_peer else None


def _is_own(data: Folder) -> bool:
    """Tell whether nobody else can have written what a home says, as every server demands of it.

    Whoever could leave a record there would have a text of his shown as the user's own peer's.
    """
    try:
        found = os.stat(data)
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE


def _alias(data: Folder, session: str) -> str:
    digest = _sha256()(session.encode("utf-8", "surrogatepass")).hexdigest()
    return os.path.join(os.fspath(data), "sessions", "aliases", digest)


def _sha256() -> Callable[[bytes], Any]:
    """Give what `hashlib` has without OpenSSL, which takes as long to load as SQLite."""
    for name in ("_sha2", "_sha256"):  # Since Python 3.12, and before.
        try:
            return __import__(name).sha256
        except (ImportError, AttributeError):
            continue
    from hashlib import sha256

    return sha256


def _all(data: Folder) -> Iterator[Record]:
    for name in _names(data):
        record = _read(os.path.join(clients(data), name)) if name.endswith(".json") else None
        if record is not None:
            yield record


def _names(data: Folder) -> list[str]:
    try:
        return [name for name in os.listdir(clients(data)) if _pid(name)]
    except OSError:
        return []


def _pid(name: str) -> int:
    word = name.partition(".")[0]
    return int(word) if word.isascii() and word.isdigit() else 0


def _read(path: str) -> Record | None:
    """Read a record; a damaged one counts as none, and its server writes it anew when it starts."""
    try:
        with open(path, "rb") as file:
            told: Any = jsontext.read(file.read(_RECORD_BYTES))
        fields: dict[str, Any] = {
            name: (int if name in _NUMBERS else str)(told[name]) for name in Record._fields
        }
        return Record(**fields)
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
