"""The demo: that it shows what it says, leaves nothing behind, and can fail."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from claudemesh_mcp.cli.stage import Failed, Stage, raised
from tests.support.documents import README, between_marks
from tests.support.shell import LIMIT_S, Shell


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "temporary").mkdir()
    shell = Shell(tmp_path)
    yield shell
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not shell.home.exists()


def test_the_demo_reports_every_process_and_every_receipt(shell: Shell) -> None:
    done = shell.run("demo", "--json", TMPDIR=str(shell.folder / "temporary"))
    assert done.code == 0, done.out + done.err
    report = done.json
    assert report["ok"] is True
    first, second = report["sessions"]
    assert report["killed"]["pid"] == second["pid"]
    assert report["resumed"]["peer"] == second["peer"]
    assert report["resumed"]["same_peer"] is True
    pids = {report["broker"]["pid"], first["pid"], second["pid"], report["resumed"]["pid"]}
    assert len(pids) == 4
    assert not [pid for pid in pids if is_running(pid)]
    assert [(one["from"], one["to"]) for one in report["messages"]] == [
        ("ada", "bob"),
        ("ada", "bob"),
        ("bob", "ada"),
    ]
    for message in report["messages"]:
        assert {one["status"] for one in message["receipts"] if one["signed"]} == {
            "delivered",
            "seen",
        }


def test_the_demo_tells_each_step_without_a_terminal(shell: Shell) -> None:
    done = shell.run("demo", TMPDIR=str(shell.folder / "temporary"))
    assert done.code == 0, done.out + done.err
    steps = [line.partition(":")[0] for line in done.out.splitlines() if line.startswith("✓")]
    told = between_marks("demo", README.read_text("utf-8")) or ""
    assert steps == told.strip("`\n").splitlines()
    assert "signed by bob" in done.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_cleans_up(shell: Shell, number: signal.Signals) -> None:
    with shell.running("demo", TMPDIR=str(shell.folder / "temporary")) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"ada finds bob" in line:
                break
        process.send_signal(number)
        assert process.wait(LIMIT_S) == 130


async def test_a_text_that_the_broker_holds_in_clear_fails_the_demo() -> None:
    async with raised() as stage:
        (stage.home / "broker").mkdir()
        (stage.home / "broker" / "data").write_text("msg_1 sealed", "utf-8")
        assert stage.check_sealed("msg_1", "hello") == ["data"]
        (stage.home / "broker" / "leak").write_text("hello", "utf-8")
        with pytest.raises(Failed, match="leak"):
            stage.check_sealed("msg_1", "hello")


async def test_looking_in_the_wrong_place_fails_the_demo() -> None:
    async with raised() as stage:
        with pytest.raises(Failed):
            stage.check_sealed("msg_1", "hello")


async def test_a_session_that_does_not_come_up_fails_the_demo() -> None:
    async with raised() as stage:
        broken = Stage(stage.home, {**stage.environment, "CLAUDEMESH": "off"})
        with pytest.raises(Failed, match="tools"):
            await broken.enter("ada", "a session")
        await broken.dismiss()


def is_running(pid: int) -> bool:
    """Tell whether a process is there and not only waits to be buried."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()[:1] not in {"", "Z"}
