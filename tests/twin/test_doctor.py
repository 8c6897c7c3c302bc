"""The checks of the doctor that need a broker which lies, a clock that is wrong, a full disk."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.doctor import CHECKS, Case, Check, Finding, State, examine
from claudemesh_mcp.doctor.finding import ok
from claudemesh_mcp.doctor.mesh import _ask
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import Invalid
from claudemesh_wire.handshake import Mode
from tests.support.twin import Twin, a_mesh

MINUTE_MS = 60_000


@asynccontextmanager
async def connect(twin: Twin, off_ms: int, _settings: Settings) -> AsyncIterator[Mesh]:
    """Open the command line's peer, with a clock that is off."""
    setup = replace(twin.setup("max", anchor="resume:cli"), now_ms=lambda: twin.clock() + off_ms)
    async with Mesh.over(setup, twin.dial, Mode.CALL) as mesh:
        yield mesh


async def examined(twin: Twin, off_ms: int = 0) -> dict[str, Finding]:
    """Connect to the twin's broker, and look at what it told."""
    settings = twin.setup("max").settings
    case = Case(settings.paths(), lambda: (settings, {}), partial(connect, twin, off_ms))
    case.settings = settings
    case.told = await _ask(case, settings)
    checks = [one for one in CHECKS if one.name in {"versions", "clock", "trust", "quotas"}]
    return {one.name: one async for one in examine(case, checks)}


@pytest.mark.parametrize(
    ("off_ms", "state", "word"),
    [
        (0, State.OK, "agree"),
        (MINUTE_MS, State.OK, "agree"),
        (-5 * MINUTE_MS, State.FAIL, "5.0 minutes behind"),
        (5 * MINUTE_MS, State.FAIL, "5.0 minutes ahead"),
    ],
)
async def test_a_clock_that_is_off_fails(
    tmp_path: Path, off_ms: int, state: State, word: str
) -> None:
    async with a_mesh(tmp_path) as twin:
        found = await examined(twin, off_ms)
        assert (found["clock"].state, found["trust"].state) == (state, State.OK)
        assert word in found["clock"].message
        assert bool(found["clock"].fix) == (state is State.FAIL)


async def test_a_queue_that_is_almost_full_is_a_warning(tmp_path: Path) -> None:
    async with a_mesh(tmp_path, queue_messages=5) as twin:
        ada = await twin.join("ada")
        await examined(twin)
        me = (await ada.search_peers("max")).peers[0].peer
        for number in range(4):
            await ada.send(me, f"number {number}")
        quotas = (await examined(twin))["quotas"]
        assert quotas.state is State.OK
        assert "4 messages wait at the broker for the command line, of 5" in quotas.message
        assert "of sessions are not looked into" in quotas.message
        for told in ("chat_per_s", "rpc_burst", "tunnel_per_s", "auth_per_s", "connections_per"):
            assert told in quotas.message
        await ada.send(me, "one more")
        assert (await examined(twin))["quotas"].state is State.WARN


async def test_what_the_broker_was_caught_at_fails(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as twin:

        @asynccontextmanager
        async def detecting(settings: Settings) -> AsyncIterator[Mesh]:
            async with connect(twin, 0, settings) as mesh:
                mesh.peer.detect(Invalid("It lied.", code="forged_receipt"))
                yield mesh

        settings = twin.setup("max").settings
        case = Case(settings.paths(), lambda: (settings, {}), detecting)
        case.told = await _ask(case, settings)
        (found,) = [one async for one in examine(case, [c for c in CHECKS if c.name == "trust"])]
        assert (found.state, found.message) == (State.FAIL, "It lied.")


def a_case(folder: Path, **more: int) -> Case:
    settings = Settings.load({"home": folder}, environ={})
    return Case(settings.paths(), lambda: (settings, {}), partial(connect, None), **more)  # type: ignore[arg-type]


async def look(case: Case, *checks: Check) -> list[Finding]:
    return [one async for one in examine(case, checks)]


async def test_little_space_is_a_warning(tmp_path: Path) -> None:
    (check,) = [one for one in CHECKS if one.name == "disk"]
    (much,) = await look(a_case(tmp_path / "home", least_free_bytes=0), check)
    (little,) = await look(a_case(tmp_path / "home", least_free_bytes=2**62), check)
    assert (much.state, little.state) == (State.OK, State.WARN)


async def test_a_check_that_can_not_be_made_is_a_finding_and_the_others_are_made(
    tmp_path: Path,
) -> None:
    async def breaks(_case: Case) -> Finding:
        raise ZeroDivisionError

    async def hangs(_case: Case) -> Finding:
        await anyio.sleep_forever()
        return ok("never")

    async def works(_case: Case) -> Finding:
        return ok("well")

    checks = (Check("a", breaks), Check("b", hangs, limit_s=0.01), Check("c", works))
    found = await look(a_case(tmp_path), *checks)
    assert [(one.name, one.state) for one in found] == [
        ("a", State.FAIL),
        ("b", State.FAIL),
        ("c", State.OK),
    ]
    assert all(one.fix for one in found[:2])


def test_every_check_has_a_name_of_its_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
