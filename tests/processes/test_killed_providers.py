"""Sessions that offer a server, and the broker, killed in mid-call; everybody is a process.

The server writes a line for each call that it runs, and is held where a test wants it.
``tests/campaigns/providers.py`` kills at random moments.
"""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup

from claudemesh_mcp.config import Settings
from claudemesh_mcp.line import Line
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from tests.support.ledgers import Ledger, id_of
from tests.support.live import LIMIT_S, LiveSession, a_moment
from tests.support.returning import Returning, returning

NAME = "shop/ledger"


@dataclass
class World:
    """A session that offers a server which comes back, and a program that calls it.

    Args:
        home: Its home.
        ledger: The server.
        session: The session.
        caller: The program.
        outcomes: How calls ended: with the id in the result, or the code of the refusal.
    """

    home: Returning
    ledger: Ledger
    session: LiveSession
    caller: Mesh
    outcomes: list[str] = field(default_factory=list[str])

    async def call(self, call: str, when: str = "") -> None:
        """Call once, perhaps held, and note how it ended."""
        arguments = self.ledger.held(call, when) if when else {"id": call}
        with anyio.fail_after(LIMIT_S):
            try:
                result = await self.caller.servers.call(NAME, "append", arguments)
                self.outcomes.append(id_of(result))
            except MeshError as error:
                self.outcomes.append(f"{error.code} {error.details.get('provider')}")

    async def gives_results_again(self) -> None:
        """Wait until a call is run; nobody does anything for that."""
        with anyio.fail_after(LIMIT_S):
            while True:
                with suppress(MeshError):
                    result = await self.caller.servers.call(NAME, "append", {"id": "later"})
                    assert id_of(result) == "later"
                    return
                await a_moment()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    ledger = Ledger(tmp_path / "ledger")
    async with returning(tmp_path) as home:
        session = await home.join("shop", "1")
        launch = {"command": ledger.launch.command, "args": list(ledger.launch.args)}
        await session.call("register_mcp", name="ledger", **launch, persistent=True)
        settings = Settings.load({"home": home.live.home.data, "keyring": False}, environ={})
        async with Mesh.connect(settings=settings, resume="caller", attach=False) as caller:
            made = World(home, ledger, session, caller)
            # The line between both stands from here on.
            await made.call("first")
            assert made.outcomes.pop() == "first"
            yield made
    ledger.close()


Reach = Callable[[World, TaskGroup], Awaitable[None]]


async def before_the_session_reads_it(world: World, tasks: TaskGroup) -> None:
    """The broker has passed the call on, and it is not read."""
    world.session.signal(signal.SIGSTOP)
    said, send = anyio.Event(), Line.send

    async def telling(line: Line, words: dict[str, object]) -> None:
        await send(line, words)
        said.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Line, "send", telling)
        tasks.start_soon(world.call, "it")
        await said.wait()


async def before_its_line_is_written(world: World, tasks: TaskGroup) -> None:
    tasks.start_soon(world.call, "it", "before")
    await world.ledger.until_it_has("begun it")


async def behind_its_line(world: World, tasks: TaskGroup) -> None:
    tasks.start_soon(world.call, "it", "after")
    await world.ledger.until_it_has("written it")


async def before_its_answer_is_read(world: World, tasks: TaskGroup) -> None:
    """The server is done with it, and the session does not hand its answer on."""
    await behind_its_line(world, tasks)
    world.session.signal(signal.SIGSTOP)
    world.ledger.release()
    await world.ledger.until_it_has("answered it")


@pytest.mark.parametrize(
    ("reach", "runs"),
    [
        (before_the_session_reads_it, 0),
        (before_its_line_is_written, 0),
        (behind_its_line, 1),
        (before_its_answer_is_read, 1),
    ],
)
async def test_a_session_killed_in_mid_call_has_run_it_once_at_most_and_its_server_comes_back(
    reach: Reach, runs: int, world: World
) -> None:
    async with anyio.create_task_group() as tasks:
        await reach(world, tasks)
        await world.session.kill()
    # What is held stays held: nothing but the kill has told the caller.
    assert world.outcomes == [f"outcome_unknown {NAME}"]
    await world.home.join("shop", "1")
    await world.gives_results_again()
    assert world.ledger.lines.count("it") == runs


async def test_a_broker_killed_in_mid_call_ends_the_call_and_nobody_runs_it_again(
    world: World,
) -> None:
    async with anyio.create_task_group() as tasks:
        await before_its_line_is_written(world, tasks)
        world.home.live.kill_broker()
    assert world.outcomes == [f"outcome_unknown {NAME}"]
    world.ledger.release()
    await world.ledger.until_it_has("answered it")
    await world.gives_results_again()
    assert world.ledger.lines.count("it") == 1


async def test_the_server_comes_back_when_broker_and_session_were_killed_in_mid_call(
    world: World,
) -> None:
    async with anyio.create_task_group() as tasks:
        await before_its_line_is_written(world, tasks)
        world.home.live.kill_broker()
        await world.session.kill()
    assert world.outcomes == [f"outcome_unknown {NAME}"]
    await world.home.join("shop", "1")
    await world.gives_results_again()
    assert world.ledger.lines.count("it") == 0
