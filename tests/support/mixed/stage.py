"""What a mixed run stands on: the checkout's plugin, a model that works for a while, and strikes.

``run.py`` makes a client of these. The plugin is that of the checkout without the routes that a
plan leaves out; in the place of the Python that ``start.sh`` has found stands a script that lets
``struck_hook.py`` run a hook for which a strike lies ready.
"""

import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.checkout import BROKER, ROOT
from tests.support.claude.client import Claude
from tests.support.claude.model import Model
from tests.support.claude.script import Answer, Call, Rule
from tests.support.live import Live
from tests.support.mixed.plan import HOOKS, MONITOR, REWAKE
from tests.support.plugin import base_python

NAME: Final = "plugin_claudemesh_mesh"
_DATA: Final = "claudemesh-inline"
_STRUCK: Final = Path(__file__).with_name("struck_hook.py")
_QUIET_S: Final = 0.7
_PRESENT_S: Final = 20
_PYTHON: Final = f"""#!/bin/sh
for event; do :; done
strike=$CAMPAIGN_STRIKES/$event
if [ -n "$CAMPAIGN_STRIKES" ] && mv "$strike" "$strike.$$" 2>/dev/null; then
  exec '{base_python()}' '{_STRUCK}' "$(cat "$strike.$$")" '{base_python()}' "$@"
fi
exec '{base_python()}' "$@"
"""


class Stage:
    """The plugins of a campaign, and the data folder that their parts share.

    Args:
        folder: Where, made anew.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._data.mkdir(parents=True)
        python = self._data / "struck-python"
        python.write_text(_PYTHON, "utf-8")
        python.chmod(0o755)
        (self._data / "python").write_text(f"{python}\n", "utf-8")
        for setup in (MONITOR, REWAKE, HOOKS):
            self._write(setup)

    def words(self, setup: str) -> list[str]:
        """Give the words by which a client loads the plugin."""
        return ["--plugin-dir", str(self._folder / setup)]

    def client(self, live: Live, folder: Path, name: str, model: Model) -> Claude:
        """Make a client whose plugin finds the home of the mesh, and its strikes."""
        mesh = {key: value for key, value in live.environment().items() if key != "PATH"}
        strikes = folder / "strikes"
        strikes.mkdir(parents=True)
        own = {
            "CLAUDEMESH_NAME": name,
            "CAMPAIGN_STRIKES": str(strikes),
            "PYTHONPATH": f"{ROOT}:{BROKER.parent}",
            "ENABLE_TOOL_SEARCH": "false",
        }
        client = Claude(folder / "user", model, {}, {**mesh, **own}, NAME)
        data = client.config / "plugins" / "data"
        data.mkdir(parents=True)
        # Shared: else every client would compile all of the plugin first.
        (data / _DATA).symlink_to(self._data)
        return client

    def _write(self, setup: str) -> None:
        folder = self._folder / setup
        shutil.copytree(ROOT / ".claude-plugin", folder / ".claude-plugin")
        for part in ("claudemesh_mcp", "broker", "skills"):
            (folder / part).symlink_to(ROOT / part)
        if setup == MONITOR:
            return
        _change(folder / ".claude-plugin" / "plugin.json", lambda told: told.pop("experimental"))
        if setup == HOOKS:
            _change(folder / ".claude-plugin" / "hooks.json", _without_rewake)


def _change(path: Path, change: Any) -> None:
    told = json.loads(path.read_text("utf-8"))
    change(told)
    path.write_text(json.dumps(told), "utf-8")


def _without_rewake(told: dict[str, Any]) -> None:
    for entries in told["hooks"].values():
        for entry in entries:
            entry["hooks"] = [one for one in entry["hooks"] if "asyncRewake" not in one]


class Working(Model):
    """A model that calls tools for as long as it was told to, and else says a word."""

    def __init__(self) -> None:
        summary = Rule("TEXT ONLY", "<summary>Nothing much was said.</summary>")
        super().__init__(summary, Rule("", lambda _: self._go_on()))
        self.present = threading.Event()
        self._calls: list[str] = []
        self._pace_s = 0.0
        self._over = threading.Event()
        self._open = 0
        self._calls_one = False
        self._last_s = time.monotonic()
        self._counting = threading.Lock()

    def work(self, calls: Sequence[str], pace_s: float) -> None:
        """Call these tools, one in each of the next answers."""
        self._calls, self._pace_s = list(calls), pace_s
        self._calls_one = False

    @property
    def is_quiet(self) -> bool:
        """Whether no turn goes on."""
        since_s = time.monotonic() - self._last_s
        works = self._open or self._calls or self._calls_one
        return not works and since_s > _QUIET_S

    def answer(self, headers: dict[str, str], body: dict[str, Any]) -> Answer | None:
        """Answer, and count who is being answered."""
        with self._counting:
            self._open += 1
        answer = None
        try:
            answer = super().answer(headers, body)
        finally:
            with self._counting:
                self._open -= 1
                self._calls_one = isinstance(answer, Call)
                self._last_s = time.monotonic()
        return answer

    def close(self) -> None:
        """Answer nobody any more."""
        self._over.set()
        self.present.set()
        super().close()

    def _go_on(self) -> Answer:
        # A model takes its time; within it the session's server comes up.
        self.present.wait(_PRESENT_S)
        try:
            call = self._calls.pop(0)
        except IndexError:
            return "Good."
        self._over.wait(self._pace_s)
        return Call(f"mcp__{NAME}__{call}", {})


@contextmanager
def a_working_model() -> Iterator[Working]:
    """Open such a model."""
    model = Working()
    model.open()
    try:
        yield model
    finally:
        model.close()
