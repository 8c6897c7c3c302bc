"""The front as a process of its own: its streams, its flags, and every way it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from claudemesh_mcp.config import broker_environment
from claudemesh_mcp.stdio import AHEAD, CHUNK_BYTES, LAST_BYTES, Stdin, Stdout
from tests.support.mcp_client import HELLO

MCP = [sys.executable, "-m", "claudemesh_mcp", "mcp"]
SLOW_IMPORTS = {"anyio", "cryptography", "keyring", "mcp", "pydantic", "typer", "websockets"}
# A session that prints as libraries and children do; the front is the real one.
NOISY = """
import os, subprocess, sys
from claudemesh_mcp.offer import Offer
from claudemesh_mcp.stdio import run
from tests.support.mcp_client import OFFER, Desk

class Noisy(Desk):
    async def start(self):
        print("stray print", flush=True)
        os.write(1, b"stray write\\n")
        subprocess.run(["echo", "stray child"], check=True)
        subprocess.run(["cat"], check=True)  # would eat what the client sends
        await super().start()

sys.exit(run(Noisy(), OFFER))
"""

# A session whose last words are the log's last line, with a thread that has not quite ended.
PARTING = """
import logging, logging.handlers, pathlib, sys, threading
from claudemesh_mcp.logs import log_to_file
from claudemesh_mcp.stdio import leave, run
from tests.support.relaying import OFFER, Relay

folder = pathlib.Path(sys.argv[1])
log_to_file(folder)
late = logging.FileHandler(folder / "late")
held_back = logging.handlers.MemoryHandler(99, logging.CRITICAL, late)
logging.getLogger("claudemesh_mcp").addHandler(held_back)
served = threading.Event()

def write():
    served.wait()
    (folder / "thread").write_text("written")

class Parting(Relay):
    async def close(self):
        threading.Thread(target=write).start()
        logging.getLogger("claudemesh_mcp.parting").warning("the last line")

code = run(Parting(), OFFER)
served.set()
leave(code)
print("not reached", file=sys.stderr)
"""


def environment(tmp_path: Path, **changed: str) -> dict[str, str]:
    home = {"CLAUDEMESH_HOME": str(tmp_path / "home"), "CLAUDEMESH": "off"}
    return broker_environment() | home | changed


@contextmanager
def process(argv: list[str], env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=env, stdin=pipe, stdout=pipe, stderr=pipe) as front:
        try:
            yield front
        finally:
            front.kill()


def ask(front: "subprocess.Popen[bytes]", method: str, params: Any = None) -> Any:
    assert front.stdin
    assert front.stdout
    asked = {"jsonrpc": "2.0", "id": method, "method": method, "params": params or {}}
    front.stdin.write(json.dumps(asked).encode() + b"\n")
    front.stdin.flush()
    return json.loads(front.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_clean_end(tmp_path: Path, number: signal.Signals) -> None:
    with process(MCP, environment(tmp_path)) as front:
        ask(front, "initialize", HELLO)
        front.send_signal(number)
        front.send_signal(number)
        _, errors = front.communicate(timeout=20)
    assert front.returncode == 0
    assert b"Traceback" not in errors


def test_the_end_of_stdin_is_a_clean_end(tmp_path: Path) -> None:
    with process(MCP, environment(tmp_path)) as front:
        ask(front, "initialize", HELLO)
        _, errors = front.communicate(timeout=20)
    assert front.returncode == 0
    assert errors == b""


def test_nothing_is_lost_by_the_end_of_the_process(tmp_path: Path) -> None:
    call = {"name": "fetch", "arguments": {"what": "5 MB"}}
    asked = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": call}
    argv = [sys.executable, "-c", PARTING, str(tmp_path)]
    with process(argv, environment(tmp_path)) as front:
        ask(front, "initialize", HELLO)
        answers, errors = front.communicate(json.dumps(asked).encode() + b"\n", timeout=20)
    (answer,) = [one for one in map(json.loads, answers.splitlines()) if one.get("id") == 9]
    assert len(answer["result"]["thing"]) == 5_000_000
    assert front.returncode == 0
    assert errors == b""
    assert (tmp_path / "session.log").read_text().splitlines()[-1].endswith("the last line")
    assert (tmp_path / "late").read_text() == "the last line\n"
    assert (tmp_path / "thread").read_text() == "written"


def test_a_client_that_closed_its_end_of_stdout_is_a_clean_end(tmp_path: Path) -> None:
    with process(MCP, environment(tmp_path)) as front:
        ask(front, "initialize", HELLO)
        assert front.stdin
        assert front.stdout
        front.stdout.close()
        front.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        front.stdin.flush()
        front.wait(timeout=20)
        assert front.stderr
        errors = front.stderr.read()
    assert front.returncode == 0
    assert b"Traceback" not in errors


def test_stdin_and_stdout_may_be_files_too(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    asked.write_text(json.dumps(hello))
    with asked.open() as source, (tmp_path / "answered").open("w") as sink:
        ended = subprocess.run(
            MCP, env=environment(tmp_path), stdin=source, stdout=sink, check=False, timeout=20
        )
    answer = json.loads((tmp_path / "answered").read_text())
    assert ended.returncode == 0
    assert answer["result"]["protocolVersion"] == HELLO["protocolVersion"]


def test_a_process_without_any_stream_ends(tmp_path: Path) -> None:
    closed = f"exec {sys.executable} -m claudemesh_mcp mcp <&- >&- 2>&-"
    ended = subprocess.run(["sh", "-c", closed], env=environment(tmp_path), check=False, timeout=20)
    assert ended.returncode == 0


def test_nothing_but_protocol_reaches_stdout_whoever_prints(tmp_path: Path) -> None:
    with process([sys.executable, "-c", NOISY], environment(tmp_path)) as front:
        ask(front, "initialize", HELLO)
        pong = ask(front, "ping")
        rest, errors = front.communicate(timeout=20)
    assert pong["result"] == {}
    assert rest == b""
    assert {b"stray print", b"stray write", b"stray child"} <= set(errors.splitlines())


def test_nothing_slow_is_imported_before_initialize_is_answered(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from claudemesh_mcp import __main__, stdio\n"
        "from claudemesh_mcp.front import open_front\n"
        "open_front({'name': 'ada'})\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    env = environment(tmp_path, CLAUDEMESH="on")
    shown = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert SLOW_IMPORTS & set(shown.stdout.split()) == set()


def test_a_config_that_makes_no_sense_is_told_by_every_tool(tmp_path: Path) -> None:
    with process(MCP, environment(tmp_path, CLAUDEMESH="perhaps")) as front:
        greeting = ask(front, "initialize", HELLO)
        result = ask(front, "tools/call", {"name": "mesh_info"})["result"]
    assert "result" in greeting
    assert result["structuredContent"]["error"]["code"] == "config_invalid"


def test_switched_off_it_offers_nothing(tmp_path: Path) -> None:
    with process(MCP, environment(tmp_path)) as front:
        ask(front, "initialize", HELLO)
        listed = ask(front, "tools/list")
    assert listed["result"] == {"tools": []}
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_examples(tmp_path: Path, flag: str) -> None:
    shown = subprocess.run(
        [*MCP, flag], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert "claude mcp add claudemesh" in shown.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nam", "ada"], "Did you mean --name?"),
        (["--name"], "--name needs a value"),
        (["--name="], "--name needs a value"),
        (["serve"], "'serve' is unknown"),
    ],
)
def test_wrong_usage_says_so_on_stderr_only(tmp_path: Path, words: list[str], said: str) -> None:
    ended = subprocess.run(
        [*MCP, *words], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "Usage: claudemesh mcp" in ended.stderr


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors by /proc")
def test_a_child_of_the_session_does_not_hold_the_clients_streams(tmp_path: Path) -> None:
    code = NOISY.replace('"cat"', '"sh", "-c", "ls -l /proc/self/fd >&2"')
    with process([sys.executable, "-c", code], environment(tmp_path)) as front:
        ask(front, "initialize", HELLO)
        ask(front, "ping")
        _, errors = front.communicate(timeout=20)
        assert front.stdout
    held = [line for line in errors.decode().splitlines() if "pipe:" in line]
    # stdout and stderr of the child are the one pipe of stderr.
    assert len({line.rpartition("pipe:")[2] for line in held}) == 1
    assert os.devnull in errors.decode()


async def test_bytes_that_nobody_has_read_yet_count_as_received() -> None:
    source, sink = os.pipe()
    stdin = Stdin(source)
    sent = (AHEAD + 1) * CHUNK_BYTES
    with anyio.fail_after(20):
        await anyio.to_thread.run_sync(os.write, sink, b"x" * sent)
        while stdin.received() != sent:
            await checkpoint()
        taken = len(await stdin.read())
        while stdin.received() != sent:
            await checkpoint()
        os.close(sink)
        while chunk := await stdin.read():
            taken += len(chunk)
    assert taken == sent
    os.close(source)


async def test_a_writer_learns_that_nobody_reads() -> None:
    source, sink = os.pipe()
    stdout = Stdout(sink, lambda: 0)
    with anyio.fail_after(20):
        await stdout.write(b"read\n")
        assert os.read(source, 100) == b"read\n"
        os.close(source)
        with pytest.raises(BrokenPipeError):
            await stdout.write(b"unread\n")
    os.close(sink)


async def test_what_was_received_is_counted_before_a_reader_can_have_all_of_it() -> None:
    source, sink = os.pipe()
    had: list[int] = []

    def received() -> int:
        os.set_blocking(source, False)
        had.append(len(os.read(source, 10_000)) if len(data) > LAST_BYTES else 0)
        return 7

    stdout = Stdout(sink, received)
    for data in (b"z" * 10, b"z" * 5000):
        with anyio.fail_after(20):
            assert await stdout.write(data) == 7
        assert had.pop() < len(data)
        assert os.read(source, 10_000)
    os.close(source)
    os.close(sink)


async def test_a_reader_that_is_slow_does_not_stop_the_loop() -> None:
    source, sink = os.pipe()
    stdout = Stdout(sink, lambda: 0)
    data = b"y" * 1_000_000
    got = 0
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stdout.write, data)
            await checkpoint()
            while got < len(data):
                got += len(await anyio.to_thread.run_sync(os.read, source, 65_536))
    os.close(source)
    os.close(sink)
    assert got == len(data)
