"""Monitor and rewake hook as processes: when they ring, when they leave, and that one is enough."""

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from claudemesh_mcp.config import Settings
from claudemesh_mcp.home import Home
from claudemesh_mcp.routes import bells, facts, processes, records
from claudemesh_mcp.routes.hook import RUNG_SHARED, SHARED
from claudemesh_mcp.routes.places import Places
from claudemesh_mcp.routes.processes import Living, started
from claudemesh_mcp.routes.ringing import Place
from tests.support.routing import ALONE, LIMIT_S, PROGRAMS, Beside

MINUTE = 60_000
Process = "subprocess.Popen[bytes]"


@contextmanager
def running(bob: Beside, *words: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one beside the session, until it has taken its place."""
    kind = "rewake" if "rewake" in words else "monitor"
    with bob.start(*words, **settings) as process:
        try:
            place = records.place(bob.home, int(settings.get("CLAUDE_PID", os.getpid())), kind)
            wait_until(lambda: (processes.holder(place) or Living(0, 0)).pid == process.pid)
            yield process
        finally:
            process.kill()


def wait_until(holds: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.02)


def line_of(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], LIMIT_S)
    assert ready
    return process.stdout.readline().decode()


def ended(process: subprocess.Popen[bytes]) -> int:
    return process.wait(LIMIT_S)


def answer(bob: Beside, line: str) -> str:
    """Let a line have woken the session; gives what its prompt shows."""
    return bob.prompt(f"<task-notification><event>{line}</event></task-notification>")


def test_the_monitor_writes_a_line_and_the_turn_that_it_makes_has_the_text(bob: Beside) -> None:
    with running(bob, "monitor.py") as monitor:
        bob.put("Two herons.")
        line = line_of(monitor)
        assert "1 message from ada" in line
        assert "herons" not in line
        assert "Two herons." in answer(bob, line)
        bob.stop()
        assert bob.receipts() == [("seen", "monitor")]
        bob.put("Three swans.")
        assert "Three swans." in answer(bob, line_of(monitor))


def test_what_waited_before_the_monitor_came_wakes_too(bob: Beside) -> None:
    bob.put()
    with running(bob, "monitor.py") as monitor:
        assert "1 message" in line_of(monitor)


def test_a_session_that_gets_idle_is_woken_for_what_came_meanwhile(bob: Beside) -> None:
    facts.put(bob.sql, facts.ACTIVITY, "working")
    facts.put(bob.sql, facts.ACTIVITY_MS, time.time_ns() // 1_000_000)
    with running(bob, "monitor.py") as monitor:
        bob.put()
        facts.put(bob.sql, facts.ACTIVITY, "idle")
        assert "1 message" in line_of(monitor)


@pytest.mark.parametrize(("words", "code"), [(["rewake"], 2), (["rewake", SHARED], RUNG_SHARED)])
def test_a_rewake_hook_ends_with_the_code_that_wakes_and_says_why_on_stderr(
    bob: Beside, words: list[str], code: int
) -> None:
    with running(bob, "hook.py", *words) as rewake:
        bob.put()
        assert ended(rewake) == code
        assert rewake.stdout is not None
        assert rewake.stderr is not None
        assert rewake.stdout.read() == b""
        line = rewake.stderr.read().decode()
    assert "Hello." in answer(bob, line)
    bob.stop()
    assert bob.receipts() == [("seen", "rewake")]


def test_beside_a_monitor_that_reaches_the_model_a_rewake_hook_leaves_at_once(
    bob: Beside,
) -> None:
    with running(bob, "monitor.py") as monitor:
        bob.put()
        answer(bob, line_of(monitor))
        with bob.start("hook.py", "rewake") as rewake:
            assert ended(rewake) == 0


def test_beside_a_monitor_that_nobody_hears_a_rewake_hook_rings(bob: Beside) -> None:
    with running(bob, "monitor.py") as monitor, running(bob, "hook.py", "rewake") as rewake:
        bob.put()
        line_of(monitor)
        bob.age("bells", "rung_ms", MINUTE // 2)
        # The change of another process is what it looks at.
        bob.put(priority="low")
        assert ended(rewake) == 2


def test_a_monitor_that_is_alone_rings_again_for_a_line_that_was_lost(bob: Beside) -> None:
    with running(bob, "monitor.py") as monitor:
        bob.put()
        answer(bob, line_of(monitor))
        bob.stop()
        bob.put("Two herons.")
        lost = line_of(monitor)
        bob.age("bells", "rung_ms", MINUTE)
        bob.age("inbox", "received_ms", MINUTE)
        again = line_of(monitor)
        assert again != lost
        assert "Two herons." in answer(bob, again)


@pytest.mark.parametrize("words", [("monitor.py",), ("hook.py", "rewake")], ids=["monitor", "wake"])
def test_the_newest_takes_the_place_of_the_one_before(bob: Beside, words: tuple[str, ...]) -> None:
    with running(bob, *words) as first, running(bob, *words) as second:
        assert ended(first) == 0
        assert second.poll() is None


@pytest.mark.parametrize("words", [("monitor.py",), ("hook.py", "rewake")], ids=["monitor", "wake"])
def test_it_ends_with_its_client_killed_without_a_word(bob: Beside, words: tuple[str, ...]) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as client:
        bob.record(pid=client.pid, start=started(client.pid))
        with running(bob, *words, CLAUDE_PID=str(client.pid)) as beside:
            client.kill()
            client.wait()
            assert ended(beside) == 0
    assert processes.holder(records.place(bob.home, client.pid, "monitor")) is None


def test_it_ends_when_nobody_reads_its_lines(bob: Beside) -> None:
    with running(bob, "monitor.py") as monitor:
        assert monitor.stdout is not None
        monitor.stdout.close()
        assert ended(monitor) == 0


@pytest.mark.parametrize("words", [("monitor.py",), ("hook.py", "rewake")], ids=["monitor", "wake"])
@pytest.mark.parametrize(
    "settings",
    [
        {"CLAUDE_CODE_ENTRYPOINT": "sdk-cli"},
        {"CLAUDE_CODE_SESSION_ATTENDED": "0"},
        {"CLAUDEMESH": "off"},
        {"CLAUDE_PID": "0", "CLAUDE_CODE_SESSION_ID": "nobody's"},
        {"CLAUDE_PID": "none"},
        {"CLAUDEMESH_HOME": "/proc/none"},
    ],
    ids=str,
)
def test_where_nobody_is_to_be_woken_it_leaves_at_once(
    bob: Beside, words: tuple[str, ...], settings: dict[str, str]
) -> None:
    bob.put()
    with bob.start(*words, **settings) as process:
        assert ended(process) == 0


def test_it_waits_for_the_server_and_follows_it_to_another_peer(bob: Beside) -> None:
    record = bob.record()
    records.remove(bob.home, record.pid, record.server)
    with running(bob, "monitor.py") as monitor:
        bob.put()
        bob.record()
        assert "1 message" in line_of(monitor)


def test_a_file_that_is_gone_or_locked_for_a_while_ends_no_monitor(bob: Beside) -> None:
    bob.record(file=str(bob.home / "none.db"))
    with running(bob, "monitor.py") as monitor:
        wait_until(lambda: "monitor: " in bob.log)
        bob.put()
        bob.record()
        assert "1 message" in line_of(monitor)


def test_monitor_and_rewake_hook_together_wake_once(bob: Beside) -> None:
    with running(bob, "hook.py", "rewake") as rewake, running(bob, "monitor.py") as monitor:
        for _ in range(5):
            bob.put()
        answer(bob, line_of(monitor))
        assert ended(rewake) == 0
    assert bob.sql.execute("SELECT count(*) FROM bells").fetchone()[0] == 1
    assert bells.health(bob.sql, bells.MONITOR, time.time_ns() // 1_000_000) == "reaches"


@pytest.mark.parametrize("words", [("monitor.py",), ("hook.py", "rewake")], ids=["monitor", "wake"])
def test_there_before_the_first_server_it_makes_no_home_that_a_server_refuses(
    bob: Beside, tmp_path: Path, words: tuple[str, ...]
) -> None:
    home = tmp_path / "far" / "new"
    with bob.start(*words, CLAUDEMESH_HOME=str(home)) as process:
        place = records.place(home, os.getpid(), "rewake" if "rewake" in words else "monitor")
        wait_until(lambda: processes.holder(place))
        process.kill()
    paths = Settings.load({"home": home}, environ={}).paths()
    assert Home.open(paths).data == home


def test_it_ends_when_the_other_end_of_its_socket_is_closed(bob: Beside) -> None:
    ours, its = socket.socketpair()
    with ours, its:
        command = [*ALONE, str(PROGRAMS / "monitor.py")]
        with subprocess.Popen(command, env=bob.environ, stdout=its.fileno()) as monitor:
            place = records.place(bob.home, os.getpid(), "monitor")
            wait_until(lambda: processes.holder(place))
            its.close()
            ours.close()
            try:
                assert ended(monitor) == 0
            finally:
                monitor.kill()


def test_nobody_is_woken_while_no_server_judges_what_a_turn_would_show(bob: Beside) -> None:
    bob.record(server=gone_pid())
    bob.put()
    place = Place(Places(str(bob.home), str(bob.home / "logs")), Living.now(os.getpid()), "monitor")
    assert place.look() == []
    bob.record()
    (rung,) = place.look()
    assert rung.messages == 1
    place.leave()


def gone_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_home_that_can_not_be_told_disturbs_nobody(bob: Beside, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    command = ["sh", "-c", f'cd "{folder}" && rmdir "{folder}" && exec "$0" "$@"']
    with bob.start("monitor.py", before=command, CLAUDEMESH_HOME="here") as process:
        assert process.communicate(timeout=LIMIT_S) == (b"", b"")
    assert process.returncode == 0
