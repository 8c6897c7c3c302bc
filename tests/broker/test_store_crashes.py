"""The store under a kill and on a full disk: what was acknowledged stays, what was not may go."""

import json
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.stores import run_program, start_program

WRITER = """
import os, sys
from pathlib import Path
import anyio
from claudemesh_broker.store import Store

async def main():
    store = await Store.open(Path(sys.argv[1]) / "data" / "broker.sqlite3", print)
    numbers = iter(range(int(sys.argv[2]), 10**9))

    async def write():
        for number in numbers:
            await store.write(lambda sql, n=number: sql.execute(
                "INSERT INTO envelopes VALUES (?, x'00', x'00', x'00', ?)", n, bytes(600)))
            os.write(1, b"%d\\n" % number)

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(write)

anyio.run(main)
"""

FULL_DISK = """
import json, resource, sys
from pathlib import Path
import anyio
from claudemesh_broker.store import Store
from claudemesh_wire.errors import MeshError

LOG = Path(sys.argv[1]) / "data" / "broker.sqlite3-wal"
BODY_BYTES = int(sys.argv[2])

def limit(more):
    most = resource.RLIM_INFINITY if more is None else LOG.stat().st_size + more
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

def insert(sql, number, size):
    sql.execute("INSERT INTO envelopes VALUES (?, x'00', x'00', x'00', ?)", number, bytes(size))
    return number

async def write(store, numbers, size):
    futures = [store.write(lambda sql, n=n: insert(sql, n, size)) for n in numbers]
    acknowledged, codes = [], []
    for future in futures:
        try:
            acknowledged.append(await future)
        except MeshError as error:
            codes.append(error.code)
    return acknowledged, codes

def stored(sql):
    return [row["seq"] for row in sql.all("SELECT seq FROM envelopes ORDER BY seq")]

async def main():
    told = {}
    deaths = []
    store = await Store.open(LOG.with_name("broker.sqlite3"), deaths.append)
    before, _ = await write(store, range(10), 100)
    limit(64 * 1024)
    full, codes = await write(store, range(10, 60), BODY_BYTES)
    told["codes"] = sorted(set(codes))
    told["acknowledged_while_full"] = before + full
    told["stored_while_full"] = await store.read(stored)
    limit(None)
    after, codes = await write(store, range(60, 70), 100)
    told["codes_after"] = codes
    told["acknowledged"] = before + full + after
    told["stored"] = await store.read(stored)
    await store.close()
    told["deaths"] = len(deaths)
    print(json.dumps(told))

anyio.run(main)
"""


def stored_numbers(folder: Path) -> set[int]:
    with closing(sqlite3.connect(folder / "data" / "broker.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {number for (number,) in database.execute("SELECT seq FROM envelopes")}


def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    chance = random.Random(20261123)  # noqa: S311 - a seed, not a secret
    acknowledged: set[int] = set()
    for _ in range(5):
        first = max(acknowledged, default=-1) + 1_000
        with start_program(WRITER, str(tmp_path), str(first)) as process:
            assert process.stdout is not None
            for _ in range(chance.randint(1, 600)):
                acknowledged.add(int(process.stdout.readline()))
            process.send_signal(signal.SIGKILL)
            # The last line may be cut short; whole ones were acknowledged too.
            rest = process.stdout.read().split("\n")[:-1]
            acknowledged |= {int(line) for line in rest}
        assert acknowledged <= stored_numbers(tmp_path)


@pytest.mark.parametrize("body_bytes", [8_000, 1_500_000], ids=["at_the_commit", "within_a_change"])
def test_a_full_disk_refuses_reads_on_and_resumes(tmp_path: Path, body_bytes: int) -> None:
    told = run_program(FULL_DISK, str(tmp_path), str(body_bytes))
    assert told["codes"] == ["storage_full"], json.dumps(told)
    assert told["stored_while_full"] == told["acknowledged_while_full"]
    assert told["codes_after"] == []
    assert told["stored"] == told["acknowledged"]
    assert told["deaths"] == 0


START = """
import json, os, resource, signal, sqlite3, sys
from pathlib import Path
from claudemesh_broker import datafile
from claudemesh_wire.errors import MeshError

kill_at, most_bytes = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
real, seen = sqlite3.connect, 0

def count(statement):
    global seen
    seen += 1
    if seen == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

def connect(*arguments, **rest):
    database = real(*arguments, **rest)
    database.set_trace_callback(count)
    return database

sqlite3.connect = connect
try:
    made = datafile.open_datafile(Path(sys.argv[1]) / "data" / "broker.sqlite3")
except MeshError as error:
    print(json.dumps({"code": error.code}))
else:
    made.reader.close()
    made.writer.close()
    print(json.dumps({"statements": seen}))
# What measures the coverage of this run has to write a file too.
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
NO_LIMIT = str(2**40)


def test_a_kill_while_the_database_is_made_does_no_harm(tmp_path: Path) -> None:
    total = run_program(START, str(tmp_path / "whole"), "0", NO_LIMIT)["statements"]
    for kill_at in (1, total // 4, total // 2, total - 3, total - 2, total - 1, total):
        folder = tmp_path / str(kill_at)
        with start_program(START, str(folder), str(kill_at), NO_LIMIT) as process:
            process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert "statements" in run_program(START, str(folder), "0", NO_LIMIT)
        assert stored_numbers(folder) == set()


@pytest.mark.parametrize("most_bytes", [0, 4096, 20_000])
def test_a_start_on_a_full_disk_is_refused_and_the_next_succeeds(
    tmp_path: Path, most_bytes: int
) -> None:
    assert run_program(START, str(tmp_path), "0", str(most_bytes)) == {"code": "storage_full"}
    assert "statements" in run_program(START, str(tmp_path), "0", NO_LIMIT)
    assert stored_numbers(tmp_path) == set()
