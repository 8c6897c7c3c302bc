"""A server that ends is started again, later each time, and how it is can be seen."""

from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from claudemesh_mcp.calling.links import Hooks
from claudemesh_mcp.hosting.backend import Terms
from claudemesh_mcp.hosting.errlog import ErrorLog
from claudemesh_mcp.hosting.flights import Raw
from claudemesh_mcp.hosting.keeping import Condition, Kept, Pace, State, log_of
from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.serving import Runs
from claudemesh_wire.errors import MeshError, Unavailable
from tests.support.backends.found import handmade

BROKEN = Launch(command="no-such-server")


@dataclass
class Watch:
    """A clock that goes on by what is waited for, and ends the test after so many pauses.

    Args:
        most: After so many pauses it stops the server's keeper.
        scope: What is cancelled then.
    """

    most: int
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    now_ms: int = 1_000_000
    pauses: list[float] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    _more: anyio.Event = field(default_factory=anyio.Event)

    def report(self, condition: Condition) -> None:
        self.conditions.append(condition)
        self._more.set()

    async def until(self, state: State, times: int) -> None:
        """Wait until it has been in this state so many times."""
        while sum(one.state is state for one in self.conditions) < times:
            self._more = anyio.Event()
            await self._more.wait()

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if len(self.pauses) == self.most:
            self.scope.cancel()
        self.now_ms += int(seconds * 1000)
        await anyio.lowlevel.checkpoint()

    @property
    def pace(self) -> Pace:
        return Pace(lambda: self.now_ms, self.pause)


async def test_the_pauses_double_up_to_a_minute() -> None:
    watch = Watch(most=9)
    kept = Kept("broken", BROKEN, report=watch.report, pace=watch.pace)
    with anyio.fail_after(60), watch.scope:
        await kept.run(patient=True)
    assert watch.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    failed = [one for one in watch.conditions if one.state is State.FAILED]
    assert {one.since_ms for one in failed} == {1_000_000}
    assert [one.restarts for one in failed] == list(range(9))
    assert "no-such-server" in failed[0].why


async def test_a_first_start_that_fails_says_why_and_is_not_repeated() -> None:
    watch = Watch(most=1)
    kept = Kept("broken", BROKEN, pace=watch.pace)
    with anyio.fail_after(60), pytest.raises(MeshError) as refused:
        await kept.run()
    assert refused.value.code == "command_not_found"
    assert watch.pauses == []


async def test_a_server_that_crashed_serves_again(tmp_path: Path) -> None:
    said, log = tmp_path / "said", log_of(tmp_path / "logs", "p_a", "hand")
    watch = Watch(most=100)
    kept = Kept(
        "hand",
        handmade("handshake", said),
        Terms(errors=log),
        report=watch.report,
        pace=watch.pace,
    )
    crash = {"name": "crashing", "arguments": {}}
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(kept.run)
            for starts in (1, 2, 3):
                await watch.until(State.RUNNING, starts)
                with pytest.raises(MeshError) as lost:
                    await kept.backend.call("tools/call", crash)
                assert lost.value.code == "outcome_unknown"
            tasks.cancel_scope.cancel()
    assert said.read_text("utf-8") == "run\n" * 3
    assert watch.pauses[:2] == [1, 2]
    states = [one.state for one in watch.conditions]
    cycle = [State.STARTING, State.RUNNING, State.FAILED]
    assert states[:8] == (cycle * 3)[:8]
    assert "these are my last words" in watch.conditions[2].why
    assert log.read_text("utf-8").count("last words") >= 2


async def test_a_call_of_a_line_is_told_what_happens_meanwhile() -> None:
    told, seen = list[tuple[str, Raw]](), list[Raw]()

    async def ask(method: str, _: Raw) -> Raw:
        told.append(("ask", {"method": method}))
        return {"result": {"action": "accept"}}

    hooks = Hooks(
        progress=lambda params: told.append(("progress", params)),
        log=lambda params: told.append(("log", params)),
        ask=ask,
    )
    kept = Kept("hand", handmade("handshake"))
    server: Runs = kept
    caller = {"claudemesh/caller": {"peer": "p_ada"}, "claudemesh/hops": 0}
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(kept.run)
            for tool in ("steps", "asking"):
                params = {"name": tool, "arguments": {}, "_meta": caller}
                await server.call("tools/call", params, hooks)
            params = {"name": "seen", "arguments": {}, "_meta": caller}
            seen.append(await server.call("tools/call", params, hooks))
            tasks.cancel_scope.cancel()
    assert [kind for kind, _ in told] == ["progress", "progress", "log", "ask"]
    assert [params.get("progress") for _, params in told[:2]] == [1, 2]
    assert "progressToken" not in told[0][1]
    meta = seen[0]["result"]["structuredContent"]["_meta"]
    assert {name: meta[name] for name in caller} == caller


async def test_what_ran_long_is_started_again_at_once(tmp_path: Path) -> None:
    watch = Watch(most=4)
    server = handmade("handshake", tmp_path / "said")
    kept = Kept("hand", server, report=watch.report, pace=watch.pace)
    with anyio.fail_after(60), watch.scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.run)
            for starts, ran_ms in enumerate((0, 0, 60_000, 0), 1):
                await watch.until(State.RUNNING, starts)
                watch.now_ms += ran_ms
                with pytest.raises(MeshError):
                    await kept.backend.call("tools/call", {"name": "crashing", "arguments": {}})
    assert watch.pauses == [1, 2, 1, 2]


async def test_a_server_that_does_not_run_says_how_it_is() -> None:
    watch = Watch(most=1)
    kept = Kept("broken", BROKEN, pace=watch.pace)
    with anyio.fail_after(60), watch.scope:
        await kept.run(patient=True)
    with pytest.raises(Unavailable) as refused:
        _ = kept.backend
    assert refused.value.code == "server_not_running"
    assert refused.value.details == {"state": "failed", "since_ms": 1_000_000}
    assert "no-such-server" in refused.value.reason


def test_a_full_log_is_turned_over(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = ErrorLog(path, max_bytes=10)
    for number in range(5):
        log.take(b"line number %d\n" % number)
    kept = {one.name: one.read_text("utf-8") for one in sorted(tmp_path.iterdir())}
    assert kept == {"a.log.1": "line number 4\n", "a.log.2": "line number 3\n"}
    assert log.last().splitlines()[-1] == "line number 4"


async def test_last_words_while_it_is_stopped_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    kept = Kept("hand", handmade("handshake", "orderly"), Terms(errors=log))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            await tasks.start(kept.run)
            tasks.cancel_scope.cancel()
    assert log.read_text("utf-8") == "closed in order\n"
