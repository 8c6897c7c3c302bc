"""Brokers and sessions of other versions in one home: who makes way for whom, and what is kept."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from claudemesh_mcp.brokerinfo import BrokerInfo
from claudemesh_mcp.launcher import Launcher
from claudemesh_wire import VERSION
from tests.support.live import LIMIT_S, Live, alive

OLD, NEW = "0.0.1", "99.0.0"


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with alive(tmp_path) as live:
        yield live


def of_version(version: str, module: str, *words: str) -> tuple[str, ...]:
    """Give the command of a program that believes to be of another version."""
    program = (
        f"import claudemesh_wire; claudemesh_wire.VERSION = {version!r};"
        f" from {module}.__main__ import main; raise SystemExit(main())"
    )
    return (sys.executable, "-c", program, *words)


async def started(live: Live, version: str) -> BrokerInfo:
    """Start a broker of a version."""
    folders = ("--data", str(live.home.broker), "--run", str(live.home.run))
    command = of_version(version, "claudemesh_broker", "run", "--embedded", *folders)
    with anyio.fail_after(LIMIT_S):
        info = await Launcher(live.home, command).ensure()
    assert info.version == version
    return info


async def test_an_older_broker_makes_way_once_and_the_new_one_has_its_data(live: Live) -> None:
    before = await started(live, OLD)
    old_session = of_version(OLD, "claudemesh_mcp", "mcp")
    ada = await live.join("ada", command=old_session)
    bob = await live.join("bob", command=old_session)
    assert live.broker == before
    await bob.end()
    waiting = await ada.call("send", to="bob", text="for when you are back")
    assert waiting["recipients"][0]["status"] == "queued"
    bob, cyd, dan = await live.join_all("bob", "cyd", "dan")
    after = live.broker
    assert (after.version, after.id) == (VERSION, before.id)
    assert after.pid != before.pid
    replacing = [one for one in live.sessions if "replacing broker" in one.errors]
    assert len(replacing) == 1
    assert [one["id"] for one in await bob.read(1)] == [waiting["id"]]
    # The older session goes on with the newer broker, and does not bring its own back.
    sent = await ada.call("send", to="cyd", text="still here")
    assert [one["id"] for one in await cyd.read(1)] == [sent["id"]]
    assert (await ada.call("mesh_info"))["broker"]["version"] == VERSION
    assert (await dan.call("mesh_info"))["problems"] == []
    assert live.broker == after


async def test_a_newer_broker_is_left_alone(live: Live) -> None:
    before = await started(live, NEW)
    ada, bob = await live.join_all("ada", "bob")
    sent = await ada.call("send", to="bob", text="hello")
    assert [one["id"] for one in await bob.read(1)] == [sent["id"]]
    shown = (await ada.call("mesh_info"))["broker"]
    assert (shown["version"], shown["id"]) == (NEW, before.id)
    assert live.broker == before
