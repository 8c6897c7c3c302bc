"""Leaves the line that the status line shows of the mesh, while somebody looks at it.

``session.py`` runs one beside its mesh; ``statusline.py`` shows what it leaves.
"""

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from claudemesh_mcp import openrows
from claudemesh_mcp.cleaning import clean_line
from claudemesh_mcp.routes import glances
from claudemesh_wire.errors import MeshError
from claudemesh_wire.meshes import AskMesh

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh

logger: Final = logging.getLogger(__name__)

TICK_S: Final = 1.0
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
        self._data = mesh.peer.home.data
        self._client = client
        self._online = 0
        self._asked_at = float("-inf")
        self._line = ""
        self._left_at = float("-inf")

    async def run(self) -> None:
        """Look again and again, until cancelled; then nothing is shown any more."""
        try:
            while True:
                try:
                    await self._look()
                except (MeshError, OSError) as error:
                    # The line stays as it is until it is too old to be true.
                    logger.debug("The status line could not be renewed: %s", error)
                await anyio.sleep(TICK_S)
        finally:
            glances.withdraw(self._data, self._client)

    async def _look(self) -> None:
        if not self._mesh.is_connected or self._mesh.is_replaced:
            glances.withdraw(self._data, self._client)
            self._line, self._asked_at = "", float("-inf")
            return
        if not glances.is_asked(self._data, self._client):
            return
        now = anyio.current_time()
        if now - self._asked_at >= _EVERY_S:
            client = await self._mesh.ready(0)
            self._online = (await client.call(AskMesh(), _ASK_S)).online
            self._asked_at = now
        line = await self._shown()
        if line != self._line or now - self._left_at >= _EVERY_S:
            leave = partial(glances.leave, self._data, self._client, line)
            await anyio.to_thread.run_sync(leave)
            self._line, self._left_at = line, now

    async def _shown(self) -> str:
        peer = self._mesh.peer
        now_ms = peer.now_ms()
        unread = await peer.file.read(lambda sql: openrows.count_open(sql, now_ms))
        name = clean_line(peer.trust.chain.name).text
        return f"{name} · {self._online} online · {sum(unread.values())} unread"
