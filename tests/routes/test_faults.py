"""Bad input and bad places: a hook never breaks a turn, and nothing is lost by that."""

import json
import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from claudemesh_mcp.routes import facts, records
from claudemesh_mcp.routes.door import note_fault
from claudemesh_mcp.routes.places import Places
from tests.support.routing import SESSION, Beside, Ran

QUIET = Ran(0, "", "")
EVENTS = ("SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd")
SAID = json.dumps({"session_id": SESSION, "prompt": "Go on.", "tool_use_id": "t"}).encode()


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(
    "said",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"session_id": "\\ud800"', b"7" * 99],
)
def test_an_event_that_makes_no_sense_shows_nothing(bob: Beside, event: str, said: bytes) -> None:
    bob.put(priority="now")
    assert bob.feed(event, said) == QUIET
    assert bob.states() == ["waiting"]


@pytest.mark.parametrize("value", [None, 7, [], {}, True, "x" * 100_000, "\ud800", "\0", "'; --"])
def test_no_field_of_an_event_is_trusted_to_be_what_it_should_be(
    bob: Beside, value: object
) -> None:
    names = ("session_id", "prompt", "tool_use_id", "transcript_path", "source", "reason")
    bob.put(priority="now")
    said = json.dumps(dict.fromkeys(names, value)).encode()
    for event in EVENTS:
        ran = bob.feed(event, said)
        assert (ran.code, ran.err, bob.log) == (0, "", "")
    bob.put("Another one.")
    assert "Another one." in bob.prompt()


@pytest.mark.parametrize("session", ["../../x", "a b\n", "😀" * 300, "%s", "*", "hook:1.1:"])
def test_an_odd_session_id_is_as_good_as_any(bob: Beside, session: str) -> None:
    bob.put()
    assert bob.hook("UserPromptSubmit", session_id=session, prompt="Go on.") != ""
    bob.hook("Stop", session_id=session)
    assert bob.states() == ["seen"]


def test_an_event_that_is_not_known_shows_nothing(bob: Beside) -> None:
    bob.put()
    for event in ("", "PreCompact", "../hook", "rewind"):
        assert bob.feed(event, SAID) == QUIET
    assert bob.log == ""


def test_a_hook_without_an_event_ends_in_peace(bob: Beside) -> None:
    with bob.start("hook.py") as process:
        assert process.communicate(SAID, timeout=60) == (b"", b"")
    assert process.returncode == 0


def assert_a_fault_is_logged(bob: Beside, event: str) -> None:
    assert bob.feed(event, SAID) == QUIET
    assert f"hook {event}: " in bob.log
    assert len(bob.log.splitlines()) == 1


@pytest.mark.parametrize("event", EVENTS)
def test_a_file_that_is_gone_breaks_no_turn(bob: Beside, event: str) -> None:
    bob.record(file=str(bob.home / "sessions" / "none" / "peer.db"))
    assert_a_fault_is_logged(bob, event)
    assert not (bob.home / "sessions" / "none").exists()


@pytest.mark.parametrize("event", EVENTS)
def test_a_file_that_is_damaged_breaks_no_turn_and_is_left_as_it_is(
    bob: Beside, tmp_path: Path, event: str
) -> None:
    damaged = tmp_path / "peer.db"
    damaged.write_bytes(b"no database " * 1_000)
    bob.record(file=str(damaged))
    assert_a_fault_is_logged(bob, event)
    assert damaged.read_bytes() == b"no database " * 1_000


@pytest.mark.parametrize("version", [facts.FIRST_FILE_VERSION - 1, facts.FILE_VERSION + 1])
def test_a_file_of_another_version_is_left_alone(bob: Beside, version: int) -> None:
    bob.put()
    bob.sql.execute(f"PRAGMA user_version = {version}")
    assert bob.feed("UserPromptSubmit", SAID) == QUIET
    assert bob.states() == ["waiting"]


@pytest.mark.parametrize("event", EVENTS)
def test_a_file_that_somebody_has_locked_breaks_no_turn_and_loses_nothing(
    bob: Beside, event: str
) -> None:
    bob.put(priority="now")
    with closing(sqlite3.connect(bob.file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert_a_fault_is_logged(bob, event)
        other.execute("ROLLBACK")
    (bob.home / "logs" / "routes.log").unlink()
    assert bob.states() == ["waiting"]
    assert "Hello." in bob.prompt()


@pytest.mark.parametrize("path", ["a?b#c%20d", "with space", "ümlaut"])
def test_a_home_of_any_name_is_found(bob: Beside, tmp_path: Path, path: str) -> None:
    bob.put()
    file = tmp_path / path / "peer.db"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as copy:
        bob.sql.backup(copy)
    bob.record(file=str(file))
    assert "Hello." in bob.prompt()


# Each ends in the project and runs what follows there; the second only if nothing can be written.
GONE = 'cd "$P" && rmdir "$P" && exec "$0" "$@"'
READ_ONLY = 'cd "$P" && ! touch "$P/new" 2>/dev/null && exec "$0" "$@"'
MOUNTED = f'mount -t tmpfs -o ro none "$P" && {READ_ONLY}'


def in_project(how: str) -> list[str]:
    """Give what runs a program in a project that is so; root may write whatever the mode says."""
    if how == "gone":
        return ["sh", "-c", GONE]
    if os.geteuid() != 0:
        return ["sh", "-c", f'chmod 500 "$P" && {READ_ONLY}']
    mounting = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none "$P"']
    done = subprocess.run(mounting, env={"P": "/mnt", "PATH": os.defpath}, check=False)
    if done.returncode:
        pytest.skip("root writes to every folder, and this one may not mount a read-only one")
    return ["unshare", "--mount", "sh", "-c", MOUNTED]


@pytest.mark.parametrize("how", ["gone", "read-only"])
@pytest.mark.parametrize("event", EVENTS)
def test_a_project_folder_that_is_gone_or_read_only_is_no_matter(
    bob: Beside, tmp_path: Path, event: str, how: str
) -> None:
    bob.put(priority="now")
    project = tmp_path / "project"
    project.mkdir()
    told = {"P": str(project), "CLAUDE_PROJECT_DIR": str(project)}
    with bob.start("hook.py", event, before=in_project(how), **told) as hook:
        out, err = hook.communicate(SAID, timeout=60)
    assert (hook.returncode, err, bob.log) == (0, b"", "")
    assert (b"Hello." in out) == (event != "SessionEnd")


def test_a_home_that_nobody_may_write_to_breaks_no_turn(bob: Beside) -> None:
    bob.environ["CLAUDEMESH_HOME"] = "/proc/none"
    assert bob.feed("UserPromptSubmit", SAID) == QUIET


def test_a_home_that_makes_no_sense_breaks_no_turn(bob: Beside) -> None:
    for home in ("\udcff", "~nobody-at-all/x", "x" * 5_000):
        assert bob.feed("UserPromptSubmit", SAID, CLAUDEMESH_HOME=home) == QUIET


def test_who_switched_claudemesh_off_is_shown_nothing(bob: Beside) -> None:
    bob.put()
    assert bob.feed("UserPromptSubmit", SAID, CLAUDEMESH="off") == QUIET


def test_nobody_reading_what_is_printed_costs_one_offer_and_no_message(bob: Beside) -> None:
    bob.put()
    command = ["sh", "-c", '"$0" "$@" >&-']
    with bob.start("hook.py", "UserPromptSubmit", before=command) as process:
        assert process.communicate(SAID, timeout=60) == (b"", b"")
    assert (process.returncode, bob.row(1)["printed"]) == (0, None)
    (bob.home / "logs" / "routes.log").unlink()
    bob.sql.execute("UPDATE inbox SET lease_until_ms = 0")
    assert 'redelivered="true"' in bob.prompt()


def test_an_alias_that_can_not_be_written_keeps_nothing_from_being_shown(bob: Beside) -> None:
    bob.put()
    (bob.home / "sessions" / "aliases").write_text("no folder")
    assert "Hello." in bob.hook("SessionStart", source="clear")
    assert records.peer_of(bob.home, SESSION, bob.mesh_id) is None


def test_the_log_keeps_a_line_of_each_fault_and_does_not_grow_for_ever(tmp_path: Path) -> None:
    where = Places(str(tmp_path), str(tmp_path / "logs"))
    for _ in range(2_600):
        note_fault(where, "hook\nStop", ValueError("x" * 1_000))
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "logs").iterdir()}
    assert set(sizes) == {"routes.log", "routes.log.1"}
    assert max(sizes.values()) < 1_100_000
    lines = (tmp_path / "logs" / "routes.log").read_text("utf-8").splitlines()
    assert all(" hook Stop: ValueError: x" in line for line in lines)


@pytest.mark.parametrize("event", ["SessionStart", "UserPromptSubmit", "Stop"])
def test_a_home_that_others_can_write_to_is_believed_by_no_hook(bob: Beside, event: str) -> None:
    bob.put()
    bob.home.chmod(0o777)
    assert bob.feed(event, SAID).out == ""
    bob.home.chmod(0o755)
    assert "Hello." in bob.prompt()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_a_home_that_is_somebody_elses_is_believed_by_no_hook(bob: Beside) -> None:
    bob.put()
    os.chown(bob.home, 12_345, -1)
    assert bob.feed("UserPromptSubmit", SAID).out == ""
    assert bob.states() == ["waiting"]


def test_a_log_that_leads_elsewhere_or_is_a_pipe_takes_nothing_and_keeps_nobody(
    bob: Beside, tmp_path: Path
) -> None:
    log = bob.home / "logs" / "routes.log"
    log.parent.mkdir()
    elsewhere = tmp_path / "profile"
    elsewhere.write_text("mine")
    log.symlink_to(elsewhere)
    assert bob.feed("Stop", b"{") == QUIET
    assert elsewhere.read_text() == "mine"
    log.unlink()
    os.mkfifo(log)
    assert bob.feed("Stop", b"{") == QUIET
