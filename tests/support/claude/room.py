"""A home with a broker, and real Claude Code clients whose sessions are on its mesh.

The fixture of ``tests/claude`` opens a ``Room``; each client in it has a scripted model of its own,
so that a request says by itself whose session made it.
"""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio

from tests.support.claude.client import Claude
from tests.support.claude.model import Model, a_model
from tests.support.claude.script import Rule
from tests.support.live import LIMIT_S, Live, LiveSession, a_moment, alive
from tests.support.shell import Shell


class Room:
    """The clients of one test.

    Args:
        folder: Where their homes are.
        live: The mesh that their sessions meet on.
        models: Ends the models.
    """

    def __init__(self, folder: Path, live: Live, models: ExitStack) -> None:
        self.folder = folder
        self.live = live
        self.clients: list[Claude] = []
        self._models = models

    @property
    def requests(self) -> int:
        """How many requests the models have received."""
        return sum(len(client.model.all) for client in self.clients)

    def claude(self, name: str, *rules: Rule, **settings: str) -> Claude:
        """Make a client whose sessions wish for a handle.

        Args:
            name: The handle.
            rules: The script of its model.
            settings: More variables for the client.
        """
        return self.claude_of(self.live, name, *rules, **settings)

    def claude_of(self, home: Live | Shell, name: str, *rules: Rule, **settings: str) -> Claude:
        """Make a client whose sessions are on another home; see ``claude``."""
        model: Model = self._models.enter_context(a_model(*rules))
        server = home.environment(CLAUDEMESH_NAME=name)
        client = Claude(self.folder / f"claude-{name}", model, server, settings)
        self.clients.append(client)
        return client

    async def present(self, *handles: str) -> None:
        """Wait until another session of the mesh sees these."""
        if not self.live.sessions:
            await self.live.join("watcher")
        watcher = self.live.sessions[0]
        with anyio.fail_after(LIMIT_S):
            for handle in handles:
                while not await _sees(watcher, handle):
                    await a_moment()


async def _sees(watcher: LiveSession, handle: str) -> bool:
    found = await watcher.call("search_peers", query=handle)
    # What is looked for may stand in other fields of other peers.
    return any(row["handle"] == handle for row in found["peers"])


@asynccontextmanager
async def a_room(folder: Path) -> AsyncGenerator[Room]:
    """Open a room; leaving ends all that was started in it."""
    async with alive(folder) as live:
        with ExitStack() as models:
            yield Room(folder, live, models)
