"""The servers that come back: what each was registered with, sealed, and who hosts it now.

``restoring.py`` hosts what is kept here; the tools of the model, the command line and doctor look
into it. One sealed file for each, so that a damaged one costs no other. Environment and headers may
be secret and leave this home by no way but to the server itself.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from claudemesh_mcp.home import (
    FileLock,
    create_once,
    private_folder,
    remove,
    sweep_leftovers,
    try_lock,
)
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.wishes import Scope, ServerWish
from claudemesh_mcp.identity import Identity
from claudemesh_mcp.sealedfile import SealedFile
from claudemesh_wire.errors import Conflict, Invalid, MeshError

FOLDER: Final = "mcp-servers"
ENTRY: Final = ".entry"
WAITING: Final = "waiting"
"""Nobody hosts it: nobody whom it fits is here."""
_HOLDER: Final = ".holder"
_LOCK: Final = ".lock"
_VERSION: Final = 1
_ID_DIGITS: Final = 16
Stamp = frozenset[tuple[str, int, int]]


@dataclass(frozen=True)
class Entry:
    """A server that comes back.

    Args:
        wish: What is offered.
        folder: The folder of the project it was registered in.
        peer: The peer that registered it.
        handle: That peer's then.
        at_ms: When.
    """

    wish: ServerWish
    folder: str
    peer: str
    handle: str
    at_ms: int

    @property
    def key(self) -> str:
        """Its name among those of this home: one name may be several servers in several folders."""
        wish = self.wish
        where = self.folder if wish.scope is Scope.PROJECT else ""
        # A folder's name may be no Unicode.
        summed = hashlib.sha256(f"{wish.scope}\0{where}".encode("utf-8", "surrogatepass"))
        return f"{wish.name}-{summed.hexdigest()[:_ID_DIGITS]}"

    def fits(self, folder: str, *, is_resident: bool = False) -> bool:
        """Tell whether a peer hosts it, if no other does.

        Args:
            folder: The folder that the peer works in, by whatever links that is reached.
            is_resident: Whether it is the peer of a broker's machine, and no session.
        """
        scope = self.wish.scope
        if is_resident or scope is Scope.BROKER:
            return is_resident and scope is Scope.BROKER
        return scope is Scope.USER or place_of(self.folder) == place_of(folder)

    def to_json(self) -> bytes:
        """Write it down, secrets too."""
        wish = self.wish
        said = {
            "v": _VERSION,
            "name": wish.name,
            "launch": wish.launch.to_json().decode(),
            "description": wish.description,
            "visible_to": wish.visible_to,
            "tools_allowed": wish.tools_allowed,
            "scope": wish.scope,
            "folder": self.folder,
            "peer": self.peer,
            "handle": self.handle,
            "at": self.at_ms,
        }
        return json.dumps(said).encode()

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError, TypeError, LookupError, Invalid: it wrote something else.
        """
        said: dict[str, Any] = json.loads(text)
        if said["v"] != _VERSION:
            raise ValueError("another version")
        allowed = said["tools_allowed"]
        wish = ServerWish(
            name=said["name"],
            launch=Launch.from_json(said["launch"].encode()),
            description=said["description"],
            visible_to=tuple(said["visible_to"]),
            tools_allowed=None if allowed is None else tuple(allowed),
            persistent=True,
            scope=Scope(said["scope"]),
        )
        return cls(wish, said["folder"], said["peer"], said["handle"], said["at"])


def place_of(folder: str) -> str:
    """Give a folder as it is kept and compared: without links, or a case that does not count."""
    return os.path.normcase(os.path.realpath(folder))


@dataclass(frozen=True)
class Holder:
    """Who hosts a server, or did so last, and how that goes.

    Args:
        peer: The peer.
        handle: Its handle.
        state: A ``keeping.State``, or ``refused`` by the broker.
        since_ms: Since when it is so.
        why: What went wrong last; empty while nothing has.
        late: Other peers by which the mesh may still know the server.
    """

    peer: str
    handle: str
    state: str
    since_ms: int
    why: str = ""
    late: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read what was noted; raises ``ValueError``, ``TypeError`` or ``LookupError``."""
        said: dict[str, Any] = json.loads(text)
        late = tuple[str, ...](said.pop("late"))
        return cls(**said, late=late)


@dataclass(frozen=True)
class Status:
    """How it is with a server that comes back.

    Args:
        entry: The server.
        state: As ``Holder`` has it; ``waiting`` while nobody hosts it.
        by: The handle of who hosts it, or did so last; empty if nobody has.
        since_ms: Since when it is so; ``None`` while nobody hosts it.
        why: What went wrong last; empty while nothing has.
    """

    entry: Entry
    state: str
    by: str = ""
    since_ms: int | None = None
    why: str = ""


@dataclass(frozen=True)
class Fault:
    """A file that can't be read: what is in it does not come back, and nothing was changed."""

    path: Path
    error: MeshError


@dataclass(frozen=True)
class Contents:
    """What comes back, by name, and the files that can't be read."""

    entries: Sequence[Entry]
    faults: Sequence[Fault]


class Registry:
    """The servers of one home in one mesh that come back.

    Everything is synchronous: call it in a worker thread.

    Args:
        identity: Who the home is there.
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.folder: Path = folder_of(identity.home.meshes, identity.mesh)
        self._wrapping = identity.wrapping

    def read(self) -> Contents:
        """Give all that is kept."""
        entries: list[Entry] = []
        faults: list[Fault] = []
        for path in sorted(self.folder.glob(f"*{ENTRY}")):
            try:
                entry = self._read(path)
            except MeshError as error:
                faults.append(Fault(path, error))
            else:
                entries += [entry] if entry else []
        return Contents(entries, faults)

    def stamp(self) -> Stamp:
        """Give what is another value whenever an entry came, went or was written anew."""
        found: set[tuple[str, int, int]] = set()
        for path in self.folder.glob(f"*{ENTRY}"):
            with suppress(FileNotFoundError):  # It went a moment ago.
                stat = path.lstat()
                found.add((path.name, stat.st_ino, stat.st_mtime_ns))
        return frozenset(found)

    def add(self, entry: Entry) -> None:
        """Keep a server from now on; who may host it finds it within seconds.

        Raises:
            Conflict: ``name_taken``: one of this name comes back there already.
            MeshError: it can't be written.
        """
        sweep_leftovers(self._made())
        data = SealedFile.seal(entry.to_json(), self._wrapping, _purpose(entry.key))
        if not create_once(self.folder / f"{entry.key}{ENTRY}", data):
            raise taken(entry)

    def has(self, entry: Entry) -> bool:
        """Tell whether one of this name comes back there already, readable or not."""
        return (self.folder / f"{entry.key}{ENTRY}").exists()

    def remove(self, entry: Entry) -> bool:
        """Keep a server no longer; who hosts it ends that within seconds. Gives whether it was."""
        return remove(self.folder / f"{entry.key}{ENTRY}")

    def take(self, key: str) -> FileLock | None:
        """Take the right to host a server, until it is released; ``None`` while another has it."""
        return try_lock(self._made() / f"{key}{_LOCK}")

    def is_held(self, key: str) -> bool:
        """Tell whether somebody hosts a server now."""
        lock = self.take(key)
        if lock is not None:
            lock.release()
        return lock is None

    def note(self, key: str, holder: Holder) -> None:
        """Let others of this home know how it is with a server; called by who has the lock."""
        data = json.dumps(asdict(holder)).encode()
        SealedFile.write(self._note(key), data, self._wrapping, _purpose(key, "holder"))

    def holder(self, key: str) -> Holder | None:
        """Give who hosts a server, or did so last; ``None`` if nobody has, or it can't be told."""
        try:
            data = SealedFile.read(self._note(key), self._wrapping, _purpose(key, "holder"))
            return Holder.parse(data) if data is not None else None
        except (MeshError, ValueError, TypeError, LookupError):
            # The next one replaces it; what is lost is who else the mesh may know the server by.
            return None

    def status(self, entry: Entry) -> Status:
        """Say how it is with a server."""
        holder, is_held = self.holder(entry.key), self.is_held(entry.key)
        if not is_held:
            return Status(entry, WAITING, holder.handle if holder else "")
        if holder is None:
            return Status(entry, "starting")
        return Status(entry, holder.state, holder.handle, holder.since_ms, holder.why)

    def left_over(self) -> list[str]:
        """Give the keys of servers that are kept no more, and that the mesh may still know."""
        known = {path.name.removesuffix(ENTRY) for path in self.folder.glob(f"*{ENTRY}")}
        noted = {path.name.removesuffix(_HOLDER) for path in self.folder.glob(f"*{_HOLDER}")}
        return sorted(noted - known)

    def forget(self, key: str) -> None:
        """Forget who hosted a server that is kept no more."""
        remove(self._note(key))

    def _made(self) -> Path:
        """Give the folder, made on first use; the mesh's may be new as well."""
        private_folder(self.folder.parent)
        return private_folder(self.folder)

    def _note(self, key: str) -> Path:
        return self.folder / f"{key}{_HOLDER}"

    def _read(self, path: Path) -> Entry | None:
        name = path.name.removesuffix(ENTRY)
        data = SealedFile.read(path, self._wrapping, _purpose(name))
        if data is None:
            return None
        try:
            entry = Entry.parse(data)
            if entry.key != name:
                raise ValueError("of another server")
        except (ValueError, TypeError, LookupError, AttributeError, Invalid) as error:
            raise Invalid(
                f"{path} was written by a newer claudemesh, or makes no sense.",
                "Upgrade claudemesh; or remove the file, and add the server again.",
                code="server_unreadable",
            ) from error
        return entry


def folder_of(meshes: Path, mesh: str) -> Path:
    """Say where a home keeps the servers of a mesh that come back; it is made with the first."""
    return meshes / mesh / FOLDER


def name_of(key: str) -> str:
    """Give the name of the server with an ``Entry.key``."""
    return key.rpartition("-")[0]


def taken(entry: Entry) -> Conflict:
    """Say that another server of this name comes back in the same place."""
    return Conflict(
        f"A server {entry.wish.name} comes back there already.",
        f"Take another name, or first: claudemesh mcp-server remove {entry.wish.name}",
        code="name_taken",
    )


def _purpose(name: str, what: str = "entry") -> str:
    return f"mcp server {what} {name}"
