"""The peer file between processes: opened at once, killed in the middle, and on a full disk."""

import json
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.config import broker_environment

WRITER = """
import itertools, os, sys
from pathlib import Path
import anyio
from claudemesh_mcp.peerfile import PeerFile

async def main():
    file = await PeerFile.open(Path(sys.argv[1]))
    numbers = itertools.count(int(sys.argv[2]))

    async def write():
        for number in numbers:
            await file.write(lambda sql, n=number: sql.execute(
                "INSERT INTO names VALUES (?, 'somebody', 0)", (f"{n:08}",)).close())
            os.write(1, b"%d\\n" % number)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(write)

anyio.run(main)
"""

FULL_DISK = """
import asyncio, json, resource, sys, threading
from pathlib import Path
import anyio
from claudemesh_mcp.peerfile import PeerFile
from claudemesh_wire.errors import MeshError

PATH = Path(sys.argv[1])
LOG = PATH.with_name(PATH.name + "-wal")

def limit(more):
    most = resource.RLIM_INFINITY if more is None else LOG.stat().st_size + more
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

def insert(name, size):
    return lambda sql: sql.execute(
        "INSERT INTO names VALUES (?, ?, 0)", (name, "x" * size)).rowcount

def count(sql):
    return sql.execute("SELECT count(*) FROM names").fetchone()[0]

async def attempt(file, change):
    return await answer(file.write(change))

async def answer(waiting):
    try:
        return await waiting
    except MeshError as error:
        return error.code

async def together(file):
    # Handed in behind a job that holds the thread, so that one batch has all of them.
    began, goes_on = threading.Event(), threading.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(file.read, lambda sql: began.set() or goes_on.wait(30))
        await anyio.to_thread.run_sync(began.wait)
        jobs = (file.write(insert("together", int(sys.argv[2]))), file.read(count),
            file.write(count))
        told = await asyncio.gather(*map(answer, jobs), answer(release(goes_on)))
    return told[:-1]

async def release(goes_on):
    goes_on.set()

async def main():
    file = await PeerFile.open(PATH)
    told = {"before": await attempt(file, insert("before", 10))}
    limit(8192)
    told["full"] = await attempt(file, insert("full", int(sys.argv[2])))
    told["reading"] = await attempt(file, count)
    told["together"] = await together(file)
    limit(None)
    told["resumed"] = await attempt(file, insert("resumed", 10))
    told["in all"] = await attempt(file, count)
    await file.close()
    print(json.dumps(told))

anyio.run(main)
"""

OPENER = """
import sys
from pathlib import Path
import anyio
from claudemesh_mcp.peerfile import PeerFile

async def main():
    file = await PeerFile.open(Path(sys.argv[1]))
    await file.write(lambda sql: sql.execute(
        "INSERT INTO names VALUES (?, 'somebody', 0)", (sys.argv[2],)).close())
    await file.close()

anyio.run(main)
"""


def command(program: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", program, *map(str, arguments)]


def run(program: str, *arguments: object) -> str:
    ended = subprocess.run(
        command(program, *arguments),
        env=broker_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def look(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def test_many_processes_open_a_new_file_at_once(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: run(OPENER, path, number), range(8)))
    assert look(path, "SELECT count(*) FROM names") == [(8,)]


def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_writes(path: Path) -> None:
    acknowledged: set[int] = set()
    for turn in range(4):
        with subprocess.Popen(
            command(WRITER, path, turn * 1_000_000),
            env=broker_environment(),
            stdout=subprocess.PIPE,
        ) as writer:
            assert writer.stdout is not None
            acknowledged |= {int(writer.stdout.readline()) for _ in range(150 + 70 * turn)}
            writer.send_signal(signal.SIGKILL)
            acknowledged |= {int(line) for line in writer.stdout if line.endswith(b"\n")}
    kept = {int(name) for (name,) in look(path, "SELECT name FROM names")}
    assert acknowledged <= kept
    assert len(acknowledged) >= 1000


@pytest.mark.parametrize("size", [50_000, 12_000_000])
def test_a_full_disk_refuses_keeps_reading_and_resumes(path: Path, size: int) -> None:
    told = json.loads(run(FULL_DISK, path, size))
    assert told == {
        "before": 1,
        "full": "storage_full",
        "reading": 1,
        "together": ["storage_full", 1, 1],
        "resumed": 1,
        "in all": 2,
    }
