"""Where a session logs to, when several of them share one file."""

import logging
from pathlib import Path

import pytest

from claudemesh_mcp import logs
from claudemesh_mcp.logs import SharedFile


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("claudemesh_mcp.test", logging.INFO, "", 0, text, (), None)


def test_nothing_is_written_before_the_home_has_its_folder(tmp_path: Path) -> None:
    handler = SharedFile(tmp_path / "logs" / "session.log")
    handler.emit(record("too early"))
    (tmp_path / "logs").mkdir()
    handler.emit(record("in time"))
    handler.close()
    assert (tmp_path / "logs" / "session.log").read_text() == "in time\n"


def test_two_writers_share_a_file_that_one_of_them_turns_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 40)
    path = tmp_path / "session.log"
    one, other = SharedFile(path), SharedFile(path)
    other.emit(record("other: first"))
    for number in range(4):
        one.emit(record(f"one: line {number}"))
    other.emit(record("other: last"))
    one.close()
    other.close()
    lines = "".join(file.read_text() for file in tmp_path.iterdir()).splitlines()
    assert "other: last\n" in path.read_text()
    assert len(lines) == 6


def test_a_file_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    handler = SharedFile(tmp_path / "session.log")
    handler.emit(record("before"))
    (tmp_path / "session.log").unlink()
    handler.emit(record("after"))
    handler.close()
    assert (tmp_path / "session.log").read_text() == "after\n"
