"""A broker that hosts servers of its own machine: with no session open, and as long as it runs."""

import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.sdk import Mesh
from claudemesh_wire.errors import MeshError
from tests.support.hosting import a_host, free_port, ok
from tests.support.live import LIMIT_S, a_moment
from tests.support.returning import COMMAND
from tests.support.shell import Shell, shell_in

RUN = ("broker", "run", "--port", "0")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        yield shell


@asynccontextmanager
async def caller(shell: Shell, mesh: str | None = None) -> AsyncIterator[Mesh]:
    given = {"home": shell.home, "keyring": False, "mesh": mesh}
    settings = Settings.load(given, environ={})
    async with Mesh.connect(settings=settings, resume="caller", attach=False, wait_s=0) as opened:
        yield opened


async def answers(shell: Shell, mesh: str | None = None) -> None:
    """Wait until a call of the server gives its result."""
    async with caller(shell, mesh) as opened:
        with anyio.fail_after(LIMIT_S):
            while True:
                with suppress(MeshError):
                    result = await opened.servers.call("hand", "seen", {"a": 1})
                    assert result["structuredContent"]["arguments"] == {"a": 1}
                    return
                await a_moment()


async def state(shell: Shell, *wanted: str) -> dict[str, Any]:
    """Wait until the server is in one of these states; gives its row."""
    with anyio.fail_after(LIMIT_S):
        while True:
            [row] = (await shell.runs("mcp-server", "list", "--json")).json["kept"]
            if row["state"] in wanted:
                return row
            await a_moment()


@contextmanager
def hosting(shell: Shell, *words: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a broker that hosts, and end it."""
    words += ("--host-mcp",)
    with shell.running(*words, stderr=subprocess.DEVNULL, warm=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_its_servers_run_with_no_session_and_end_with_the_broker(
    shell: Shell, number: signal.Signals
) -> None:
    added = await shell.runs("mcp-server", "add", "hand", "--scope", "broker", *COMMAND)
    assert added.code == 0
    with hosting(shell, *RUN) as broker:
        await answers(shell)
        row = await state(shell, "running")
        [offered] = (await shell.runs("mcp-server", "list", "--json")).json["offered"]
        assert (offered["name"], offered["online"]) == (f"{row['by']}/hand", True)
        [peer] = [one for one in (await peers(shell)) if one["handle"] == row["by"]]
        assert peer["type"] == "resident"
        broker.send_signal(number)
        broker.wait(LIMIT_S)
        await state(shell, "waiting")
    # It comes back with the broker, under the name that it had.
    assert (await shell.runs("down")).code == 0
    with hosting(shell, *RUN):
        await answers(shell)
        assert (await state(shell, "running"))["by"] == row["by"]
        removed = await shell.runs("mcp-server", "remove", "hand")
        assert (removed.code, "comes back no more" in removed.err) == (0, True)


async def peers(shell: Shell) -> list[dict[str, Any]]:
    return (await shell.runs("peers", "--json")).json["peers"]


async def test_what_is_added_while_it_runs_is_hosted_at_once(shell: Shell) -> None:
    with hosting(shell, *RUN):
        done = await shell.runs("mcp-server", "add", "hand", "--scope", "broker", *COMMAND)
        assert done.code == 0
        await answers(shell)


async def test_it_hosts_in_a_mesh_of_a_broker_whose_data_is_elsewhere(
    shell: Shell, tmp_path: Path
) -> None:
    data, port = tmp_path / "broker", free_port()
    with a_host(data, port=port) as host:
        ok(await shell.runs("mesh", "create", "team", *host.for_its_admin))
    words = ("--mesh", "team", "mcp-server", "add", "hand", "--scope", "broker", *COMMAND)
    ok(await shell.runs(*words))
    run = ("broker", "run", "--data", str(data), "--port", str(port), "--bind", "127.0.0.1")
    run += ("--tls", "auto", "--public-url", f"https://127.0.0.1:{port}")
    with hosting(shell, "--mesh", "team", *run):
        await answers(shell, "team")


def test_a_mesh_that_is_not_at_that_broker_is_refused(shell: Shell, tmp_path: Path) -> None:
    words = ("broker", "run", "--data", str(tmp_path / "broker"), "--host-mcp")
    done = shell.run("--json", *words)
    assert (done.code, done.error["code"]) == (2, "no_mesh_there")
    assert "--mesh NAME" in done.error["hint"]
    assert not (tmp_path / "broker").exists()
