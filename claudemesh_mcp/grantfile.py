"""What this home's member lets others do in one mesh: the file that is the truth about it.

``granting.py`` writes it before it tells the broker, ``policy.py`` reads it for every message of
another member. The member's root key is in this home alone, so nobody else can have said more; each
grant is verified all the same. A file that can't be read lets nobody do anything.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from claudemesh_mcp.home import atomic_write, file_lock, read_private
from claudemesh_mcp.identity import Identity
from claudemesh_wire.errors import Invalid, MeshError
from claudemesh_wire.grants import Grant
from claudemesh_wire.keys import b64, unb64

_VERSION: Final = 1
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Granted:
    """The latest grant for each other member, and the members that are blocked."""

    grants: Mapping[str, Grant] = field(default_factory=dict[str, Grant])
    blocked: frozenset[str] = frozenset()

    def seq(self, member: str) -> int:
        """Give the number of the latest grant for a member; 0 when there is none."""
        grant = self.grants.get(member)
        return grant.fields.seq if grant else 0

    def with_grant(self, grant: Grant) -> "Granted":
        """Add a grant, unless a later one for that member is here."""
        member = grant.fields.to
        if grant.fields.seq <= self.seq(member):
            return self
        return replace(self, grants={**self.grants, member: grant})


class GrantFile:
    """The grants of one member in one mesh; another process may change the file at any time.

    Args:
        identity: Whose they are.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._folder: Path = identity.home.meshes / identity.mesh
        self._path: Path = self._folder / "grants.json"
        # Asked by the peer file's thread, changed by workers.
        self._lock = threading.Lock()
        self._stamp: Stamp | None = None
        self._read = Granted()

    def read(self) -> Granted:
        """Give what holds now; the file is read again when it was changed.

        Raises:
            Invalid: ``grants_damaged``.
            MeshError: it can't be read, or is open to others.
        """
        with self._lock:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._read, self._stamp = self._parsed(), stamp
            return self._read

    def change(self, change: Callable[[Granted], Granted]) -> Granted:
        """Change it, whole, while no other process does; gives what holds then.

        Raises:
            MeshError: as ``read``, and when it can't be written.
        """
        with file_lock(self._folder / "grants.lock"):
            before = self.read()
            after = change(before)
            if after != before:
                atomic_write(self._path, _written(after))
            return after

    def _parsed(self) -> Granted:
        data = read_private(self._path)
        if data is None:
            return Granted()
        try:
            fields: Any = json.loads(data)
            if fields["v"] != _VERSION:
                raise ValueError("another version")
            grants = [Grant.parse(unb64(blob)) for blob in fields["grants"]]
            if not all(self._is_own(grant) for grant in grants):
                raise ValueError("a grant of somebody else")
            by_member = {grant.fields.to: grant for grant in grants}
            return Granted(by_member, frozenset(map(str, fields["blocked"])))
        except (ValueError, TypeError, LookupError, MeshError) as error:
            raise Invalid(
                f"{self._path} is damaged; until it is mended other members are let do nothing.",
                "Restore it from a backup, or remove it and grant again.",
                code="grants_damaged",
            ) from error

    def _is_own(self, grant: Grant) -> bool:
        own = (self._identity.mesh, self._identity.member)
        said = (grant.fields.mesh, grant.fields.by)
        return said == own and grant.is_signed_by(self._identity.key.public)


def _stamp(path: Path) -> Stamp | None:
    """Tell one content of a file from the next; each is a file of its own."""
    try:
        found = path.lstat()
    except OSError:  # where it matters, reading says what is wrong
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _written(granted: Granted) -> bytes:
    fields = {
        "v": _VERSION,
        "grants": [b64(grant.blob) for grant in granted.grants.values()],
        "blocked": sorted(granted.blocked),
    }
    return json.dumps(fields).encode()
