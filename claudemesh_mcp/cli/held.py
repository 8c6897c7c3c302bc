"""What is held in the peers of this home, as the command line tells and lists it.

``messages.py``, ``peers.py`` and ``brokers.py`` tell of it in one line; ``inbox --held`` lists it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from claudemesh_mcp.cli import show

if TYPE_CHECKING:
    from claudemesh_mcp.held import Held
    from claudemesh_mcp.sdk import Mesh

_NAMED: Final = 3


async def find(mesh: "Mesh") -> "list[Held]":
    """Give what is held in all peers of this home in its mesh."""
    from claudemesh_mcp import held

    peer = mesh.peer
    return await anyio.to_thread.run_sync(held.find, peer.home, peer.identity.mesh)


def tell(found: "Sequence[Held]") -> None:
    """Say in one line that something is held, if it is."""
    if not found:
        return
    names = list(dict.fromkeys(one.member_name for one in found))
    shown = names[:_NAMED] + (["others"] if len(names) > _NAMED else [])
    whose = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    count = len(found)
    many, are = ("1 message", "is") if count == 1 else (f"{count} messages", "are")
    show.word(f"{many} from {whose} {are} held: claudemesh inbox --held")


def list_all(found: "Sequence[Held]", *, json: bool) -> None:
    """Print what is held, and how it is let through."""
    if json:
        show.data({"held": [_as_data(one) for one in found]})
        return
    if not found:
        show.word("Nothing is held.")
        return
    titles = ("id", "from", "member", "received", "lacks", "begins")
    show.table(titles, (_cells(one) for one in found))
    show.word("Let them through: claudemesh allow NAME, or one of them: claudemesh allow ID")


def _cells(one: "Held") -> tuple[str, ...]:
    from claudemesh_mcp.results import rfc3339

    at = rfc3339(one.received_ms)
    return (one.id, one.handle, one.member_name, at, one.lacks, one.text)


def _as_data(one: "Held") -> dict[str, Any]:
    from claudemesh_mcp.results import rfc3339

    return {
        "id": one.id,
        "from": one.sender,
        "handle": one.handle,
        "member": one.member_name,
        "member_id": one.member,
        "to": one.peer,
        "received_at": rfc3339(one.received_ms),
        "lacks": one.lacks,
        "begins": one.text,
    }
