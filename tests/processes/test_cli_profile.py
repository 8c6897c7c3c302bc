"""What a user tells of itself at the command line, and what it hears of others while it waits."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.support.shell import LIMIT_S, Shell, shell_in


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        yield shell


def test_a_profile_is_kept_and_changed_part_by_part(shell: Shell) -> None:
    first = shell.run(
        *("profile", "set", "--title", "Release manager", "--avatar", "🦊", "--json"),
        *("--capability", "deploys", "--capability", "rust", "--summary", "v2"),
    )
    assert first.code == 0, first.err
    told = {"title": "Release manager", "avatar": "🦊", "capabilities": ["deploys", "rust"]}
    assert (first.json["profile"], first.json["summary"]) == (told, "v2")
    second = shell.run(
        "profile", "set", "--bio", "Ships.", "--title", "", "--hidden", "--share-cwd", "--json"
    )
    del told["title"]
    assert second.json["profile"] == {**told, "bio": "Ships."}
    assert (second.json["visible"], second.json["share_cwd"]) == (False, True)
    assert shell.run("profile", "--json").json == second.json
    words = shell.run("profile")
    assert (words.code, words.err) == (0, "")
    assert "  bio: Ships.\n" in words.out
    assert "  capabilities: deploys, rust\n" in words.out
    assert "  hidden\n" in words.out
    shown = shell.run("profile", "set", "--visible", "--no-share-cwd", "--json").json
    assert (shown["visible"], shown["share_cwd"]) == (True, False)


def test_a_part_that_does_not_fit_is_refused_and_changes_nothing(shell: Shell) -> None:
    refused = shell.run("profile", "set", "--avatar", "http://x/", "--title", "T", "--json")
    assert (refused.code, refused.error["code"]) == (2, "bad_profile")
    assert shell.run("profile", "--json").json["profile"] == {}


async def test_who_comes_and_goes_is_told_in_words_while_messages_are_followed(
    shell: Shell,
) -> None:
    with anyio.fail_after(LIMIT_S):
        with shell.running("inbox", "--follow", "--json", warm=True) as following:
            assert following.stderr is not None
            line = following.stderr.readline
            assert b"Waiting" in await anyio.to_thread.run_sync(line)
            async with shell.session("bob"):
                assert await anyio.to_thread.run_sync(line) == b"bob joined\n"
            assert await anyio.to_thread.run_sync(line) == b"bob left\n"
            async with shell.session("bob"):
                assert b"bob is back, last seen " in await anyio.to_thread.run_sync(line)
