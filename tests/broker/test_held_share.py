"""What is held of one member in a queue: counted by itself, whatever else waits there."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from claudemesh_broker.datafile import Connections, open_datafile
from claudemesh_broker.queues import held_of
from claudemesh_broker.sql import Sql

PUT = (
    "INSERT INTO messages (seq, mesh, sender, id, conversation, header_hash, certificate_hash,"
    " size_bytes, accepted_ms, expires_ms, pending)"
    " VALUES (?, 'm', ?, ?, 'd', x'', x'', 100, 1, 2, 1)"
)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Connections]:
    made = open_datafile(tmp_path / "data" / "broker.sqlite3")
    with closing(made.reader), closing(made.writer):
        for peer, member in (("ann", "mem_a"), ("eve", "mem_e")):
            made.writer.execute(
                "INSERT INTO peers (mesh, peer, member, type, status, first_seen_ms, last_seen_ms)"
                " VALUES ('m', ?, ?, 'claude', 'idle', 1, 1)",
                (peer, member),
            )
        yield made


def put(data: Connections, seqs: range, sender: str, held_ms: int | None) -> None:
    for seq in seqs:
        data.writer.execute(PUT, (seq, sender, str(seq)))
        data.writer.execute(
            "INSERT INTO deliveries (seq, recipient, position, status, held_ms)"
            " VALUES (?, 'bob', 0, 'queued', ?)",
            (seq, held_ms),
        )


def steps_to_count(data: Connections) -> tuple[tuple[int, int], int]:
    """Count what is held of one member; give that, and how many steps SQLite took for it."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    data.writer.set_progress_handler(step, 1)
    found = held_of(Sql(data.writer), "m", "bob", "mem_e")
    data.writer.set_progress_handler(None, 0)
    return found, steps


def test_what_is_held_of_a_member_is_counted_for_itself(data: Connections) -> None:
    put(data, range(1, 4), "ann", 1)
    put(data, range(4, 6), "eve", 1)
    put(data, range(6, 9), "eve", None)
    found, _ = steps_to_count(data)
    assert found == (2, 200)


def test_a_long_queue_makes_it_no_dearer_to_count_what_is_held(data: Connections) -> None:
    put(data, range(1, 3), "eve", 1)
    found, few = steps_to_count(data)
    put(data, range(3, 500), "ann", None)
    again, many = steps_to_count(data)
    assert (found, many) == (again, few)
