"""A command that the tests start warm is in nothing else than its speed unlike one from nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosting import ok
from tests.support.shell import Shell, shell_in


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        yield shell


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (("--version",), b""),
        (("send", "--help"), b""),
        (("sned",), b""),
        (("config", "get", "name", "--json"), b""),
        (("config", "get", "nmae", "--json"), b""),
        (("send", "nobody", "-"), b"\xff"),
        (("broker", "check", "--data", "elsewhere"), b""),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else None,
)
def test_it_prints_and_ends_alike(shell: Shell, words: tuple[str, ...], stdin: bytes) -> None:
    cold = shell.run_cold(*words, stdin=stdin)
    assert shell.run(*words, stdin=stdin) == cold
    assert cold.out + cold.err


def test_it_has_an_environment_of_its_own(shell: Shell) -> None:
    asked = ("config", "get", "name")
    assert ok(shell.run(*asked, CLAUDEMESH_NAME="ada")).out == "ada\n"
    assert ok(shell.run(*asked, CLAUDEMESH_NAME="bob")).out == "bob\n"


def test_a_broker_that_it_starts_outlives_it_and_keeps_none_of_its_streams(shell: Shell) -> None:
    ok(shell.run("up"))
    assert ok(shell.run_cold("status", "--json")).json["broker"]


def test_what_it_reads_ends_where_it_was_given_an_end(shell: Shell) -> None:
    done = shell.run("send", "nobody", "-", "--json", stdin=b"")
    assert done.error["code"] == "empty_text"
