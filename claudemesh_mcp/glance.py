"""Leaves for the status line what it shows of the mesh, while somebody looks at it.

``session.py`` runs one beside its mesh; ``statusline.py`` shows what it leaves.
"""

from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from claudemesh_mcp.routes import glances
from claudemesh_mcp.routes.glances import Glance
from claudemesh_wire.errors import MeshError
from claudemesh_wire.meshes import AskMesh

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh

TICK_S: Final = 2.0
_EVERY_S: Final = 10.0
_ASK_S: Final = 5.0


class Glances:
    """What one session's status line is told.

    Args:
        mesh: The session's mesh.
        client: The process of its client.
    """

    def __init__(self, mesh: "Mesh", client: int) -> None:
        self._mesh = mesh
        self._data = mesh.peer.identity.home.data
        self._client = client
        self._left_at = float("-inf")

    async def run(self) -> None:
        """Look again and again, until cancelled; then nothing is shown any more."""
        try:
            while True:
                await self._look()
                await anyio.sleep(TICK_S)
        finally:
            glances.withdraw(self._data, self._client)

    async def _look(self) -> None:
        if not self._mesh.is_connected:
            glances.withdraw(self._data, self._client)
            self._left_at = float("-inf")
            return
        if not glances.is_asked(self._data, self._client):
            return
        if anyio.current_time() - self._left_at < _EVERY_S:
            return
        try:
            client = await self._mesh.ready(0)
            told = await client.call(AskMesh(), _ASK_S)
            name = self._mesh.peer.trust.chain.name
            seen = Glance(name, told.online)
            await anyio.to_thread.run_sync(partial(glances.leave, self._data, self._client, seen))
            self._left_at = anyio.current_time()
        except (MeshError, OSError):
            # The line stays as it is until it is too old to be true.
            return
