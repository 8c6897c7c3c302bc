"""The checks of the doctor that need a broker which lies, a clock that is wrong, a full disk."""

import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.doctor import CHECKS, Case, Check, Finding, State, examine, machine
from claudemesh_mcp.doctor.finding import ok
from claudemesh_mcp.doctor.mesh import _ask
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire import DATA_VERSION
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


@pytest.mark.parametrize(
    ("told", "state", "remedy"),
    [
        ({}, State.OK, ""),
        ({"broker_version": "99.1"}, State.WARN, "Upgrade claudemesh."),
        ({"data_version": DATA_VERSION + 1}, State.WARN, "Upgrade claudemesh."),
        ({"broker_version": "0.0.9"}, State.WARN, "Have the broker's owner upgrade it"),
    ],
)
async def test_a_broker_of_another_version_is_a_warning_with_who_is_to_upgrade(
    tmp_path: Path, told: dict[str, Any], state: State, remedy: str
) -> None:
    async with a_mesh(tmp_path) as twin:
        settings = twin.setup("max").settings
        case = Case(settings.paths(), lambda: (settings, {}), partial(connect, twin, 0))
        heard = await _ask(case, settings)
    case.told = replace(heard, facts=heard.facts.model_copy(update=told))
    (found,) = await look(case, *[one for one in CHECKS if one.name == "versions"])
    assert (found.state, bool(found.fix)) == (state, state is State.WARN)
    assert found.fix.startswith(remedy)


class WithoutSearch(sqlite3.Connection):
    """A SQLite that was built without full-text search."""

    def execute(self, sql: str, *_: Any) -> sqlite3.Cursor:
        raise sqlite3.OperationalError(f"no such module: {sql.rpartition(' ')[2]}")


@pytest.mark.parametrize(
    ("lacking", "state", "remedy"),
    [
        ({}, State.OK, ""),
        ({"version_info": (3, 10, 14)}, State.FAIL, "Install claudemesh under Python 3.11"),
        ({"version_info": (3, 11, 0)}, State.OK, ""),
        ({"connect": WithoutSearch}, State.WARN, "Install claudemesh under another Python."),
    ],
)
async def test_a_python_that_lacks_something_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacking: dict[str, Any],
    state: State,
    remedy: str,
) -> None:
    for name, value in lacking.items():
        monkeypatch.setattr(machine, *_standin(name, value))
    (found,) = await look(a_case(tmp_path), *[one for one in CHECKS if one.name == "python"])
    assert (found.state, bool(found.fix)) == (state, state is not State.OK)
    assert found.fix.startswith(remedy)


def _standin(name: str, value: Any) -> tuple[str, SimpleNamespace]:
    """Give a stand-in for the module of the standard library that this is of."""
    of = "sys" if hasattr(sys, name) else "sqlite3"
    return of, SimpleNamespace(**{**vars(sys.modules[of]), name: value})


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
