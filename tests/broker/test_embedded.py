"""A broker's life: one per data folder, one key for ever, found where it says it listens."""

import base64
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh_broker.datafile import open_datafile
from claudemesh_broker.embedded import (
    Announcement,
    Rest,
    announce,
    claim_database,
    load_signing_key,
    may_end,
    new_token,
    report_failure,
    withdraw,
)
from claudemesh_broker.folders import FolderLock, read_private
from claudemesh_broker.sql import Sql
from claudemesh_wire import DATA_VERSION, VERSION
from claudemesh_wire.errors import Conflict, Forbidden, MeshError, Unavailable
from claudemesh_wire.keys import SigningKey, VerifyKey, broker_id
from tests.support.stores import start_program

HOLDER = """
import sys
from pathlib import Path
from claudemesh_broker.folders import FolderLock
lock = FolderLock.take(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
BOOTSTRAP = """
import os, signal, sys
from pathlib import Path
from claudemesh_broker import folders
from claudemesh_broker.embedded import load_signing_key

step = int(sys.argv[2])

def counted(name):
    real = getattr(os, name)
    def call(*arguments, **rest):
        global step
        step -= 1
        if step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **rest)
    return call

for name in ("open", "fsync", "link"):
    setattr(os, name, counted(name))
load_signing_key(Path(sys.argv[1]))
print("done")
"""
HOUR_MS = 3_600_000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def announcement(data: Path) -> Announcement:
    return Announcement(
        url="http://127.0.0.1:4711",
        data=data,
        started_ms=7,
        key=SigningKey(bytes(range(32))),
        token=new_token(),
        bind="127.0.0.2",
    )


def test_a_second_broker_on_the_same_data_is_refused_with_the_pid_of_the_first(data: Path) -> None:
    with FolderLock.take(data), pytest.raises(Conflict) as caught:
        FolderLock.take(data, patience_s=0)
    assert caught.value.code == "data_in_use"
    assert caught.value.details == {"pid": os.getpid()}
    FolderLock.take(data, patience_s=0).release()


def test_the_data_of_a_killed_broker_are_free(data: Path) -> None:
    with start_program(HOLDER, str(data)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Conflict) as caught:
            FolderLock.take(data, patience_s=0)
        assert caught.value.details == {"pid": holder.pid}
        holder.kill()
    FolderLock.take(data, patience_s=0).release()


def test_the_lock_stays_a_file_that_only_the_owner_can_read(data: Path) -> None:
    with FolderLock.take(data):
        assert (data / "lock").read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE((data / "lock").stat().st_mode) == 0o600


def test_the_key_is_made_once_and_for_ever(data: Path) -> None:
    first = load_signing_key(data)
    assert load_signing_key(data) == first
    assert stat.S_IMODE((data / "broker.key").stat().st_mode) == 0o600
    assert (data / "broker.key").read_bytes() == first.seed


@pytest.mark.parametrize("step", range(1, 9))
def test_a_kill_at_any_step_of_making_the_key_leaves_one_key(data: Path, step: int) -> None:
    with start_program(BOOTSTRAP, str(data), str(step)) as process:
        process.communicate(timeout=60)
    made = read_private(data / "broker.key")
    assert made is None or len(made) == 32
    key = load_signing_key(data)
    assert made in {None, key.seed}
    assert load_signing_key(data) == key


def test_a_damaged_key_is_refused_and_never_replaced(data: Path) -> None:
    load_signing_key(data)
    (data / "broker.key").write_bytes(b"short")
    with pytest.raises(Unavailable) as caught:
        load_signing_key(data)
    assert caught.value.code == "key_damaged"
    assert (data / "broker.key").read_bytes() == b"short"


def test_a_key_that_others_can_read_is_refused(data: Path) -> None:
    load_signing_key(data)
    (data / "broker.key").chmod(0o644)
    with pytest.raises(Forbidden) as caught:
        load_signing_key(data)
    assert caught.value.code == "wrong_mode"


def test_a_lost_key_is_told_and_no_other_made(data: Path) -> None:
    load_signing_key(data)
    made = open_datafile(data / "broker.sqlite3")
    made.reader.close()
    made.writer.close()
    (data / "broker.key").unlink()
    with pytest.raises(Unavailable) as caught:
        load_signing_key(data)
    assert caught.value.code == "key_missing"
    assert not (data / "broker.key").exists()


def test_a_database_belongs_to_the_key_beside_it(data: Path) -> None:
    made = open_datafile(data / "broker.sqlite3")
    sql, key = Sql(made.writer), SigningKey(bytes(32))
    assert claim_database(sql, key) == broker_id(key.public)
    assert claim_database(sql, key) == broker_id(key.public)
    with pytest.raises(Conflict) as caught:
        claim_database(sql, SigningKey(bytes([1]) * 32))
    assert caught.value.code == "key_changed"
    made.reader.close()
    made.writer.close()


def test_an_announcement_says_how_to_reach_and_know_the_broker(data: Path, run: Path) -> None:
    said = announcement(data)
    announce(run, said)
    told = json.loads((run / "broker.json").read_bytes())
    key = VerifyKey(base64.urlsafe_b64decode(told.pop("key") + "=="))
    token = base64.urlsafe_b64decode(told.pop("token") + "==")
    assert (key, token) == (said.key.public, said.token)
    assert told == {
        "id": broker_id(key),
        "url": "http://127.0.0.1:4711",
        "pid": os.getpid(),
        "version": VERSION,
        "data": str(data),
        "data_version": DATA_VERSION,
        "started_ms": 7,
        "pin": "",
        "bind": "127.0.0.2",
    }
    assert stat.S_IMODE((run / "broker.json").stat().st_mode) == 0o600


def test_a_token_is_new_at_every_start_and_never_shown(data: Path) -> None:
    said = announcement(data)
    assert said.token != new_token()
    assert said.token.hex() not in repr(said)
    assert said.key.seed.hex() not in repr(said)
    assert repr(said.token) not in repr(said)


def test_a_broker_takes_back_its_own_announcement_only(data: Path, run: Path) -> None:
    mine = announcement(data)
    announce(run, mine)
    theirs = replace(mine, token=new_token())
    announce(run, theirs)
    assert not withdraw(run, mine)
    assert (run / "broker.json").exists()
    assert withdraw(run, theirs)
    assert not (run / "broker.json").exists()
    assert not withdraw(run, theirs)


def test_a_failed_start_says_why_until_one_succeeds(data: Path, run: Path) -> None:
    error: MeshError = Conflict("The port is taken.", "Name another.", code="port_in_use")
    report_failure(run, error)
    assert json.loads((run / "broker-error.json").read_bytes()) == {
        "error": {
            "category": "conflict",
            "code": "port_in_use",
            "message": "The port is taken.",
            "hint": "Name another.",
        }
    }
    assert stat.S_IMODE((run / "broker-error.json").stat().st_mode) == 0o600
    announce(run, announcement(data))
    assert not (run / "broker-error.json").exists()


IDLE = Rest(connections=0, last_activity_ms=0, next_due_ms=None)


@pytest.mark.parametrize(
    ("rest", "now_ms", "ends"),
    [
        (IDLE, HOUR_MS - 1, False),
        (IDLE, HOUR_MS, True),
        (replace(IDLE, connections=1), 10 * HOUR_MS, False),
        (replace(IDLE, next_due_ms=HOUR_MS - 1), HOUR_MS, False),
        (replace(IDLE, next_due_ms=2 * HOUR_MS - 1), HOUR_MS, False),
        (replace(IDLE, next_due_ms=2 * HOUR_MS), HOUR_MS, True),
        (replace(IDLE, last_activity_ms=1), HOUR_MS, False),
    ],
)
def test_a_broker_ends_when_idle_with_nothing_due_soon(rest: Rest, now_ms: int, ends: bool) -> None:  # noqa: FBT001 - a column of the table
    assert may_end(rest, now_ms, HOUR_MS) is ends


@given(
    connections=st.integers(1, 100),
    due_ms=st.none() | st.integers(0, 10**13),
    now_ms=st.integers(0, 10**13),
)
def test_a_broker_never_ends_while_somebody_is_connected(
    connections: int, due_ms: int | None, now_ms: int
) -> None:
    assert not may_end(Rest(connections, 0, due_ms), now_ms, HOUR_MS)
