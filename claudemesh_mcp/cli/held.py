"""What is held in the peers of this home, as the command line tells and lists it.

``messages.py``, ``peers.py`` and ``brokers.py`` tell of it in one line; ``inbox --held`` lists it.
"""

from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from claudemesh_mcp.cli import chosen, show

if TYPE_CHECKING:
    from claudemesh_mcp.held import Found, Held

_NAMED: Final = 3


async def find() -> "Found":
    """Give what is held in all peers of this home, whatever mesh it came by."""
    from claudemesh_mcp import held
    from claudemesh_mcp.home import Home

    home = Home.open(chosen.settings().paths())
    return await anyio.to_thread.run_sync(held.find, home)


def tell(found: "Found") -> None:
    """Say in one line that something is held, if it is."""
    count = len(found.messages)
    if not count:
        return
    names = list(dict.fromkeys(one.member_name for one in found.messages))
    shown = names[:_NAMED] + (["others"] if len(names) > _NAMED else [])
    whose = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    many, are = ("1 message", "is") if count == 1 else (f"{count} messages", "are")
    show.word(f"{many} from {whose} {are} held: claudemesh inbox --held")


def list_all(found: "Found", *, json: bool) -> None:
    """Print what is held, and how it is let through."""
    names = _mesh_names()
    if json:
        show.data({"held": [_as_data(one) for one in found.messages], "skipped": found.skipped})
        return
    for sentence in found.skipped:
        show.word(f"Not looked into: {sentence}")
    if not found.messages:
        show.word("Nothing is held.")
        return
    titles = ("id", "mesh", "from", "member", "received", "lacks", "begins")
    show.table(titles, (_cells(one, names) for one in found.messages))
    for mesh in dict.fromkeys(one.mesh for one in found.messages):
        command = f"claudemesh --mesh {names.get(mesh, mesh)}"
        show.word(f"Let them through: {command} allow NAME, or one of them: {command} allow ID")
        show.word(f"Decline them for good: {command} discard NAME, or {command} discard ID")


def _mesh_names() -> dict[str, str]:
    """Give what this home calls its meshes, by their ids."""
    from claudemesh_mcp import meshes
    from claudemesh_mcp.home import Home

    home = Home.open(chosen.settings().paths())
    local = meshes.local_id(home)
    named = {one.id: one.name for one in meshes.known_meshes(home)}
    return named | ({local: meshes.LOCAL} if local else {})


def _cells(one: "Held", names: "dict[str, str]") -> tuple[str, ...]:
    from claudemesh_mcp.results import rfc3339

    at, mesh = rfc3339(one.received_ms), names.get(one.mesh, one.mesh)
    return (one.id, mesh, one.handle, one.member_name, at, one.lacks, one.text)


def _as_data(one: "Held") -> dict[str, Any]:
    from claudemesh_mcp.results import rfc3339

    return {
        "id": one.id,
        "mesh": one.mesh,
        "from": one.sender,
        "handle": one.handle,
        "member": one.member_name,
        "member_id": one.member,
        "to": one.peer,
        "received_at": rfc3339(one.received_ms),
        "lacks": one.lacks,
        "begins": one.text,
    }
