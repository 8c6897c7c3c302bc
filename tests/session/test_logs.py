"""Where a session logs to, when several of them share one file."""

import logging
from pathlib import Path

import pytest

from claudemesh_mcp import logs
from claudemesh_mcp.logs import SharedFile, log_to_file, log_to_stderr


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


def test_no_more_files_are_kept_than_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 1)
    handler = SharedFile(tmp_path / "session.log")
    for number in range(9):
        handler.emit(record(f"line {number}"))
    handler.close()
    kept = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert kept == {
        "session.log": "line 8\n",
        "session.log.1": "line 7\n",
        "session.log.2": "line 6\n",
        "session.log.3": "line 5\n",
    }


def test_a_file_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    handler = SharedFile(tmp_path / "session.log")
    handler.emit(record("before"))
    (tmp_path / "session.log").unlink()
    handler.emit(record("after"))
    handler.close()
    assert (tmp_path / "session.log").read_text() == "after\n"


def test_a_line_says_when_in_utc_where_and_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("claudemesh_mcp")
    before, level = list(logger.handlers), logger.level
    try:
        log_to_stderr("info")
        log_to_file(tmp_path)
        logger.getChild("test").info("it is %s", "so")
        logger.getChild("test").debug("too fine")
    finally:
        logger.setLevel(level)
        for handler in set(logger.handlers) - set(before):
            logger.removeHandler(handler)
            handler.close()
    written = (tmp_path / "session.log").read_text()
    assert capsys.readouterr().err == written
    assert written.count("\n") == 1
    assert "Z INFO claudemesh_mcp.test[" in written
    assert written.endswith("it is so\n")
