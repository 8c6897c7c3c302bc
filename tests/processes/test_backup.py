"""Backup under load, restore and check as commands, on a broker that really runs."""

import json
import shutil
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from claudemesh_broker.backup import back_up
from claudemesh_mcp.sdk import Mesh
from tests.support.brokerdata import broker_data
from tests.support.foreground import LIMIT_S, hosted, run_to_its_end, settings_of
from tests.support.shell import Shell, shell_in

FAST = {"CLAUDEMESH_BROKER_CHAT_PER_S": "5000", "CLAUDEMESH_BROKER_CHAT_BURST": "5000"}
BEFORE, BESIDE = 40, 200


class Writer:
    """Sends to a peer that is away, and notes what the broker has accepted."""

    def __init__(self, mesh: Mesh) -> None:
        self.accepted: list[str] = []
        self.has_begun = anyio.Event()
        self.may_end = anyio.Event()
        self._mesh = mesh

    async def write(self) -> None:
        """Send until the backup is made, and so much that it is made meanwhile."""
        while len(self.accepted) < BESIDE or not self.may_end.is_set():
            sent = await self._mesh.send("bob", f"message {len(self.accepted)}")
            assert [one.status for one in sent.recipients] == ["queued"]
            self.accepted.append(sent.id)
            if len(self.accepted) == BEFORE:
                self.has_begun.set()

    async def writes_beside(self, home: Path, backup: Path) -> list[str]:
        """Write while a backup is made; gives what was accepted before it began."""
        before: list[str] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.write)
            with anyio.fail_after(LIMIT_S):
                await self.has_begun.wait()
            before += self.accepted
            done = await anyio.to_thread.run_sync(run_to_its_end, home, "backup", str(backup))
            assert done.returncode == 0, done.stderr
            self.may_end.set()
        return before


async def test_a_backup_under_load_has_all_that_was_accepted_before(tmp_path: Path) -> None:
    backup = tmp_path / "backup.tar"
    with hosted(tmp_path, **FAST) as broker:
        told = settings_of(broker.home)
        async with Mesh.connect(settings=told, name="bob", resume="bob"):
            pass
        async with Mesh.connect(settings=told, name="ada", resume="ada") as ada:
            writer = Writer(ada)
            before = await writer.writes_beside(broker.home, backup)
        assert len(writer.accepted) > len(before)
        broker_id = broker.info.id
        assert broker.end() == 0
    shutil.rmtree(broker.data)
    assert run_to_its_end(broker.home, "restore", str(backup)).returncode == 0
    with hosted(tmp_path, **FAST) as broker:
        assert broker.info.id == broker_id
        async with Mesh.connect(settings=told, name="bob", resume="bob") as bob:
            read: list[str] = []
            with anyio.fail_after(LIMIT_S):
                async for message in bob.messages():
                    read.append(message.id)
                    if set(before) <= set(read):
                        break
        # What was accepted later may be in it too, but no gap and nothing out of order.
        assert read == writer.accepted[: len(read)]


def test_a_broker_that_runs_is_checked_and_backed_up_from_the_shell(tmp_path: Path) -> None:
    with shell_in(tmp_path) as shell:
        assert shell.run("up").code == 0
        running = shell.run("broker", "check", "--json")
        assert (running.code, running.json["ok"]) == (0, True)
        assert {one["state"] for one in running.json["checks"]} == {"ok"}
        made = shell.run("broker", "backup", ".", "--json")
        assert made.code == 0
        assert Path(made.json["path"]).stat().st_mode & 0o777 == 0o600
        assert set(made.json["files"]) == {"broker.key", "broker.sqlite3"}
        in_use = shell.run("broker", "restore", made.json["path"], "--force", "--json")
        assert (in_use.code, in_use.error["code"]) == (1, "data_in_use")


def test_one_that_does_not_run_is_restored_from_the_shell(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert shell.run("broker", "check", "--json").error["code"] == "no_broker_data"
    backup = str(back_up(broker_data(shell.home), tmp_path / "backup.tar").path)
    there = shell.run("broker", "restore", backup, "--json")
    assert (there.code, there.error["code"]) == (1, "data_exists")
    damaged = shell.run("broker", "restore", "/dev/null", "--force")
    assert (damaged.code, damaged.out) == (2, "")
    done = shell.run("broker", "restore", backup, "--force")
    assert done.code == 0
    assert "what was there before is in " in done.out
    (shell.home / "broker" / "broker.key").chmod(0o644)
    found = shell.run("broker", "check")
    assert found.code == 1
    assert "failed   permissions" in found.out


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_an_empty_path_is_not_the_present_folder(tmp_path: Path, command: str) -> None:
    shell = Shell(tmp_path)
    broker_data(shell.home)
    done = shell.run("broker", command, "", "--json")
    assert (done.code, done.error["code"]) == (2, "no_path")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_words_that_make_no_sense_are_a_wrong_use(tmp_path: Path) -> None:
    done = run_to_its_end(tmp_path, "check", "--data", "", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "config_invalid")
