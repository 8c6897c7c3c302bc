"""The tool ``mesh_info``: the mesh, this session's place in it, and what was found wrong.

``tools.run`` calls it; it hands on to ``Mesh``.
"""

from typing import TYPE_CHECKING

from claudemesh_mcp.meshresults import MeshInfo
from claudemesh_mcp.tools import tool

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh


@tool(
    title="Look at the mesh and oneself in it",
    read_only=True,
    idempotent=True,
    search_hint="who am I connection broker status resume id security problems",
)
async def mesh_info(mesh: "Mesh") -> MeshInfo:
    """Tell who this session is (`me`), which mesh and broker it talks to, and what is the matter.

    Use it when something does not work: it says whether the broker is connected, how many messages
    wait to be sent or read, and lists under `problems` what was detected and refused, such as a
    certificate or a receipt that did not fit, and under `news` who came and went, and what became
    of MCP servers; `hosted` are those that this session itself runs. `defaults` is what members may
    do to each other's sessions, `grants` what was signed beside that; only your user can change it.
    """
    return await mesh.mesh_info()
