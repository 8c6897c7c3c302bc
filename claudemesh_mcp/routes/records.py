"""Brings hooks, monitor and server of one client together: session records, and aliases.

A server writes a record of its client when its peer is open, by ``write``; hooks and monitor find
those of a client by its pid, with ``of_client``: one for each mesh that it has a server of. An
alias says which peer a Claude session belongs to in a mesh, so that ``resuming.py`` finds it in a
new client. Folders are made on first use; every file is private.
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
_RECORD: Final = ".json"
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
        mesh_id: The mesh's id.
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
    mesh_id: str = ""

    @property
    def client(self) -> Living:
        """The client's process."""
        return Living(self.pid, self.start)


def clients(data: Folder) -> str:
    """Give the folder of the records in a home."""
    return os.path.join(os.fspath(data), "run", "clients")


def place(data: Folder, pid: int, kind: str) -> str:
    """Give the path of what is kept of a client (``monitor``)."""
    return os.path.join(clients(data), f"{pid}.{kind}")


def path_of(data: Folder, record: Record) -> str:
    """Give the path of a record: one for each peer that a client's servers have."""
    return place(data, record.pid, f"{record.peer}{_RECORD}")


def rest(data: Folder, record: Record) -> str:
    """Give the path of the file that says of a turn that it ended, if its peer's file could not."""
    return place(data, record.pid, f"{record.peer}.rest")


def write(data: Folder, record: Record) -> None:
    """Say which peer a client's session is; a client has one for each mesh that it has servers of.

    What an earlier server of the client, in the same mesh, left when it died is removed.

    Raises:
        OSError: the disk refuses.
    """
    import json

    told = {"v": VERSION, **record._asdict()}
    replace_file(path_of(data, record), json.dumps(told).encode())
    for path, other in _of_pid(data, record.pid):
        is_mine = other.mesh_id == record.mesh_id and path != path_of(data, record)
        if is_mine and not Living(other.server, 0).is_alive:
            _unlink(path)


def remove(data: Folder, pid: int, server: int) -> None:
    """Take back what a server said, unless another server of the peer has written since."""
    for path, found in _of_pid(data, pid):
        if found.server == server:
            _unlink(path)


def sweep(data: Folder) -> None:
    """Remove what is kept of clients that are gone."""
    gone = dict[int, bool]()
    for name in _names(data):
        pid = _pid(name)
        if pid not in gone:
            known = {record.client for _, record in _of_pid(data, pid)} or {Living(pid, 0)}
            gone[pid] = not any(client.is_alive for client in known)
        if gone[pid]:
            _unlink(os.path.join(clients(data), name))


def of_client(data: Folder, pid: int) -> list[Record]:
    """Give the records of a living client, one for each peer; none before its servers wrote any."""
    if not pid or not _is_own(data):
        return []
    # By file: what a server of an earlier version has left may be of a peer that is there again.
    found = {record.file: record for _, record in _of_pid(data, pid) if record.pid == pid}
    alive = {client: client.is_alive for client in {one.client for one in found.values()}}
    return [record for record in found.values() if alive[record.client]]


def find(data: Folder, pid: int) -> Record | None:
    """Give the record of a living client, the first if it has several."""
    return next(iter(of_client(data, pid)), None)


def find_by_session(data: Folder, session: str) -> list[Record]:
    """Give the records of the client whose peers a session belongs to by its aliases."""
    if not session or not _is_own(data):
        return []
    return [
        record
        for record in _all(data)
        if peer_of(data, session, record.mesh_id) == record.peer and record.client.is_alive
    ]


def of_peer(data: Folder, peer: str) -> Record | None:
    """Give the record of the living client whose session a peer is."""
    return next((one for one in _all(data) if one.peer == peer and one.client.is_alive), None)


def aliases(data: Folder) -> str:
    """Give the folder of the aliases in a home."""
    return os.path.join(os.fspath(data), "sessions", "aliases")


def alias(data: Folder, session: str, peer: str, mesh: str = "") -> None:
    """Say which peer a Claude session belongs to from now on.

    Args:
        data: The home.
        session: The session.
        peer: The peer.
        mesh: The id of the peer's mesh: a session has a peer in each.

    Raises:
        OSError: the disk refuses.
    """
    if session:
        replace_file(_alias(data, session, mesh), peer.encode())


def unalias(data: Folder, session: str, mesh: str = "") -> None:
    """Let a Claude session belong to no peer of a mesh."""
    for path in _aliases(data, session, mesh):
        _unlink(path)


def peer_of(data: Folder, session: str, mesh: str = "") -> str | None:
    """Give the peer that a Claude session belongs to in a mesh, if its alias says so."""
    for path in _aliases(data, session, mesh):
        try:
            with open(path, "rb") as file:
                told = file.read(64).decode("ascii", "replace").strip()
        except OSError:
            continue
        is_peer = len(told) == _PEER_LENGTH and told.startswith("p_") and set(told[2:]) <= _PEER
        return told if is_peer else None
    return None


def _is_own(data: Folder) -> bool:
    """Tell whether nobody else can have written what a home says, as every server demands of it.

    Whoever could leave a record there would have a text of his shown as the user's own peer's.
    """
    try:
        found = os.stat(data)
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE


def _aliases(data: Folder, session: str, mesh: str) -> list[str]:
    """Give where a session's alias stands: for a mesh, or as an earlier version wrote it."""
    if not session:
        return []
    return [_alias(data, session, one) for one in dict.fromkeys((mesh, ""))]


def _alias(data: Folder, session: str, mesh: str) -> str:
    word = f"{session}\n{mesh}" if mesh else session
    digest = _sha256()(word.encode("utf-8", "surrogatepass")).hexdigest()
    return os.path.join(aliases(data), digest)


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
        record = _read(os.path.join(clients(data), name)) if name.endswith(_RECORD) else None
        if record is not None:
            yield record


def _of_pid(data: Folder, pid: int) -> list[tuple[str, Record]]:
    """Give the records that stand under a pid, with their paths."""
    start = f"{pid}."
    found: list[tuple[str, Record]] = []
    for name in sorted(_names(data)):
        if name.startswith(start) and name.endswith(_RECORD):
            path = os.path.join(clients(data), name)
            record = _read(path)
            # It is part of the names of files.
            if record is not None and os.sep not in record.peer:
                found.append((path, record))
    return found


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
        told.setdefault("mesh_id", "")  # An earlier version wrote none.
        fields: dict[str, Any] = {
            name: (int if name in _NUMBERS else str)(told[name]) for name in Record._fields
        }
        return Record(**fields)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
