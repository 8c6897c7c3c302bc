"""Many sessions that call one server at once."""

from pathlib import Path

import anyio

from claudemesh_mcp.hosting.wishes import ServerWish
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.handshake import Mode
from tests.support.broker import LIMIT_S
from tests.support.ledgers import Ledger, id_of
from tests.support.twin import a_mesh

CALLERS = 50


async def test_fifty_sessions_call_a_server_at_once_and_each_gets_its_own_answer(
    tmp_path: Path,
) -> None:
    ledger, got = Ledger(tmp_path / "ledger"), dict[str, str]()
    names = [f"caller-{number}" for number in range(CALLERS)]

    async def call(name: str, mesh: Mesh) -> None:
        result = await mesh.servers.call("ada/ledger", "append", ledger.held(name))
        got[name] = id_of(result)

    async with a_mesh(tmp_path) as twin:
        ada = await twin.join("ada")
        await ada.servers.offering.register(ServerWish("ledger", ledger.launch))
        meshes = {
            name: await twin.stack.enter_async_context(twin.open(name, Mode.CALL)) for name in names
        }
        for mesh in meshes.values():
            # So many have more to do than a session waits for by itself.
            await mesh.ready(LIMIT_S)
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as tasks:
                for name, mesh in meshes.items():
                    tasks.start_soon(call, name, mesh)
                # None is answered before all run.
                await ledger.until(lambda steps: len(steps) == CALLERS)
                assert got == {}
                ledger.release(CALLERS)
    assert got == {name: name for name in names}
    assert sorted(ledger.lines) == sorted(names)
    ledger.close()
