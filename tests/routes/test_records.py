"""Session records and aliases: how hooks, monitor and server of one client find each other."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from claudemesh_mcp.routes import processes, records
from claudemesh_mcp.routes.processes import Living, claim, holder, started
from claudemesh_mcp.routes.records import Record

PEER = "p_" + "a" * 26
OTHER = "p_" + "b" * 26
ODD = ["", "../../etc/passwd", "a/b", "x" * 100_000, "\udcff", "naïve 😀", "*", "'; DROP TABLE"]


def of_this_process(**changes: object) -> Record:
    me = os.getpid()
    record = Record(me, started(me), me, PEER, "/f", "s", "bob", "local", "mem_a")
    return record._replace(**changes)


def a_dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_record_is_found_by_the_pid_of_its_client(tmp_path: Path) -> None:
    record = of_this_process()
    records.write(tmp_path, record)
    assert records.find(tmp_path, os.getpid()) == record
    assert records.find(tmp_path, 1) is None
    assert records.of_peer(tmp_path, PEER) == record
    assert records.of_peer(tmp_path, OTHER) is None


def test_nobody_else_can_read_records_and_aliases(tmp_path: Path) -> None:
    records.write(tmp_path, of_this_process())
    records.alias(tmp_path, "s", PEER)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in made} == {0o700}


def test_a_record_of_a_client_that_had_the_same_pid_before_is_none(tmp_path: Path) -> None:
    records.write(tmp_path, of_this_process(start=started(os.getpid()) - 1))
    assert records.find(tmp_path, os.getpid()) is None


def test_a_client_whose_start_is_not_known_is_believed_by_its_pid(tmp_path: Path) -> None:
    records.write(tmp_path, of_this_process(start=0))
    assert records.find(tmp_path, os.getpid()) is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"v": 1}', b"\xff", b"1" * 99])
def test_a_damaged_record_counts_as_none(tmp_path: Path, content: bytes) -> None:
    records.write(tmp_path, of_this_process())
    Path(records.path_of(tmp_path, of_this_process())).write_bytes(content)
    assert records.find(tmp_path, os.getpid()) is None


def test_each_server_of_a_client_has_a_record_and_removes_its_own(tmp_path: Path) -> None:
    me = os.getpid()
    first = of_this_process(server=1)
    second = of_this_process(server=2, peer=OTHER, mesh_id="mesh_b", mesh="work", file="/g")
    records.write(tmp_path, first)
    records.write(tmp_path, second)
    assert records.of_client(tmp_path, me) == [first, second]
    records.remove(tmp_path, me, 1)
    assert records.of_client(tmp_path, me) == [second]
    records.remove(tmp_path, me, 2)
    assert records.of_client(tmp_path, me) == []


def test_a_later_server_of_a_peer_takes_the_record_and_the_earlier_removes_nothing(
    tmp_path: Path,
) -> None:
    later = of_this_process(server=2)
    records.write(tmp_path, of_this_process(server=1))
    records.write(tmp_path, later)
    records.remove(tmp_path, os.getpid(), 1)
    assert records.of_client(tmp_path, os.getpid()) == [later]


def test_what_a_dead_server_of_the_client_left_goes_with_the_next_one_in_its_mesh(
    tmp_path: Path,
) -> None:
    dead = a_dead_pid()
    elsewhere = of_this_process(server=dead, peer="p_" + "c" * 26, mesh_id="mesh_b", file="/g")
    now = of_this_process(peer=OTHER, file="/h")
    for record in (elsewhere, of_this_process(server=dead), now):
        records.write(tmp_path, record)
    assert records.of_client(tmp_path, os.getpid()) == [now, elsewhere]


def test_a_record_of_an_earlier_version_is_found_until_its_peer_has_a_new_one(
    tmp_path: Path,
) -> None:
    me = os.getpid()
    records.write(tmp_path, of_this_process(server=1))
    written = Path(records.path_of(tmp_path, of_this_process()))
    written.rename(records.place(tmp_path, me, "json"))
    assert [one.server for one in records.of_client(tmp_path, me)] == [1]
    records.write(tmp_path, of_this_process(server=2))
    assert [one.server for one in records.of_client(tmp_path, me)] == [2]


def test_a_record_whose_peer_would_lead_out_of_the_folder_is_none(tmp_path: Path) -> None:
    records.write(tmp_path, of_this_process())
    path = Path(records.path_of(tmp_path, of_this_process()))
    path.write_text(path.read_text("utf-8").replace(PEER, "../p"), "utf-8")
    assert records.of_client(tmp_path, os.getpid()) == []


def test_a_session_has_an_alias_in_each_mesh(tmp_path: Path) -> None:
    records.alias(tmp_path, "one", PEER, "mesh_a")
    records.alias(tmp_path, "one", OTHER, "mesh_b")
    meshes = ("mesh_a", "mesh_b", "mesh_c")
    assert [records.peer_of(tmp_path, "one", one) for one in meshes] == [PEER, OTHER, None]
    records.unalias(tmp_path, "one", "mesh_a")
    assert [records.peer_of(tmp_path, "one", one) for one in meshes] == [None, OTHER, None]


def test_an_alias_of_an_earlier_version_holds_until_a_mesh_has_its_own(tmp_path: Path) -> None:
    records.alias(tmp_path, "one", PEER)
    assert records.peer_of(tmp_path, "one", "mesh_a") == PEER
    records.alias(tmp_path, "one", OTHER, "mesh_a")
    assert records.peer_of(tmp_path, "one", "mesh_a") == OTHER
    records.unalias(tmp_path, "one", "mesh_a")
    assert records.peer_of(tmp_path, "one", "mesh_a") is None


def test_what_is_left_of_clients_that_are_gone_is_swept(tmp_path: Path) -> None:
    gone = a_dead_pid()
    records.write(tmp_path, of_this_process())
    records.write(tmp_path, of_this_process(pid=gone))
    processes.replace_file(records.place(tmp_path, gone, "monitor"), b"1.1")
    records.sweep(tmp_path)
    kept = [path.name for path in Path(records.clients(tmp_path)).iterdir()]
    assert kept == [f"{os.getpid()}.{PEER}.json"]


def test_to_sweep_what_never_was_is_no_fault(tmp_path: Path) -> None:
    records.sweep(tmp_path / "none")
    records.remove(tmp_path / "none", 1, 1)


def test_an_alias_leads_from_a_session_to_its_peer(tmp_path: Path) -> None:
    records.alias(tmp_path, "one", PEER)
    records.alias(tmp_path, "two", OTHER)
    assert [records.peer_of(tmp_path, name) for name in ("one", "two", "three")] == [
        *(PEER, OTHER),
        None,
    ]
    records.unalias(tmp_path, "one")
    assert records.peer_of(tmp_path, "one") is None


@pytest.mark.parametrize("session", ODD, ids=range(len(ODD)))
def test_no_session_id_is_a_path_or_a_fault(tmp_path: Path, session: str) -> None:
    records.alias(tmp_path, session, PEER)
    assert records.peer_of(tmp_path, session) == (PEER if session else None)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent for path in made} <= {tmp_path / "sessions" / "aliases"}
    records.unalias(tmp_path, session)
    assert records.peer_of(tmp_path, session) is None


@pytest.mark.parametrize("content", ["", "../..", "p_", f"{PEER}x", "p_" + "A" * 26, "p_\xff"])
def test_an_alias_that_names_no_peer_names_none(tmp_path: Path, content: str) -> None:
    records.alias(tmp_path, "one", PEER)
    (file,) = (tmp_path / "sessions" / "aliases").iterdir()
    file.write_text(content, "utf-8")
    assert records.peer_of(tmp_path, "one") is None


def test_a_client_without_a_pid_is_found_by_the_alias_of_its_session(tmp_path: Path) -> None:
    record = of_this_process()
    records.write(tmp_path, record)
    assert records.find_by_session(tmp_path, "one") == []
    records.alias(tmp_path, "one", PEER)
    assert records.find_by_session(tmp_path, "one") == [record]


def test_the_newest_of_a_kind_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    place = tmp_path / "run" / "1.monitor"
    first = claim(place)
    assert holder(place) == Living.now(os.getpid())
    processes.replace_file(place, b"1.5")
    assert not first.holds
    first.release()
    assert place.exists()


def test_a_process_that_ended_and_that_nobody_waited_for_is_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        living = Living.now(child.pid)
        assert living.is_alive
        child.kill()
        # Waits for its end, and leaves it to be waited for.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert living.exists
        assert not living.is_alive


def test_a_place_whose_holder_is_gone_is_nobodys(tmp_path: Path) -> None:
    processes.replace_file(tmp_path / "1.monitor", f"{a_dead_pid()}.1".encode())
    assert holder(tmp_path / "1.monitor") is None
    assert holder(tmp_path / "none") is None


@pytest.mark.parametrize("word", ["", "x", "1", "1.", ".1", "-1.1", "0.0", "99999999999999.1"])
def test_a_word_that_names_no_process_names_nobody(tmp_path: Path, word: str) -> None:
    (tmp_path / "1.monitor").write_text(word, "utf-8")
    assert holder(tmp_path / "1.monitor") is None
