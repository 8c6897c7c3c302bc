"""The commands that keep servers for the sessions of a home: what they say, refuse and end with."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from claudemesh_mcp.home import private_folder
from tests.support.shell import Done, Shell, shell_in


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        yield shell


def run(shell: Shell, *words: str, **variables: str) -> Done:
    return shell.run("mcp-server", *words, stdin=b"", **variables)


def kept(shell: Shell) -> list[dict[str, Any]]:
    return run(shell, "list", "--json").json["kept"]


def log_of(shell: Shell) -> Path:
    """Give where the stderr of a server goes, as its session makes it."""
    logs = private_folder(shell.home / "logs")
    return private_folder(private_folder(logs / "mcp-servers") / "p_a") / "sums.log"


def test_what_is_added_is_listed_with_where_it_comes_back(shell: Shell) -> None:
    said = ("--visible-to", "mesh", "--visible-to", "@team", "--tool", "a", "--tool", "b")
    done = run(shell, "add", "sums", *said, "--description", "adds", "--", "srv", "--json", "-x 1")
    assert (done.code, done.out) == (0, "")
    assert f"A session in {shell.folder} starts it" in done.err
    assert "offered to mesh, @team" in done.err
    [row] = kept(shell)
    assert (row["name"], row["scope"], row["folder"]) == ("sums", "project", str(shell.folder))
    assert (row["state"], row["by"], row["since"], row["why"]) == ("waiting", "", None, "")
    assert row["command"] == "srv --json '-x 1'"
    assert (row["visible_to"], row["tools_allowed"]) == (["mesh", "@team"], ["a", "b"])
    assert run(shell, "add", "sums", "--scope", "user", "--", "srv").code == 0
    broker = run(shell, "add", "sums", "--scope", "broker", "--url", "https://example.org/mcp?a=b")
    assert "broker run --host-mcp" in broker.err
    listed = run(shell, "list")
    rows = sorted(line.split()[:2] for line in listed.out.splitlines()[1:])
    assert rows == sorted(["sums", where] for where in (str(shell.folder), "broker", "user"))
    assert "a=b" not in listed.out


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (("sums", "--env", "TOKEN=hunter2", "--", "srv"), 2, "secret_in_command"),
        (("sums", "--env", "NO_SUCH_VARIABLE", "--", "srv"), 3, "no_variable"),
        (("sums", "--env", "", "--", "srv"), 2, "empty_value"),
        (("sums", "--env", " ", "--", "srv"), 2, "bad_variable"),
        (("sums", "--env", " =hunter2", "--", "srv"), 2, "bad_variable"),
        (("sums", "--tool", "", "--", "srv"), 2, "empty_value"),
        (("sums", "--tool", "a", "--tool", " ", "--", "srv"), 2, "bad_tool"),
        (("sums", "--env-file", "none", "--", "srv"), 2, "bad_file"),
        (("sums", "--env-file", "/dev/zero", "--", "srv"), 2, "bad_file"),
        (("sums", "--env-file", ".", "--", "srv"), 2, "bad_file"),
        (("sums", "--env-file", "large", "--", "srv"), 2, "bad_file"),
        (("sums", "--url", "https://example.org", "--header-file", "/dev/zero"), 2, "bad_file"),
        (("sums", "--env-file", "bad", "--", "srv"), 2, "bad_file"),
        (("sums", "--url", "https://example.org", "--header-file", "bad"), 2, "bad_file"),
        (("sums",), 2, "bad_launch"),
        (("sums", "--url", "https://example.org", "--", "srv"), 2, "bad_launch"),
        (("sums", "--url", "http://example.org"), 2, "bad_launch"),
        (("Sums", "--", "srv"), 2, "bad_server"),
        (("../sums", "--", "srv"), 2, "bad_server"),
        (("sums", "--description", "x" * 2001, "--", "srv"), 2, "bad_server"),
        (("sums", "--visible-to", "bob", "--", "srv"), 2, "bad_viewer"),
        (("sums", "--scope", "galaxy", "--", "srv"), 2, "invalid"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_kept(
    shell: Shell, words: tuple[str, ...], code: int, name: str
) -> None:
    (shell.folder / "bad").write_text("hunter2\n", "utf-8")
    (shell.folder / "large").write_text("A=hunter2\n" * 30_000, "utf-8")
    done = shell.run("--json", "mcp-server", "add", *words)
    assert (done.code, done.error["code"]) == (code, name)
    assert done.error["hint"]
    assert "hunter2" not in done.out + done.err
    assert not list(shell.home.glob("meshes/*/mcp-servers/*.entry"))


def test_a_secret_comes_by_a_pipe_too(shell: Shell) -> None:
    words = ("mcp-server", "add", "sums", "--env-file", "/dev/stdin", "--", "srv")
    assert shell.run(*words, stdin=b"TOKEN=hunter2\n").code == 0
    assert [row["name"] for row in kept(shell)] == ["sums"]
    bad = shell.run(*words, "--json", stdin=b"hunter2\n")
    assert (bad.code, "hunter2" in bad.out + bad.err) == (2, False)


def test_a_name_that_is_taken_is_refused_and_what_has_it_stays(shell: Shell) -> None:
    assert run(shell, "add", "sums", "--", "first").code == 0
    done = shell.run("--json", "mcp-server", "add", "sums", "--", "second")
    assert (done.code, done.error["code"]) == (1, "name_taken")
    assert [row["command"] for row in kept(shell)] == ["first"]


def test_what_is_removed_is_the_one_that_is_meant(shell: Shell) -> None:
    other = shell.folder / "other"
    other.mkdir()
    here, there = str(shell.folder), str(other)
    for folder in (here, there):
        run(shell, "add", "sums", "--", "srv", CLAUDE_PROJECT_DIR=folder)
    run(shell, "add", "sums", "--scope", "user", "--", "srv")
    away = str(shell.home)
    words = ("--json", "mcp-server", "remove", "sums")
    unclear = shell.run(*words, CLAUDE_PROJECT_DIR=away)
    assert (unclear.code, unclear.error["code"]) == (1, "ambiguous_server")
    assert there in unclear.error["message"]
    assert run(shell, "remove", "sums", CLAUDE_PROJECT_DIR=there).code == 0
    assert sorted(row["scope"] for row in kept(shell)) == ["project", "user"]
    assert run(shell, "remove", "sums", "--scope", "user", CLAUDE_PROJECT_DIR=away).code == 0
    assert [row["folder"] for row in kept(shell)] == [here]
    assert run(shell, "remove", "sums", CLAUDE_PROJECT_DIR=away).code == 0
    assert kept(shell) == []
    gone = shell.run("--json", "mcp-server", "remove", "sums")
    assert (gone.code, gone.error["code"]) == (3, "unknown_server")


def test_the_log_is_shown_from_its_end_and_over_files_that_were_turned_over(shell: Shell) -> None:
    none = shell.run("--json", "mcp-server", "logs", "sums")
    assert (none.code, none.error["code"]) == (3, "no_log")
    log = log_of(shell)
    log.with_name("sums.log.1").write_text("one\ntwo\n", "utf-8")
    log.write_bytes(b"thr\x1b[2Jee\nf\xffour\n")
    assert run(shell, "logs", "sums").out.splitlines() == ["one", "two", "three", "f�our"]
    assert run(shell, "logs", "sums", "--lines", "3").out.splitlines()[0] == "two"
    assert run(shell, "logs", "sums", "--lines", "0").out == ""
    for name in ("../p_a/sums", "*", "sums*"):
        assert shell.run("--json", "mcp-server", "logs", name).error["code"] == "no_log"


def test_a_log_that_is_followed_goes_on_behind_a_file_that_was_turned_over(shell: Shell) -> None:
    log = log_of(shell)
    log.write_text("a first line\n", "utf-8")
    words = ("mcp-server", "logs", "sums", "--follow")
    with shell.running(*words, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"a first line\n"
        with log.open("a", encoding="utf-8") as file:
            file.write("a second ")
            file.flush()
            file.write("one\n")
        assert process.stdout.readline() == b"a second one\n"
        log.replace(log.with_name("sums.log.1"))
        log.write_text("anew\n", "utf-8")
        assert process.stdout.readline() == b"anew\n"
