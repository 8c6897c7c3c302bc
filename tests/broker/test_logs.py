"""The log: lines in a file that rolls over, with what is bad on stderr."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.lowlevel import checkpoint

from claudemesh_broker.logs import LogLines


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[LogLines]:
    handler = LogLines(tmp_path / "broker.log", logging.WARNING, max_bytes=400)
    yield handler
    handler.close()


def record(
    text: str, level: int = logging.INFO, error: Exception | None = None
) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("broker", level, "", 0, "said %s", (text,), info)


def written(folder: Path) -> str:
    return (folder / "broker.log").read_text()


def test_a_line_tells_when_how_bad_who_and_what(tmp_path: Path, lines: LogLines) -> None:
    one = record("hello")
    one.created, one.msecs = 0.25, 250
    lines.emit(one)
    lines.emit(one)
    line = "1970-01-01T00:00:00.250Z INFO broker said hello\n"
    assert written(tmp_path) == line * 2


def test_what_is_bad_is_written_at_once_and_on_stderr(
    tmp_path: Path, lines: LogLines, capfd: pytest.CaptureFixture[str]
) -> None:
    lines.emit(record("before"))
    lines.emit(record("it broke", logging.ERROR, ValueError("because")))
    assert "said before" in written(tmp_path)
    said = capfd.readouterr().err
    assert "said it broke" in said
    assert "ValueError: because" in said
    assert "before" not in said


def test_full_files_are_kept_beside_it(tmp_path: Path, lines: LogLines) -> None:
    for number in range(40):
        lines.emit(record(f"number {number:02}"))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["broker.log", "broker.log.1", "broker.log.2"]
    assert "number 39" in written(tmp_path)
    assert all(path.stat().st_size <= 400 for path in tmp_path.iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_what_was_logged_before_is_kept(tmp_path: Path, lines: LogLines) -> None:
    lines.emit(record("first"))
    lines.close()
    lines.close()
    lines.emit(record("late"))
    again = LogLines(tmp_path / "broker.log", logging.WARNING)
    again.emit(record("second"))
    again.close()
    assert [line.rsplit(" ", 1)[-1] for line in written(tmp_path).splitlines()] == [
        "first",
        "second",
    ]


def test_a_disk_that_takes_nothing_costs_lines_only(lines: LogLines) -> None:
    os.close(lines._file)
    lines.emit(record("lost", logging.ERROR))
    lines._file = -1


async def test_what_one_turn_of_the_loop_logs_is_written_at_its_end(
    tmp_path: Path, lines: LogLines
) -> None:
    lines.emit(record("one"))
    lines.emit(record("two"))
    assert written(tmp_path) == ""
    await checkpoint()
    assert [line.rsplit(" ", 1)[-1] for line in written(tmp_path).splitlines()] == ["one", "two"]
    lines.emit(record("three"))
    await checkpoint()
    assert "three" in written(tmp_path)
