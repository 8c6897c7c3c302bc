"""Where Claude Code keeps its settings and servers, for a user, a project, or a user in a project.

``placing.py``, ``removing.py`` and ``doctor/`` look here. Nothing is written, and what can't be
read as expected counts as not there: files that are to be changed are looked at more closely.
"""

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

from claudemesh_mcp.config import caller_of_sudo, client_folder, locate
from claudemesh_mcp.installation import checkout
from claudemesh_wire.errors import Forbidden, NotFound

SERVER: Final = "claudemesh"
PLUGIN: Final = "claudemesh@claudemesh"
MARKETPLACE: Final = "claudemesh"
SHARED: Final = ".mcp.json"
"""Where a project's servers are, for all who work in it."""
_LOCAL: Final = "settings.local.json"
_CLAUDE: Final = "claude"
_READING: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class Scope(StrEnum):
    """For whom something is installed, in Claude Code's own words."""

    USER = "user"
    PROJECT = "project"
    LOCAL = "local"


@dataclass(frozen=True)
class Site:
    """Where one user's Claude Code keeps things, seen from one project.

    Args:
        config: The folder of the user's settings.
        state: The file of the user's servers.
        project: The folder that Claude Code is started in.
    """

    config: Path
    state: Path
    project: Path

    def settings(self, scope: Scope) -> Path:
        """Give the settings file of a scope."""
        if scope is Scope.USER:
            return self.config / "settings.json"
        if scope is Scope.PROJECT:
            return self.project / ".claude" / "settings.json"
        return checkout.settings_folder(self.project) / ".claude" / _LOCAL

    def files(self, scope: Scope) -> list[Path]:
        """Give the settings files that are read in a scope; the first is the one to write to."""
        first = self.settings(scope)
        beside = self.project / ".claude" / _LOCAL
        return [first, beside] if scope is Scope.LOCAL and beside != first else [first]

    @property
    def placed(self) -> list[Scope]:
        """The scopes that have a settings file of their own: a project's may be the user's."""
        own = os.path.realpath(self.settings(Scope.USER))
        is_own = os.path.realpath(self.settings(Scope.PROJECT)) == own
        return [scope for scope in Scope if not (is_own and scope is Scope.PROJECT)]

    def server(self, scope: Scope) -> dict[str, Any] | None:
        """Give the entry of our server in a scope, as ``claude mcp add`` has written it."""
        is_shared = scope is Scope.PROJECT
        holder = read(self.project / SHARED if is_shared else self.state)
        if scope is Scope.LOCAL:
            root = checkout.root_of(self.project) or self.project
            holder = table(table(holder, "projects"), str(root))
        entry = table(holder, "mcpServers").get(SERVER)
        return cast("dict[str, Any]", entry) if isinstance(entry, dict) else None

    def servers(self) -> Iterator[tuple[Scope, dict[str, Any]]]:
        """Give the entries of our server in all scopes."""
        for scope in Scope:
            if (entry := self.server(scope)) is not None:
                yield scope, entry

    def plugin(self, scope: Scope) -> bool:
        """Tell whether the plugin is enabled in a scope."""
        return table(read(self.settings(scope)), "enabledPlugins").get(PLUGIN) is True

    def plugins(self) -> list[Scope]:
        """Give the scopes in which the plugin is enabled."""
        return [scope for scope in self.placed if self.plugin(scope)]

    @property
    def marketplace(self) -> str:
        """Where the known marketplace of our name comes from; empty if there is none."""
        source = self._marketplace()
        told = source.get("path") or source.get("repo") or source.get("url") or ""
        return str(told)

    @property
    def marketplace_folder(self) -> Path | None:
        """The folder that the marketplace of our name is read from, if it is a folder."""
        path = self._marketplace().get("path")
        return Path(path) if isinstance(path, str) and path else None

    def _marketplace(self) -> dict[str, Any]:
        known = read(self.config / "plugins" / "known_marketplaces.json")
        return table(table(known, MARKETPLACE), "source")


def here() -> Site:
    """Look where this user's Claude Code keeps things, in the present folder.

    Raises:
        NotFound: ``folder_gone``: somebody has removed that folder.
    """
    try:
        config, state = client_folder()
        return Site(config, state, Path.cwd())
    except FileNotFoundError as error:
        raise NotFound(
            "The folder that this was started in is gone. Nothing was changed.",
            "Run it in a folder that is there: cd ~",
            code="folder_gone",
        ) from error


def find_claude() -> str:
    """Find the client's program.

    Raises:
        NotFound: ``claude_not_found``.
    """
    if path := shutil.which(_CLAUDE):
        return path
    raise NotFound(
        "There is no claude on PATH, so nothing can be installed into Claude Code.",
        "Install Claude Code (https://code.claude.com/docs), or put its folder on PATH.",
        code="claude_not_found",
    )


def refuse_sudo(site: Site, scopes: Iterable[Scope]) -> None:
    """See to it that no file is made in another user's home, which then could not change it.

    Args:
        site: Where Claude Code keeps things.
        scopes: What is going to be changed.

    Raises:
        Forbidden: ``wrong_user``: ``sudo`` runs this on what belongs to its caller.
    """
    if not (caller := caller_of_sudo()):
        return
    for path in (site.state, locate().data, *map(site.settings, scopes)):
        folder = next(one for one in (path, *path.parents) if one.exists())
        if folder.stat().st_uid != os.geteuid():
            raise Forbidden(
                f"{folder} is not of the user that sudo runs this as. Nothing was changed.",
                f"Run it as {caller}, without sudo: it needs no rights but those of its user.",
                code="wrong_user",
            )


def is_ours(entry: dict[str, Any]) -> bool:
    """Tell whether an entry of that name starts this program, by whatever path."""
    command, words = str(entry.get("command", "")), entry.get("args")
    given = [str(word) for word in cast("list[object]", words)] if isinstance(words, list) else []
    if Path(command).name == SERVER:
        return given[:1] == ["mcp"]
    return any(given[at : at + 2] == ["claudemesh_mcp", "mcp"] for at in range(len(given)))


def read(file: Path) -> dict[str, Any]:
    """Read a file of Claude Code; nothing if it can't be read."""
    try:
        told = json.loads(plain_bytes(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def plain_bytes(file: Path) -> bytes:
    """Read a regular file; a pipe of that name would be waited for without end.

    Raises:
        OSError: it can't be read, or is something else.
    """
    handle = os.open(file, _READING)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
    except BaseException:
        os.close(handle)
        raise
    with open(handle, "rb") as opened:  # noqa: PTH123 - a descriptor, not a path
        return opened.read()


def table(holder: dict[str, Any], key: str) -> dict[str, Any]:
    """Give what stands below a key; nothing if that is no table."""
    found = holder.get(key)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
