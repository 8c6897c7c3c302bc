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
from claudemesh_wire.errors import Invalid, MeshError, Unavailable
from claudemesh_wire.grants import Grant
from claudemesh_wire.keys import b64, unb64

_VERSION: Final = 1
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Change:
    """What is to be said of capabilities; those not named stay as they are."""

    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()

    def then(self, later: "Change") -> "Change":
        """Give the one change that this and a later one come to."""
        return Change(
            (self.allow - later.deny) | later.allow, (self.deny - later.allow) | later.deny
        )


@dataclass(frozen=True)
class Granted:
    """The latest grant for each other member, and the members that are blocked.

    Args:
        grants: By the member they are for.
        blocked: Whom this home's member blocks.
        untold: What was changed for a member and the broker has not taken yet.
        unblocked: Who was admitted again before the broker's blocks were looked at.
        is_levelled: Whether ``blocked`` is the truth; until then the broker's blocks count as well,
            because a file that was lost may have named more.
    """

    grants: Mapping[str, Grant] = field(default_factory=dict[str, Grant])
    blocked: frozenset[str] = frozenset()
    untold: Mapping[str, Change] = field(default_factory=dict[str, Change])
    unblocked: frozenset[str] = frozenset()
    is_levelled: bool = False

    def seq(self, member: str) -> int:
        """Give the number of the latest grant for a member; 0 when there is none."""
        grant = self.grants.get(member)
        return grant.fields.seq if grant else 0

    def with_grant(self, grant: Grant) -> "Granted":
        """Put a grant in the place of the one for its member."""
        return replace(self, grants={**self.grants, grant.fields.to: grant})

    def with_block(self, member: str, *, blocked: bool) -> "Granted":
        """Block a member, or admit it again."""
        others, unblocked = self.blocked - {member}, self.unblocked - {member}
        if blocked:
            return replace(self, blocked=others | {member}, unblocked=unblocked)
        again = frozenset[str]() if self.is_levelled else frozenset({member})
        return replace(self, blocked=others, unblocked=unblocked | again)

    def with_blocks_of(self, broker: frozenset[str]) -> "Granted":
        """Take over the broker's blocks, once: into a file that never knew them."""
        if self.is_levelled:
            return self
        blocked = self.blocked | (broker - self.unblocked)
        return replace(self, blocked=blocked, unblocked=frozenset(), is_levelled=True)


class GrantFile:
    """The grants of one member in one mesh; another process may change the file at any time.

    Args:
        identity: Whose they are.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._folder: Path = identity.home.meshes / identity.mesh
        self.path: Path = self._folder / "grants.json"
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
            stamp = _stamp(self.path)
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
                atomic_write(self.path, _written(after))
            return after

    def _parsed(self) -> Granted:
        data = read_private(self.path)
        if data is None:
            return Granted()
        try:
            fields: Any = json.loads(data)
            if fields["v"] != _VERSION:
                raise ValueError("another version")
            return self._believed(fields)
        except (ValueError, TypeError, LookupError, AttributeError, MeshError) as error:
            raise Invalid(
                f"{self.path} is damaged; until it is mended other members are let do nothing.",
                "Restore it from a backup, or remove it and grant again.",
                code="grants_damaged",
            ) from error

    def _believed(self, fields: Mapping[str, Any]) -> Granted:
        grants = [Grant.parse(unb64(blob)) for blob in fields["grants"]]
        if not all(self._is_own(grant) for grant in grants):
            raise ValueError("a grant of somebody else")
        untold = {
            str(member): Change(
                frozenset(map(str, said["allow"])), frozenset(map(str, said["deny"]))
            )
            for member, said in fields.get("untold", {}).items()
        }
        return Granted(
            {grant.fields.to: grant for grant in grants},
            frozenset(map(str, fields["blocked"])),
            untold,
            frozenset(map(str, fields.get("unblocked", ()))),
            # The file of an earlier version was the whole truth.
            bool(fields.get("levelled", True)),
        )

    def _is_own(self, grant: Grant) -> bool:
        own = (self._identity.mesh, self._identity.member)
        said = (grant.fields.mesh, grant.fields.by)
        return said == own and grant.is_signed_by(self._identity.key.public)


def _stamp(path: Path) -> Stamp | None:
    """Tell one content of a file from the next, each being a file of its own; `None` for no file.

    Raises:
        Unavailable: ``storage_failed``: that can't be told, and what was read before is no answer.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(
            f"{path}: {error.strerror}.",
            "Check the disk and the permissions of its folder.",
            code="storage_failed",
        ) from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def _written(granted: Granted) -> bytes:
    fields = {
        "v": _VERSION,
        "grants": [b64(grant.blob) for grant in granted.grants.values()],
        "blocked": sorted(granted.blocked),
        "untold": {
            member: {"allow": sorted(said.allow), "deny": sorted(said.deny)}
            for member, said in granted.untold.items()
        },
        "unblocked": sorted(granted.unblocked),
        "levelled": granted.is_levelled,
    }
    return json.dumps(fields).encode()
