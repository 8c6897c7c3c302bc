"""`claudemesh launch`: what the client it becomes is given, and what it is refused with.

A program in the client's place says how it was started; the real one is in
``tests/claude/test_launch.py``.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.live import LIMIT_S, LiveSession, a_moment, alive
from tests.support.shell import Shell, shell_in

CLIENT = """#!/bin/sh
env | grep '^CLAUDEMESH' | grep -v HOME= | grep -v KEYRING= | sort
for word; do echo "<$word>"; done
exit 7
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        program = tmp_path / "bin" / "claude"
        program.parent.mkdir()
        program.write_text(CLIENT, "utf-8")
        program.chmod(0o755)
        yield shell


def launched(shell: Shell, *words: str) -> tuple[list[str], list[str]]:
    """Launch; gives the variables and the words that the client was given."""
    path = f"{shell.folder / 'bin'}:/usr/bin:/bin"
    done = shell.run("launch", *words, PATH=path, CLAUDE_CONFIG_DIR=str(shell.folder / "c"))
    assert (done.code, done.err) == (7, "")
    lines = done.out.splitlines()
    return (
        [line for line in lines if not line.startswith("<")],
        [line[1:-1] for line in lines if line.startswith("<")],
    )


def test_the_client_is_told_what_was_asked_for_and_given_its_own_words(shell: Shell) -> None:
    (shell.folder / "c").mkdir()
    servers = {"mcpServers": {"claudemesh": {"command": "/x/claudemesh", "args": ["mcp"]}}}
    (shell.folder / "c" / ".claude.json").write_text(json.dumps(servers), "utf-8")
    wished = ("--mesh", "local", "--name", "ada", "--role", "lead", "--groups", "ops,review:lead")
    told, words = launched(shell, *wished, "--resume", "nightly", "--", "-p", "Hello, you.")
    assert told == [
        "CLAUDEMESH_GROUPS=ops,review:lead",
        "CLAUDEMESH_MESH=local",
        "CLAUDEMESH_MULTICAST=on",
        "CLAUDEMESH_NAME=ada",
        "CLAUDEMESH_RESUME=nightly",
        "CLAUDEMESH_ROLE=lead",
    ]
    assert words == ["-p", "Hello, you."]


def test_a_client_that_does_not_have_the_server_is_given_it_for_this_session(shell: Shell) -> None:
    told, words = launched(shell, "--", "--model", "opus")
    assert told == ["CLAUDEMESH_MULTICAST=on"]
    given: dict[str, Any] = dict(zip(words[::2], words[1::2], strict=True))
    assert given["--model"] == "opus"
    (server,) = json.loads(given["--mcp-config"])["mcpServers"].values()
    assert [server["command"], *server["args"]][-1] == "mcp"
    assert "Stop" in json.loads(given["--settings"])["hooks"]
    assert not (shell.folder / "c").exists()


OWN: dict[str, Any] = {
    "includeCoAuthoredBy": False,
    "hooks": {"Stop": [{"hooks": [{"type": "command", "command": "say done"}]}]},
}


def settings_of(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Give the settings that the client was given, which are given once, and what they say."""
    (at,) = [number for number, word in enumerate(words) if word.startswith("--settings")]
    assert words[at] == "--settings"
    told = words[at + 1]
    return told, json.loads(told if told.startswith("{") else Path(told).read_text("utf-8"))


def assert_both(told: dict[str, Any]) -> None:
    """What the user set is there, and behind each hook of his is ours."""
    assert told["includeCoAuthoredBy"] is False
    first, second = told["hooks"]["Stop"]
    assert first == OWN["hooks"]["Stop"][0]
    assert "hook.py" in str(second["hooks"][0]["args"])
    assert set(told["hooks"]) == {
        "SessionStart",
        "UserPromptSubmit",
        "PostToolUse",
        "Stop",
        "SessionEnd",
    }


@pytest.mark.parametrize("joined", [False, True])
def test_settings_that_the_user_writes_for_the_client_are_given_with_our_hooks(
    shell: Shell, *, joined: bool
) -> None:
    given = json.dumps(OWN)
    own = [f"--settings={given}"] if joined else ["--settings", given]
    _, words = launched(shell, "--", "--model", "opus", *own, "-p", "Hello.")
    _, told = settings_of(words)
    assert_both(told)
    assert words[-4:] == ["--model", "opus", "-p", "Hello."]


@pytest.mark.parametrize("joined", [False, True])
def test_a_file_of_settings_is_given_with_our_hooks_and_not_shown_on_the_command_line(
    shell: Shell, *, joined: bool
) -> None:
    file = shell.folder / "own settings.json"
    written = json.dumps({**OWN, "env": {"TOKEN": "a secret"}})
    file.write_text(written, "utf-8")
    own = [f"--settings={file.name}"] if joined else ["--settings", file.name]
    _, words = launched(shell, "--", *own, "-p", "Hello.")
    path, told = settings_of(words)
    assert_both(told)
    assert told["env"] == {"TOKEN": "a secret"}
    assert "a secret" not in " ".join(words)
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert file.read_text("utf-8") == written
    # The client of before is gone, and what was kept for it goes with the next launch.
    launched(shell, "--", *own)
    assert not Path(path).exists()


def test_of_several_settings_the_last_counts_as_it_does_for_the_client(shell: Shell) -> None:
    more = ["--settings", '{"model": "haiku"}', '--settings={"model": "opus"}']
    _, words = launched(shell, "--", *more, "--", "--settings", "is my prompt")
    assert words[-3:] == ["--", "--settings", "is my prompt"]
    _, told = settings_of(words[:-3])
    assert told["model"] == "opus"


@pytest.mark.parametrize(
    ("given", "rc", "code"),
    [
        ("{nonsense}", 2, "settings_invalid"),
        ('{"hooks": []}', 2, "settings_invalid"),
        ("bin", 2, "settings_invalid"),
        ("bin/claude", 2, "settings_invalid"),
        ("gone.json", 3, "settings_not_found"),
    ],
)
def test_settings_that_can_not_be_read_are_refused_with_the_hooks_they_would_take(
    shell: Shell, given: str, rc: int, code: str
) -> None:
    path = f"{shell.folder / 'bin'}:/usr/bin:/bin"
    done = shell.run("--json", "launch", "--", "--settings", given, PATH=path)
    assert (done.code, done.error["code"]) == (rc, code)
    assert done.error["hint"]


def test_a_client_that_has_the_server_is_given_its_settings_as_they_were_written(
    shell: Shell,
) -> None:
    (shell.folder / "c").mkdir()
    servers = {"mcpServers": {"claudemesh": {"command": "/x/claudemesh", "args": ["mcp"]}}}
    (shell.folder / "c" / ".claude.json").write_text(json.dumps(servers), "utf-8")
    _, words = launched(shell, "--", "--settings", "gone.json")
    assert words == ["--settings", "gone.json"]


def test_a_launch_from_a_folder_that_is_gone_says_so(shell: Shell) -> None:
    gone = shell.folder / "gone"
    gone.mkdir()
    line = 'cd "$0" && rmdir "$0" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", line, str(gone), *shell.command("--json", "launch")],
        env=shell.environment(PATH=f"{shell.folder / 'bin'}:/usr/bin:/bin"),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    refused = json.loads(done.stdout)["error"]
    assert (done.returncode, refused["code"], done.stderr) == (3, "folder_gone", "")
    assert refused["hint"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--groups", "ops,,"), "config_invalid"),
        (("--groups", "two words"), "config_invalid"),
        (("--name", ""), "empty_value"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_client_starts(
    shell: Shell, words: tuple[str, ...], code: str
) -> None:
    done = shell.run("--json", "launch", *words, PATH=f"{shell.folder / 'bin'}:/usr/bin:/bin")
    assert (done.code, done.error["code"]) == (2, code)
    assert done.error["hint"]


def test_an_option_of_the_client_belongs_behind_two_dashes(shell: Shell) -> None:
    done = shell.run("launch", "--model", "opus")
    assert done.code == 2
    assert "--model" in done.err


def test_without_a_client_the_error_says_how_to_get_one(shell: Shell) -> None:
    done = shell.run("--json", "launch", PATH="/usr/bin:/bin")
    assert (done.code, done.error["code"]) == (3, "claude_not_found")


async def test_a_session_enters_its_groups_with_its_roles_as_it_starts(tmp_path: Path) -> None:
    async with alive(tmp_path) as live:
        wished = {"CLAUDEMESH_GROUPS": "ops,@review:lead", "CLAUDEMESH_ROLE": "tester"}
        ada, bob = await live.join("ada", **wished), await live.join("bob")
        with anyio.fail_after(LIMIT_S):
            while len((found := await card(bob, "ada"))["groups"]) < 2:
                await a_moment()
        assert (found["groups"], found["role"]) == (["@ops", "@review"], "tester")
        sent = await bob.call("send", to="@review", text="Two herons.")
        assert [one["handle"] for one in sent["recipients"]] == ["ada"]
        (got,) = await ada.read(1)
        assert got["text"] == "Two herons."
        # Its own roles are told to who changes them alone.
        left = await ada.call("leave", address="@ops")
        assert left["groups"] == [{"name": "@review", "role": "lead"}]


async def card(session: LiveSession, handle: str) -> dict[str, Any]:
    """Give what others see of a peer."""
    (found,) = (await session.call("search_peers", query=handle, detail=True))["peers"]
    return found
