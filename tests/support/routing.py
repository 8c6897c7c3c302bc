"""A peer's file with its client's record, and the programs that a client runs beside a session.

The programs are run as Claude Code runs them: by path, with an event on stdin, in an interpreter
that sees no installed package. The client is the process of the test.
"""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from claudemesh_mcp import outbox, peerfile, routes
from claudemesh_mcp.outbox import Audience
from claudemesh_mcp.routes import facts, records
from claudemesh_mcp.routes.processes import Living, started
from claudemesh_mcp.routes.records import Record

PROGRAMS: Final = Path(routes.__file__).parent
ALONE: Final = (sys.executable, "-I", "-S")
PEER: Final = "p_" + "b" * 26
OWN: Final = "mem_own"
SESSION: Final = "3b241101-e2bb-4255-8caf-4136c566a962"
LIMIT_S: Final = 60


@dataclass(frozen=True)
class Ran:
    """A program that has ended.

    Args:
        code: Its exit code.
        out: What it printed.
        err: What it wrote to stderr.
    """

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """What the model is to read; empty if nothing is."""
        if not self.out:
            return ""
        told = json.loads(self.out)
        return told.get("reason") or told["hookSpecificOutput"]["additionalContext"]


@dataclass
class Beside:
    """The folder of a home, with one peer whose client is the process of the test.

    Args:
        home: The home.
        sql: The peer's file, as its server has it open.
        environ: What the client gives its hooks.
        peer: The peer.
        mesh: What its mesh is called.
        mesh_id: Its id.
    """

    home: Path
    sql: sqlite3.Connection
    environ: dict[str, str] = field(default_factory=dict)
    peer: str = PEER
    mesh: str = "local"
    mesh_id: str = "mesh_local"

    @property
    def file(self) -> Path:
        """The peer's file."""
        return self.home / "sessions" / self.peer / "peer.db"

    @property
    def client(self) -> str:
        """How the client stands in the file."""
        return str(Living.now(os.getpid()))

    @property
    def log(self) -> str:
        """What the programs have logged."""
        path = self.home / "logs" / "routes.log"
        return path.read_text("utf-8") if path.exists() else ""

    def record(self, **changes: Any) -> Record:
        """Write the client's record, as its server does."""
        told: dict[str, Any] = {
            "pid": os.getpid(),
            "start": started(os.getpid()),
            "server": os.getpid(),
            "peer": self.peer,
            "file": str(self.file),
            "session": SESSION,
            "handle": "bob",
            "mesh": self.mesh,
            "member": OWN,
            "mesh_id": self.mesh_id,
        }
        record = Record(**told | changes)
        records.write(self.home, record)
        return record

    def put(self, text: str = "Hello.", **told: Any) -> int:
        """Let a message have arrived; gives its row."""
        (count,) = self.sql.execute("SELECT coalesce(max(row), 0) FROM inbox").fetchone()
        now_ms = time.time_ns() // 1_000_000
        columns = {
            "sender": "p_ada",
            "id": f"msg_{count + 1}",
            "header_hash": b"",
            "certificate": b"",
            "conv": "d_ada",
            "seq": count + 1,
            "handle": "ada",
            "member": OWN,
            "member_name": "max",
            "text": text,
            "stripped": 0,
            "priority": "next",
            "e2e": 1,
            "sent_ms": now_ms,
            "received_ms": now_ms,
            "expires_ms": now_ms,
            **told,
        }
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        cursor = self.sql.execute(
            f"INSERT INTO inbox ({names}) VALUES ({marks})",  # noqa: S608 - names of columns
            tuple(columns.values()),
        )
        return cursor.lastrowid or 0

    def sent(self, message: str, *to: str, state: str = "accepted") -> None:
        """Let the session have sent a message to peers, or to ada."""
        audience = tuple(Audience(peer, "ada", OWN, e2e=True) for peer in to or ("p_ada",))
        self.sql.execute(
            "INSERT INTO outbox (id, conv, seq, request_hash, addresses, header_hash, audience,"
            " resolved_ms, ttl_ms, created_ms, sealings, state)"
            " VALUES (?, 'd_', 1, x'', '[]', x'', ?, 0, 0, 0, 1, ?)",
            (message, outbox._audience_text(audience), state),
        )

    def row(self, number: int) -> sqlite3.Row:
        """Give a message as it stands in the file."""
        return self.sql.execute("SELECT * FROM inbox WHERE row = ?", (number,)).fetchone()

    def states(self) -> list[str]:
        """Give the states of all messages."""
        return [row["state"] for row in self.sql.execute("SELECT state FROM inbox ORDER BY row")]

    def receipts(self) -> list[tuple[str, str]]:
        """Give status and route, or reason, of the receipts that are due."""
        found = self.sql.execute("SELECT status, route, reason FROM reports ORDER BY row")
        return [(row["status"], row["route"] or row["reason"]) for row in found]

    def age(self, table: str, column: str, by_ms: int) -> None:
        """Let what stands in a table have happened earlier."""
        self.sql.execute(f"UPDATE {table} SET {column} = {column} - ?", (by_ms,))  # noqa: S608

    def fact(self, key: str) -> str:
        """Give a fact."""
        return facts.get(self.sql, key)

    def start(
        self, program: str, *words: str, before: Sequence[str] = (), **settings: str
    ) -> "subprocess.Popen[bytes]":
        """Start a program, by a command in front of its own if one is given."""
        command = [*before, *ALONE, str(PROGRAMS / program), *words]
        return subprocess.Popen(
            command,
            env=self.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.home,
        )

    def feed(self, event: str, said: bytes, **settings: str) -> Ran:
        """Run the hook of an event to its end."""
        with self.start("hook.py", event, **settings) as process:
            out, err = process.communicate(said, timeout=LIMIT_S)
        return Ran(process.returncode, out.decode(), err.decode())

    def hook(self, event: str, **told: Any) -> str:
        """Run the hook of an event that succeeds; gives what the model is to read."""
        said = {"session_id": SESSION, "hook_event_name": event, **told}
        ran = self.feed(event, json.dumps(said).encode())
        assert (ran.code, ran.err, self.log) == (0, "", "")
        return ran.text

    def prompt(self, text: str = "Go on.") -> str:
        """Let a human send a prompt."""
        return self.hook("UserPromptSubmit", prompt=text)

    def tool(self, call: str = "toolu_1", **told: Any) -> str:
        """Let a tool call have ended."""
        return self.hook("PostToolUse", tool_name="Bash", tool_use_id=call, **told)

    def stop(self) -> str:
        """Let the turn end."""
        return self.hook("Stop", stop_hook_active=False)


@contextmanager
def beside(
    home: Path, peer: str = PEER, mesh: str = "local", mesh_id: str = "mesh_local"
) -> Iterator[Beside]:
    """Open a home with a peer, its client's record written."""
    folder = home / "sessions" / peer
    folder.mkdir(parents=True, mode=0o700)
    with closing(peerfile._connect(folder / "peer.db")) as sql:
        opened = Beside(home, sql, peer=peer, mesh=mesh, mesh_id=mesh_id)
        opened.environ = {
            "PATH": os.defpath,
            "CLAUDEMESH_HOME": str(home),
            "CLAUDE_PID": str(os.getpid()),
            "CLAUDE_CODE_SESSION_ID": SESSION,
            "CLAUDE_CODE_ENTRYPOINT": "cli",
            "CLAUDE_CODE_SESSION_ATTENDED": "1",
        }
        opened.record()
        facts.begin(sql, opened.client, SESSION, attended=True)
        yield opened
