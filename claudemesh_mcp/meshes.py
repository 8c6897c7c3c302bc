"""The meshes that this home is in: what it calls each, and where each one's broker is.

``identity.py`` chooses one for a process, ``dialling.py`` finds its broker, ``joining.py`` and the
commands around meshes enter and remove them. A mesh is a folder with its log and a small file; the
local mesh, which every home has, has no such file and the embedded broker.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from claudemesh_mcp.home import Home, atomic_write, private_folder, read_private, remove
from claudemesh_mcp.suggestions import did_you_mean
from claudemesh_wire.entries import Entry
from claudemesh_wire.errors import Conflict, Invalid, MeshError, NotFound
from claudemesh_wire.keys import b64, unb64

LOCAL: Final = "local"
FILE_NAME: Final = "mesh.json"
MIN_ID_PREFIX: Final = 12
_OTHER_NAME: Final = "Choose another name; claudemesh mesh list shows those in use."
_MOST_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Place:
    """Where a mesh's broker is, and how it is known again.

    Args:
        url: ``https://HOST:PORT``; plain http on loopback only.
        broker: The id it must prove to have.
        pin: SHA-256 of its self-made certificate; empty when certificate authorities vouch for it.
        charter: The broker's word that it serves the mesh, shown to it should it lose the log.
    """

    url: str
    broker: str
    pin: bytes = b""
    charter: bytes = b""


@dataclass(frozen=True)
class KnownMesh:
    """A mesh that this home is in.

    Args:
        id: The mesh's id.
        name: What this home calls it; unique here.
        founding: Its first membership entry, of which its id is the hash.
        place: Where its broker is; ``None`` for the embedded broker of this home.
    """

    id: str
    name: str
    founding: bytes
    place: Place | None = None


def known_meshes(home: Home) -> list[KnownMesh]:
    """Give the meshes this home has joined or made, by name; the local one is not among them.

    Raises:
        Invalid: ``mesh_damaged``: the file of one of them makes no sense.
    """
    files = sorted(home.meshes.glob(f"mesh_*/{FILE_NAME}"))
    found = [known for file in files if (known := _read(file)) is not None]
    return sorted(found, key=lambda known: known.name)


def founding_file(home: Home) -> Path:
    """Say where the first entry of the home's local mesh is."""
    return home.meshes / f"{LOCAL}.founding"


def is_local(home: Home, wanted: str) -> bool:
    """Tell whether a name or id is that of the home's local mesh."""
    return wanted == LOCAL or (wanted.startswith("mesh_") and local_id(home) == wanted)


def local_id(home: Home) -> str | None:
    """Give the id of the home's local mesh, once there is one."""
    founding = read_private(founding_file(home))
    return None if founding is None else Entry.parse(founding).fields.mesh


def names(home: Home) -> dict[str, str]:
    """Give what this home calls the meshes it is in, by their ids; the local one is among them.

    Raises:
        MeshError: as ``known_meshes``.
    """
    local = local_id(home)
    named = {one.id: one.name for one in known_meshes(home)}
    return named | ({local: LOCAL} if local else {})


def find(home: Home, mesh: str) -> KnownMesh | None:
    """Give a mesh of this home by its id."""
    return _read(_file(home, mesh))


def choose(meshes: Iterable[KnownMesh], wanted: str) -> KnownMesh:
    """Give the mesh that is meant by a name, an id, or the beginning of an id.

    Raises:
        NotFound: ``unknown_mesh``: this home is in no such mesh.
        Conflict: ``ambiguous``: several ids begin so.
    """
    known = list(meshes)
    for one in known:
        if wanted in {one.name, one.id}:
            return one
    begun = [one for one in known if is_called(one, wanted)]
    if len(begun) > 1:
        raise Conflict(
            f"{len(begun)} meshes have ids that begin with {wanted}.",
            "Write more of the id, or a name; claudemesh mesh list shows both.",
            code="ambiguous",
        )
    if begun:
        return begun[0]
    names = [LOCAL, *(one.name for one in known)]
    raise NotFound(
        f"This home is in no mesh called {wanted[:60]!a}.",
        f"{did_you_mean(wanted, names)} claudemesh mesh list shows them all.",
        code="unknown_mesh",
    )


def is_called(mesh: KnownMesh, wanted: str) -> bool:
    """Tell whether a mesh goes by this name, id, or beginning of an id."""
    is_begun = len(wanted) >= MIN_ID_PREFIX and mesh.id.startswith(wanted)
    return wanted == mesh.name or is_begun


def remember(home: Home, mesh: KnownMesh) -> KnownMesh:
    """Keep a mesh, under the home's lock; it replaces what was kept of it.

    Raises:
        Conflict: ``mesh_name_taken``: this home calls another mesh so.
    """
    check_name(home, mesh.name, mesh.id)
    private_folder(home.meshes / mesh.id)
    atomic_write(_file(home, mesh.id), _write(mesh))
    return mesh


def check_name(home: Home, name: str, mesh: str = "", hint: str = _OTHER_NAME) -> None:
    """Refuse what this home calls another mesh than this one, which it need not know yet.

    Raises:
        Conflict: ``mesh_name_taken``.
    """
    others = (one.name for one in known_meshes(home) if one.id != mesh)
    if name in {LOCAL, *others}:
        raise Conflict(f"This home calls another mesh {name}.", hint, code="mesh_name_taken")


def update_place(home: Home, mesh: str, place: Place) -> None:
    """Note where a mesh's broker is from now on, or its charter, if the mesh is still known."""
    with home.lock():
        known = find(home, mesh)
        if known is not None and known.place != place:
            remember(home, replace(known, place=place))


def forget(home: Home, mesh: str) -> bool:
    """Take a mesh off the list; its log and messages stay. Gives whether it was on it."""
    return remove(_file(home, mesh))


def free_name(home: Home, wished: str) -> str:
    """Give a name that this home calls no mesh by yet: the wished one, or it with a number."""
    taken = {LOCAL, *(one.name for one in known_meshes(home))}
    names = (wished if number == 1 else f"{wished}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _file(home: Home, mesh: str) -> Path:
    return home.meshes / mesh / FILE_NAME


def _read(file: Path) -> KnownMesh | None:
    data = read_private(file, _MOST_BYTES)
    if data is None:
        return None
    try:
        told: dict[str, Any] = json.loads(data)
        where = told["broker"]
        place = where and Place(
            str(where["url"]), str(where["id"]), unb64(where["pin"]), unb64(where["charter"])
        )
        return KnownMesh(file.parent.name, str(told["name"]), unb64(told["founding"]), place)
    except (ValueError, LookupError, TypeError, MeshError) as error:
        raise Invalid(
            f"{file} is damaged.",
            "Restore it from a backup, or remove it and join again with an invite.",
            code="mesh_damaged",
        ) from error


def _write(mesh: KnownMesh) -> bytes:
    place = mesh.place
    broker = place and {
        "url": place.url,
        "id": place.broker,
        "pin": b64(place.pin),
        "charter": b64(place.charter),
    }
    said = {"v": 1, "name": mesh.name, "founding": b64(mesh.founding), "broker": broker}
    return json.dumps(said, indent=1).encode() + b"\n"
