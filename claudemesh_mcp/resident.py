"""The peer of a broker's machine: hosts the servers of the scope ``broker``, with no session open.

``python -m claudemesh_mcp.resident MESH`` is what ``broker run --host-mcp`` starts beside itself.
Its stdin is a pipe that the broker holds open: when that ends, however it does, so does this.
"""

import sys
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from claudemesh_mcp.config import Settings, keep_plugins_out
from claudemesh_mcp.dialling import running
from claudemesh_mcp.logs import log_to_file
from claudemesh_mcp.opening import RESIDENT, set_up
from claudemesh_mcp.project import host_label
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.address import handle_from
from claudemesh_wire.errors import MeshError
from claudemesh_wire.handshake import Mode

_HANDLE: Final = "host"


async def live(settings: Settings) -> None:
    """Be that peer until stdin ends.

    Raises:
        MeshError: the home can't be used.
    """
    name = settings.name or handle_from(host_label(), otherwise=_HANDLE)
    setup = set_up(settings, RESIDENT, name=name, resume=RESIDENT)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_end_with_stdin, tasks.cancel_scope)
        async with Mesh.over(setup, partial(running, settings), Mode.ATTACH) as mesh:
            await mesh.servers.restore()
            await anyio.sleep_forever()


async def _end_with_stdin(scope: anyio.CancelScope) -> None:
    # In a thread: not every system tells a loop of the end of a pipe.
    await anyio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
    scope.cancel()


def main(arguments: list[str]) -> int:
    """Run it; gives the exit code."""
    keep_plugins_out()
    settings = Settings.load({"mesh": arguments[0] if arguments else None})
    log_to_file(settings.paths().logs)
    try:
        with suppress(KeyboardInterrupt):
            anyio.run(live, settings)
    except MeshError as error:
        sys.stderr.write(f"claudemesh: no MCP server is hosted here: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
