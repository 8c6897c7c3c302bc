"""The tools ``join`` and ``leave``: who one is with.

``tools.run`` hands checked arguments here; both hand on to ``Mesh``, which tells the broker.
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from claudemesh_mcp.meshresults import GroupResult
from claudemesh_mcp.tools import tool

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh

GroupAddress = Annotated[
    str,
    Field(
        min_length=2,
        max_length=80,
        description="The group as `@name`: a-z, 0-9, `.`, `_`, `-`; 1 to 64 characters.",
    ),
]


@tool(title="Enter a group", idempotent=True, search_hint="join group team channel together")
async def join(
    mesh: "Mesh",
    address: GroupAddress,
    role: Annotated[
        str, Field(max_length=80, description="What this session is in the group, e.g. lead.")
    ] = "",
) -> GroupResult:
    """Enter a group, so that messages to `@name` reach this session too.

    A group exists as long as somebody is in it; entering again changes the role. The session stays
    in its groups when it ends and is resumed. Gives the groups it is in now.
    """
    return await mesh.join(address, role)


@tool(title="Go out of a group", search_hint="leave group team")
async def leave(mesh: "Mesh", address: GroupAddress) -> GroupResult:
    """Go out of a group: messages to `@name` no longer reach this session.

    Gives the groups it is in now; an error when it was not in that group.
    """
    return await mesh.leave(address)
