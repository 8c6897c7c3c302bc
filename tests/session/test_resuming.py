"""Aliases of sessions that nobody has gone on with for long are removed, and no others."""

import os
import time
from pathlib import Path

import pytest

from claudemesh_mcp.plugin.entries import WAIT_S
from claudemesh_mcp.resuming import ALIAS_KEPT_S, forget_unused
from claudemesh_mcp.routes import records

PEER = "p_" + "a" * 26
MESH = "mesh_a"
NOW_S = time.time()
LONG_AGO_S = NOW_S - ALIAS_KEPT_S - 1
LATELY_S = NOW_S - ALIAS_KEPT_S + 60


def an_alias(home: Path, session: str, written_s: float, peer: str = PEER) -> None:
    known = {*Path(records.aliases(home)).glob("*")}
    records.alias(home, session, peer, MESH)
    (file,) = {*Path(records.aliases(home)).glob("*")} - known
    os.utime(file, (written_s, written_s))


def a_file(home: Path, name: str, changed_s: float) -> None:
    path = home / "sessions" / PEER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    os.utime(path, (changed_s, changed_s))


def peer_of(home: Path, session: str) -> str | None:
    return records.peer_of(home, session, MESH)


def test_one_that_is_old_is_removed_and_a_later_one_stays(tmp_path: Path) -> None:
    an_alias(tmp_path, "old", LONG_AGO_S)
    an_alias(tmp_path, "late", LATELY_S)
    a_file(tmp_path, "peer.db", LONG_AGO_S)
    forget_unused(tmp_path, NOW_S)
    assert (peer_of(tmp_path, "old"), peer_of(tmp_path, "late")) == (None, PEER)
    assert (tmp_path / "sessions" / PEER / "peer.db").exists()


@pytest.mark.parametrize("name", ["peer.db", "peer.db-wal"])
def test_one_whose_peer_is_in_use_stays(tmp_path: Path, name: str) -> None:
    an_alias(tmp_path, "old", LONG_AGO_S)
    a_file(tmp_path, "peer.db", LONG_AGO_S)
    a_file(tmp_path, name, LATELY_S)
    forget_unused(tmp_path, NOW_S)
    assert peer_of(tmp_path, "old") == PEER


def test_one_whose_peer_is_not_here_any_more_is_removed(tmp_path: Path) -> None:
    an_alias(tmp_path, "old", LONG_AGO_S)
    forget_unused(tmp_path, NOW_S)
    assert peer_of(tmp_path, "old") is None


@pytest.mark.parametrize("content", [b"", b"\0", b"../../x", b"\xff" * 100])
def test_one_that_makes_no_sense_is_no_fault(tmp_path: Path, content: bytes) -> None:
    an_alias(tmp_path, "old", LONG_AGO_S)
    (file,) = Path(records.aliases(tmp_path)).glob("*")
    file.write_bytes(content)
    os.utime(file, (LONG_AGO_S, LONG_AGO_S))
    forget_unused(tmp_path, NOW_S)
    forget_unused(tmp_path / "none", NOW_S)


def test_an_alias_outlasts_the_time_after_which_a_peer_is_archived() -> None:
    assert ALIAS_KEPT_S > 30 * 24 * 3600


def test_a_rewake_hook_waits_as_long_as_a_clients_timer_can() -> None:
    longest_ms = 2**31 - 1
    assert 20 * 24 * 3600 < WAIT_S < longest_ms / 1000
