"""The real Claude Code, as the tests run it: a pinned client with a private home and a dummy key.

``install.sh test`` puts the client beside the test environment; ``package-lock.json`` here pins it.
A ``Claude`` is one person's client; it asks a ``Model``, and its sessions have ``claudemesh mcp``.

What was found out about the client by running it, beyond its documentation:

* It is a native program: Node is needed to fetch it only, and ``npm`` leaves its install script to
  be called.
* A request names its session in ``metadata.user_id``, which is JSON in a string, and a subagent of
  that session in a header, ``x-claude-code-agent-id``.
* What the client adds by itself comes as blocks of text that begin with ``<system-reminder>`` or as
  messages with the role ``system`` between the others; so do the instructions of servers. What a
  Stop hook says comes twice in one request, as a user's text and as such a message.
* At a terminal the first request may leave before the servers are connected; later ones say then
  which tools have become available.
* What wakes it, a monitor's line or an ``asyncRewake`` hook, passes the UserPromptSubmit hooks as
  if it were a prompt, which begins with ``<task-notification>``.
* In a ``-p`` run it waits for an ``asyncRewake`` hook to end, before it asks anything.
* Killed by SIGKILL it leaves its monitors and background hooks running; SIGTERM and SIGHUP end
  them.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from anyio.abc import ByteReceiveStream, Process

from claudemesh_mcp.config import broker_environment
from tests.support.claude.model import Model
from tests.support.claude.script import SERVER

LIMIT_S: Final = 90
KEY: Final = "sk-ant-api03-no-key-at-all-it-only-has-to-look-like-one"
_PINNED: Final = Path(__file__).with_name("package.json")
_INSTALLED: Final = Path(sys.prefix) / "cache" / "claude-code" / "node_modules"
CLIENT: Final = _INSTALLED / "@anthropic-ai" / "claude-code" / "bin" / "claude.exe"
_KEPT: Final = {"LANG", "LC_ALL", "PATH"}


def pinned_version() -> str:
    """Give the version that the tests are written for."""
    return json.loads(_PINNED.read_text("utf-8"))["dependencies"]["@anthropic-ai/claude-code"]


def installed_version() -> str:
    """Give the version that is there; empty if there is none that runs."""
    if not CLIENT.exists():
        return ""
    asked = [str(CLIENT), "--version"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    return done.stdout.partition(" ")[0] if done.returncode == 0 else ""


def lacking() -> str:
    """Say what is missing for tests with the real client; empty if nothing is."""
    if installed_version() != pinned_version():
        wanted = f"Claude Code {pinned_version()}"
        return f"{wanted} is not installed: ./install.sh test gets it when npm reaches its registry"
    return "" if shutil.which("tmux") else "tmux is not installed"


def is_required() -> bool:
    """Tell whether these tests must run: then a skip is a failure."""
    return broker_environment().get("CLAUDEMESH_REQUIRE_CLAUDE") == "1"


def need_client() -> None:
    """Skip a test, and say why, where there is no client; fail it where there has to be one."""
    if missing := lacking():
        (pytest.fail if is_required() else pytest.skip)(missing)


@dataclass(frozen=True)
class Told:
    """What a run of ``claude -p`` printed.

    Args:
        code: Its exit code.
        events: The lines of its ``stream-json``.
        errors: What it wrote to stderr.
    """

    code: int
    events: list[dict[str, Any]]
    errors: str

    @classmethod
    def of(cls, code: int, out: bytes, errors: bytes) -> "Told":
        """Read it."""
        events = [json.loads(line) for line in out.decode().splitlines()]
        return cls(code, events, errors.decode())

    @property
    def session(self) -> str:
        """The id of its session."""
        return self.events[-1]["session_id"]

    @property
    def result(self) -> str:
        """The text it ended with."""
        return self.events[-1]["result"]

    @property
    def servers(self) -> dict[str, str]:
        """Its MCP servers, and whether it is connected to them."""
        (started,) = [one for one in self.events if one.get("subtype") == "init"]
        return {one["name"]: one["status"] for one in started["mcp_servers"]}

    @property
    def hooks(self) -> list[str]:
        """The events for which it says that it started a hook: the start of a session is one."""
        return [one["hook_event"] for one in self.events if one.get("subtype") == "hook_started"]


@dataclass(eq=False)
class Run:
    """A run of ``claude -p``, which the test may kill.

    Args:
        process: Its process.
        out: What it has printed so far.
        errors: What it has written to stderr so far.
    """

    process: Process
    out: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)

    @property
    def told(self) -> Told:
        """What it printed, once it has ended."""
        assert self.process.returncode is not None
        return Told.of(self.process.returncode, bytes(self.out), bytes(self.errors))


@dataclass
class Claude:
    """The client of one person, with a home of its own.

    Args:
        folder: The home, which it fills.
        model: What it asks.
        server: What its ``claudemesh mcp`` finds in its environment.
        settings: More variables for the client.
        plugin: The plugin and server whose tools it has instead, as the client joins their names.
    """

    folder: Path
    model: Model
    server: dict[str, str]
    settings: dict[str, str] = field(default_factory=dict)
    plugin: str = ""

    def __post_init__(self) -> None:
        """Make the home as it is after its user has answered what the first start asks."""
        for made in (self.config, self.project, self.temporary):
            made.mkdir(parents=True)
        trusted = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        answered = {
            "hasCompletedOnboarding": True,
            "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
            "projects": {str(self.project): trusted},
        }
        (self.config / ".claude.json").write_text(json.dumps(answered), "utf-8")
        command = {"command": sys.executable, "args": ["-m", "claudemesh_mcp", "mcp"]}
        servers = {SERVER: {**command, "env": self.server}}
        self._servers.write_text(json.dumps({"mcpServers": servers}), "utf-8")

    @property
    def config(self) -> Path:
        """Where its settings are."""
        return self.folder / ".claude"

    @property
    def project(self) -> Path:
        """The folder that its sessions work in."""
        return self.folder / "project"

    @property
    def temporary(self) -> Path:
        """Where it may leave what it needs for a while only."""
        return self.folder / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        """All that the client finds: nothing of a session or an account of this machine."""
        kept = {key: value for key, value in broker_environment().items() if key in _KEPT}
        own = {"HOME": str(self.folder), "CLAUDE_CONFIG_DIR": str(self.config)}
        asks = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": self.model.url}
        return {
            **kept,
            **own,
            **asks,
            "TMPDIR": str(self.temporary),
            # A test asks nobody but its model.
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            # No run here is long enough to be repaid for compiling what it does often.
            "BUN_JSC_useDFGJIT": "0",
            **self.settings,
        }

    def command(self, *words: str) -> list[str]:
        """Give the command that starts the client with the session's server and its tools."""
        if self.plugin:
            return [str(CLIENT), *words, "--allowedTools", f"mcp__{self.plugin}"]
        servers = ["--mcp-config", str(self._servers), "--strict-mcp-config"]
        return [str(CLIENT), *words, *servers, "--allowedTools", f"mcp__{SERVER}"]

    async def ask(self, prompt: str, *words: str) -> Told:
        """Run ``claude -p`` to its end."""
        async with self.asking(prompt, *words) as run:
            pass
        return run.told

    @asynccontextmanager
    async def asking(self, prompt: str, *words: str) -> AsyncGenerator["Run"]:
        """Run ``claude -p`` beside the test; leaving waits for its end."""
        printed = ("--output-format", "stream-json", "--verbose")
        command = self.command("-p", prompt, *printed, *words)
        async with await anyio.open_process(
            command, stdin=subprocess.DEVNULL, env=self.environment, cwd=self.project
        ) as process:
            run = Run(process)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_collect, process.stdout, run.out)
                tasks.start_soon(_collect, process.stderr, run.errors)
                try:
                    yield run
                except BaseException:
                    process.kill()
                    raise
                with anyio.fail_after(LIMIT_S):
                    await process.wait()

    @property
    def _servers(self) -> Path:
        return self.folder / "servers.json"


async def _collect(stream: ByteReceiveStream | None, into: bytearray) -> None:
    assert stream is not None
    async for piece in stream:
        into += piece
