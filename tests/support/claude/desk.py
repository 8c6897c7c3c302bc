"""Somebody's desk: a shell with the real client on its PATH, and settings of its own.

The tests of ``claudemesh install`` and of the plugin sit down at one; nothing of this machine's own
Claude Code is seen or touched.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.claude.client import CLIENT
from tests.support.shell import LIMIT_S, Done, Shell


@dataclass(frozen=True)
class Desk:
    """A person with a project.

    Args:
        shell: Their shell.
    """

    shell: Shell

    @classmethod
    def at(cls, shell: Shell, client: Path | None = CLIENT) -> "Desk":
        """Sit down: an empty project, and the client on PATH, if there is to be one."""
        desk = cls(shell)
        for made in (desk.project, desk.config, desk.tools, shell.folder / "tmp"):
            made.mkdir(parents=True)
        if client is not None:
            (desk.tools / "claude").symlink_to(client)
        return desk

    @property
    def project(self) -> Path:
        """Where they work."""
        return self.shell.folder / "project"

    @property
    def config(self) -> Path:
        """Where the client keeps what is theirs."""
        return self.shell.folder / "config"

    @property
    def tools(self) -> Path:
        """The folder on their PATH."""
        return self.shell.folder / "tools"

    @property
    def settings(self) -> dict[str, Path]:
        """Their settings files, by scope."""
        own = self.project / ".claude"
        return {
            "user": self.config / "settings.json",
            "project": own / "settings.json",
            "local": own / "settings.local.json",
        }

    def environment(self, **more: str) -> dict[str, str]:
        """What programs find that are started here."""
        own = {
            "PATH": f"{self.tools}:/usr/bin:/bin",
            "CLAUDE_CONFIG_DIR": str(self.config),
            "TMPDIR": str(self.shell.folder / "tmp"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        return self.shell.environment(**(own | more))

    def run(self, *words: str, **more: str) -> Done:
        """Run `claudemesh` in the project."""
        return self._run(self.shell.command(*words), self.environment(**more))

    def claude(self, *words: str) -> Done:
        """Run the client in the project."""
        return self._run([str(CLIENT), *words], self.environment())

    def sh(self, line: str) -> Done:
        """Run a line as the client or its user does."""
        return self._run(["sh", "-c", line], self.environment())

    def _run(self, command: list[str], environment: dict[str, str]) -> Done:
        done = subprocess.run(
            command,
            env=environment,
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def told(self, scope: str) -> dict[str, Any]:
        """Read a settings file."""
        return json.loads(self.settings[scope].read_text("utf-8"))

    def write(self, scope: str, text: str) -> Path:
        """Write a settings file."""
        file = self.settings[scope]
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
        return file

    def files(self) -> dict[str, bytes]:
        """Read what the client's settings and the project hold."""
        found = [*self.config.glob("settings*.json"), *self.project.rglob("*")]
        return {str(path): path.read_bytes() for path in found if path.is_file()}
