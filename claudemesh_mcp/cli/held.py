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
    """Give what is held in all peers of this home, by whichever of its meshes it came."""
    from claudemesh_mcp import held, meshes

    home = chosen.home()
    return await anyio.to_thread.run_sync(lambda: held.find(home).within(meshes.names(home)))


def tell(found: "Found") -> None:
    """Say in one line that something is held, if it is."""
    if found.skipped:
        show.word(f"{len(found.skipped)} session file(s) can't be looked into: claudemesh doctor")
    if found.messages:
        show.word(f"{_summed_up(found)} held: claudemesh inbox --held")


def tell_before_leaving(found: "Found", mesh: str) -> None:
    """Say what will be out of reach once this home is in a mesh no more.

    Args:
        found: What is held in the home.
        mesh: The id of the mesh.
    """
    here = found.within({mesh})
    if here.messages:
        show.word(
            f"{_summed_up(here)} held, and can then be neither read nor let through nor declined:"
            " claudemesh inbox --held"
        )
    if here.skipped:
        show.word(
            f"{len(here.skipped)} session file(s) can't be looked into, and may hold more:"
            " claudemesh doctor"
        )


def _summed_up(found: "Found") -> str:
    count = len(found.messages)
    names = list(dict.fromkeys(one.member_name for one in found.messages))
    shown = names[:_NAMED] + (["others"] if len(names) > _NAMED else [])
    whose = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    many, are = ("1 message", "is") if count == 1 else (f"{count} messages", "are")
    return f"{many} from {whose} {are}"


def list_all(found: "Found", *, json: bool) -> None:
    """Print what is held, and how it is let through."""
    from claudemesh_mcp import meshes

    names = meshes.names(chosen.home())
    if json:
        show.data({"held": [_as_data(one) for one in found.messages], "skipped": found.skipped})
        return
    for sentence in found.skipped:
        show.word(f"Not looked into: {sentence}")
    if not found.messages:
        show.word("Nothing else is held." if found.skipped else "Nothing is held.")
        return
    titles = ("id", "mesh", "from", "member", "received", "lacks", "begins")
    show.table(titles, (_cells(one, names) for one in found.messages))
    for mesh in dict.fromkeys(one.mesh for one in found.messages):
        command = f"claudemesh --mesh {names[mesh]}"
        show.word(f"Let them through: {command} allow NAME, or one of them: {command} allow ID")
        show.word(f"Decline them for good: {command} discard NAME, or {command} discard ID")


def _cells(one: "Held", names: "dict[str, str]") -> tuple[str, ...]:
    from claudemesh_mcp.results import rfc3339

    at = rfc3339(one.received_ms)
    return (one.id, names[one.mesh], one.handle, one.member_name, at, one.lacks, one.text)


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
