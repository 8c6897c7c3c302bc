"""The command line as its user meets it: real processes, exit codes, what goes where."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from claudemesh_wire import VERSION
from tests.support.shell import LIMIT_S, Shell, shell_in

COMMANDS = [
    ["demo"],
    ["up"],
    ["down"],
    ["status"],
    ["send"],
    ["inbox"],
    ["message-status"],
    ["history"],
    ["doctor"],
    ["peers"],
    ["mesh", "create"],
    ["mesh", "list"],
    ["mesh", "use"],
    ["mesh", "leave"],
    ["mesh", "rename"],
    ["mesh", "delete"],
    ["mesh", "trust"],
    ["invite"],
    ["invites"],
    ["join"],
    ["members"],
    ["role"],
    ["kick"],
    ["ban"],
    ["unban"],
    ["device", "revoke"],
    ["profile"],
    ["profile", "set"],
    ["grant"],
    ["revoke"],
    ["grants"],
    ["block"],
    ["unblock"],
    ["allow"],
    ["mcp"],
    ["completion"],
    ["broker", "run"],
    ["broker", "check"],
    ["broker", "backup"],
    ["broker", "restore"],
    ["config", "get"],
    ["config", "set"],
    ["config", "path"],
]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_in(tmp_path) as shell:
        yield shell


@pytest.fixture(scope="module")
def any_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell for tests that leave nothing behind which another could notice."""
    with shell_in(tmp_path_factory.mktemp("any")) as shell:
        yield shell


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_a_command_shows_examples_before_options(
    any_shell: Shell, command: list[str]
) -> None:
    done = any_shell.run(*command, "-h")
    assert done.code == 0
    assert not done.err
    assert done.out.index("Examples:") < done.out.index("Options:")


def test_help_lists_every_command(any_shell: Shell) -> None:
    listed = any_shell.run("--help").out
    assert [one[0] for one in COMMANDS if f"\n  {one[0]} " not in listed] == []


def test_the_version_is_data(any_shell: Shell) -> None:
    done = any_shell.run("--version")
    assert (done.code, done.out, done.err) == (0, f"{VERSION}\n", "")


@pytest.mark.parametrize(
    ("words", "meant"), [(["stats"], "status"), (["config", "gte"], "get"), (["--jsno"], "--")]
)
def test_a_misspelt_word_is_wrong_usage_and_the_right_one_is_named(
    any_shell: Shell, words: list[str], meant: str
) -> None:
    done = any_shell.run(*words)
    assert (done.code, done.out) == (2, "")
    assert meant in done.err


def test_the_shell_is_told_how_to_complete(any_shell: Shell) -> None:
    script = any_shell.run("completion", "bash")
    assert script.code == 0
    assert "complete -" in script.out
    completed = any_shell.run(
        _CLAUDEMESH_COMPLETE="complete_bash", COMP_WORDS="claudemesh st", COMP_CWORD="1"
    )
    assert completed.out.split() == ["status", "statusline"]


def test_without_a_broker_status_says_so_in_words_and_in_json(shell: Shell) -> None:
    words = shell.run("status")
    assert (words.code, words.out) == (5, "")
    assert "claudemesh up" in words.err
    data = shell.run("status", "--json")
    assert (data.code, data.json) == (
        0,
        {"mesh": "local", "called": None, "broker": None, "peers": []},
    )


def test_up_and_down_may_be_repeated(shell: Shell) -> None:
    first = shell.run("up", "--json")
    again = shell.run("up", "--json")
    assert first.code == again.code == 0
    assert first.json == again.json
    assert set(first.json["broker"]) == {"pid", "url", "version", "data"}
    assert first.json["broker"]["url"].startswith("http://127.0.0.1:")
    assert shell.run("down", "--json").json["stopped"] == first.json["broker"]
    assert shell.run("down", "--json").json["stopped"] is None


async def test_a_message_goes_from_the_shell_to_a_session_and_back(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            sent = await shell.runs("send", "ada", "Which branch?", "--json")
            assert sent.code == 0, sent.err
            (to,) = sent.json["recipients"]
            assert (to["handle"], to["e2e"]) == ("ada", True)
            (got,) = (await ada.call("inbox", wait_s=20))["messages"]
            assert (got["id"], got["text"]) == (sent.json["id"], "Which branch?")
            await ada.call("send", to=got["from"], text="main", reply_to=got["id"])
            answered = await shell.runs("inbox", "--json")
            assert answered.code == 0, answered.out
            (answer,) = answered.json["messages"]
            assert (answer["text"], answer["reply_to"]) == ("main", got["id"])
            empty = await shell.runs("inbox")
            assert (empty.code, empty.out) == (0, "")
            row = {"status": "queued"}
            while row["status"] != "seen":  # Her receipt travels while we ask.
                status = await shell.runs("message-status", sent.json["id"], "--json")
                (row,) = status.json["recipients"]
            assert row["proved"]


async def test_what_was_said_is_found_again(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            sent = await shell.runs("send", "ada", "Is the café open?", "--json")
            (got,) = (await ada.call("inbox", wait_s=20))["messages"]
            await ada.call("send", to=got["from"], text="Until three.", reply_to=got["id"])
            assert (await shell.runs("inbox")).code == 0
            found = await shell.runs("history", "three", "--with", "ada", "--json")
            (answer,) = found.json["messages"]
            assert (answer["direction"], answer["reply_to"]) == ("received", sent.json["id"])
            words = await shell.runs("history", "--limit", "1")
            assert (words.code, "Until three." in words.out) == (0, True)
            assert "--before" in words.err
            (mine,) = (await ada.call("history", query="cafe"))["messages"]
            assert mine["id"] == sent.json["id"]


async def test_status_and_peers_show_the_sessions(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada, shell.session("bob"):
            status = await shell.runs("status", "--json")
            assert {row["handle"] for row in status.json["peers"]} == {"ada", "bob"}
            found = await shell.runs("peers", "ada", "--json")
            assert [row["peer"] for row in found.json["peers"]] == [ada.peer]
            words = await shell.runs("peers", "--online")
            assert "bob" in words.out


async def test_a_terminal_is_not_at_the_mercy_of_a_peer(shell: Shell) -> None:
    hostile = "\x1b]0;title\x07\x1b[2J\u202eevil\u200b"
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            await ada.call("set_profile", summary=f"busy {hostile}")
            peers = await shell.runs("peers")
            await ada.call("send", to=(await self_of(shell)), text=hostile, thread=hostile)
            inbox = await shell.runs("inbox")
            for done in (peers, inbox):
                assert done.code == 0, done.err
                assert not set("\x1b\x07\u202e\u200b") & set(done.out + done.err)
            assert "evil" in inbox.out


async def self_of(shell: Shell) -> str:
    """Give the peer id of the command line itself."""
    found = await shell.runs("peers", "--json")
    return next(row["peer"] for row in found.json["peers"] if row.get("self"))


async def test_what_is_followed_is_printed_as_it_comes_and_seen(shell: Shell) -> None:
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            me = await self_of(shell)
            with shell.running("inbox", "--follow", "--json", warm=True) as following:
                assert following.stdout is not None
                ids = [
                    (await ada.call("send", to=me, text=f"number {number}"))["id"]
                    for number in range(3)
                ]
                lines = [
                    await anyio.to_thread.run_sync(following.stdout.readline) for _ in range(3)
                ]
                assert [json.loads(line)["id"] for line in lines] == ids
                following.send_signal(signal.SIGINT)
                assert await anyio.to_thread.run_sync(following.wait) == 130
            # The last one may be shown once more: nobody asked for the one behind it.
            for sent in ids[:-1]:
                row = {"status": "queued"}
                while row["status"] != "seen":  # The receipt travels while we ask.
                    (row,) = (await ada.call("message_status", id=sent))["recipients"]


async def test_a_long_text_comes_from_stdin_and_is_printed_whole(shell: Shell) -> None:
    text = "".join(f"line {number} – ä\n" for number in range(3000))
    with anyio.fail_after(LIMIT_S):
        async with shell.session("ada") as ada:
            me = await self_of(shell)
            sent = await ada.call("send", to=me, text=text)
            (short,) = (await shell.runs("inbox", "--json")).json["messages"]
            assert short["more_bytes"] == len(text.encode()) - len(short["text"].encode())
            whole = await shell.runs("inbox", "--id", sent["id"], "--json")
            assert whole.json["messages"][0]["text"] == text

            back = await shell.runs("send", "ada", "-", "--json", stdin=text.encode())
            (got,) = (await ada.call("inbox", wait_s=20))["messages"]
            assert got["id"] == back.json["id"]


@pytest.mark.parametrize(
    ("words", "stdin", "exit_code", "error_code"),
    [
        (["send", "nobody", "hello"], b"", 3, "not_found"),
        (["send", "bad\x07handle", "hello"], b"", 2, "bad_address"),
        (["send", "", "hello"], b"", 2, "bad_address"),
        (["send", "ada", ""], b"", 2, "empty_text"),
        (["send", "ada", "-"], b"", 2, "empty_text"),
        (["send", "ada", "-"], b"\xff\xfe", 2, "not_text"),
        (["send", "ada", "-"], b"a" * (256 * 1024 + 2), 1, "text_too_long"),
        (["history", "q" * 3000], b"", 2, "too_much"),
        (["ban", "bob", "--for", ""], b"", 2, "empty_value"),
        (["ban", "bob", "--for="], b"", 2, "empty_value"),
        (["mesh", "create", "x", "--broker", ""], b"", 2, "empty_value"),
        (["invites", "--withdraw", ""], b"", 2, "empty_value"),
        (["join", "link", "--as", ""], b"", 2, "empty_value"),
        (["inbox", "--id", ""], b"", 2, "empty_value"),
        (["send", ",".join(["ada"] * 10_000), "hello"], b"", 1, "too_many_recipients"),
        (["message-status", "msg_aaaaaaaaaaaaaaaaaaaaaaaaaa"], b"", 3, "not_found"),
        (["inbox", "--id", "msg_aaaaaaaaaaaaaaaaaaaaaaaaaa"], b"", 3, "not_found"),
    ],
)
def test_what_can_t_be_done_has_a_code_a_hint_and_an_exit_code(
    any_shell: Shell, words: list[str], stdin: bytes, exit_code: int, error_code: str
) -> None:
    done = any_shell.run(*words, "--json", stdin=stdin)
    assert (done.code, done.error["code"]) == (exit_code, error_code), done.err
    assert done.error["hint"]
    said = any_shell.run(*words, stdin=stdin)
    assert (said.code, said.out) == (exit_code, "")
    assert said.err


def test_where_claudemesh_is_switched_off_the_file_that_says_so_is_named(shell: Shell) -> None:
    (shell.folder / "inner").mkdir()
    file = shell.folder / ".claudemesh.toml"
    file.write_text("enabled = false\n")
    done = shell.run("peers", "--json")
    assert (done.code, done.error["code"]) == (5, "off")
    assert str(file) in done.error["message"]
    assert "CLAUDEMESH=off" not in done.error["message"]
    by_variable = shell.run("peers", "--json", CLAUDEMESH="off")
    assert "CLAUDEMESH=off" in by_variable.error["message"]
    assert shell.run("peers", CLAUDEMESH="on").code == 0
    file.unlink()
    (shell.home / "config.toml").write_text("enabled = false\n")
    assert str(shell.home / "config.toml") in shell.run("peers", "--json").error["message"]


def test_a_broken_config_file_is_named_and_left_as_it_is(shell: Shell) -> None:
    file = shell.home / "config.toml"
    file.write_text("name = ada\n", "utf-8")
    for words in (["up"], ["peers"], ["status"], ["config", "get"], ["config", "set", "name", "b"]):
        done = shell.run(*words)
        assert done.code == 2
        assert str(file) in done.err
    assert shell.run("config", "path").out.strip() == str(file)
    assert file.read_text("utf-8") == "name = ada\n"
    file.unlink()


def test_a_setting_is_written_beside_what_is_there(shell: Shell) -> None:
    file = shell.home / "config.toml"
    file.write_text('# mine\nname = "old"\n\nlog_level = "info"', "utf-8")
    assert shell.run("config", "set", "name", 'ada "the" first').code == 0
    assert shell.run("config", "set", "keyring", "on").code == 0
    assert shell.run("config", "get", "name").out == 'ada "the" first\n'
    assert file.read_text("utf-8") == (
        '# mine\nname = "ada \\"the\\" first"\n\nlog_level = "info"\nkeyring = "on"\n'
    )
    assert json.loads(shell.run("config", "get", "--json").out)["home"] == str(shell.home)


@pytest.mark.parametrize(
    ("key", "value", "exit_code"),
    [("nmae", "ada", 3), ("keyring", "perhaps", 2), ("home", "elsewhere", 2), ("name", "a\nb", 2)],
)
def test_a_setting_that_makes_no_sense_is_not_written(
    shell: Shell, key: str, value: str, exit_code: int
) -> None:
    assert shell.run("config", "set", key, value).code == exit_code
    assert not (shell.home / "config.toml").exists()


def test_a_home_that_others_can_enter_is_refused(shell: Shell) -> None:
    shell.home.chmod(0o755)
    done = shell.run("up", "--json")
    assert (done.code, done.error["code"]) == (4, "wrong_mode")
    shell.home.chmod(0o700)


def test_a_reader_that_has_enough_ends_a_command_quietly(shell: Shell) -> None:
    with shell.running("config", "get") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(LIMIT_S) in {0, 1}
        assert process.stderr.read() == b""


def test_a_console_of_another_encoding_does_not_end_a_command(shell: Shell) -> None:
    (shell.home / "config.toml").write_text('name = "Zoë – 名"\n', "utf-8")
    done = shell.run("config", "get", "name", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.code, done.out) == (0, "Zo? ? ?\n")


def test_a_port_in_use_is_said_and_nothing_is_left_running(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = shell.run("broker", "run", "--port", port)
        assert done.code == 1
        assert port in done.err
        up = shell.run("up", "--json", CLAUDEMESH_BROKER_PORT=port)
        assert (up.code, up.error["code"]) == (5, "port_in_use")
        assert up.error["hint"]
    assert shell.run("status", "--json").json["broker"] is None


def test_a_broker_in_the_foreground_is_the_one_of_this_home(shell: Shell) -> None:
    with shell.running("broker", "run", "--port", "0") as broker:
        assert broker.stdout is not None
        while (found := shell.run("status", "--json").json["broker"]) is None:
            assert broker.poll() is None
        assert found["pid"] == broker.pid
        assert shell.run("up", "--json").json["broker"] == found
        broker.send_signal(signal.SIGINT)
        assert broker.wait(LIMIT_S) in {0, 130}
    assert shell.run("status", "--json").json["broker"] is None


def test_a_damaged_database_is_refused_and_left_as_it_is(shell: Shell) -> None:
    assert shell.run("up").code == 0
    assert shell.run("down").code == 0
    database = shell.home / "broker" / "broker.sqlite3"
    damaged = b"SQLite format 3\0" + b"\xff" * 4096
    database.write_bytes(damaged)
    for words in (["up", "--json"], ["peers", "--json"], ["send", "ada", "hello", "--json"]):
        done = shell.run(*words)
        assert done.code != 0
        assert done.error["code"] == "data_corrupt"
        assert str(database) in done.error["message"] + done.error["hint"]
    assert database.read_bytes() == damaged
