"""Decides what has to be done so that Claude Code has claudemesh: nothing, if it has.

``cli/install.py`` asks with a ``Wish``; the steps it gives are taken in their order.
"""

import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from claudemesh_mcp.installation import entries, scopes
from claudemesh_mcp.installation.jsonfile import JsonFile
from claudemesh_mcp.installation.record import Note, Record
from claudemesh_mcp.installation.removing import leftovers
from claudemesh_mcp.installation.scopes import MARKETPLACE, PLUGIN, SERVER, Scope, Site
from claudemesh_mcp.installation.source import Assemble, lost, plugin_folder
from claudemesh_mcp.installation.steps import Edit, Place, Run, Step
from claudemesh_wire.errors import Conflict

_PROGRAM: Final = "claudemesh"
# Not from the folder that the client was started in: a stranger's project may hold such a module.
_MODULE: Final = ("-P", "-m", "claudemesh_mcp")


@dataclass(frozen=True)
class Wish:
    """What is to be installed.

    Args:
        scope: For whom.
        as_plugin: As the plugin, with a monitor and skills; else as a server with hooks.
        allow: Let models call the tools that only read, without a question.
        status_line: Show one, if none is set.
    """

    scope: Scope
    as_plugin: bool = False
    allow: bool = False
    status_line: bool = False


def steps(wish: Wish, site: Site, record: Record, claude: str) -> list[Step]:
    """Give what has to be done.

    Args:
        wish: What is wanted.
        site: Where Claude Code keeps things.
        record: Where it is noted.
        claude: The client's program.

    Raises:
        Conflict: it is installed in the other way, another server has our name, the project's
            settings are the user's (``project_is_home``), or would tell others of a folder of
            this machine (``plugin_not_shared``).
        Invalid: ``settings_invalid``.
        Forbidden: ``settings_read_only``.
    """
    path = site.settings(wish.scope)
    if wish.scope not in site.placed:
        raise Conflict(
            f"In this folder the settings of the project are your own, for all sessions: {path}.",
            "Run it in the project's folder, or for all your sessions: claudemesh install"
            f" --scope {Scope.USER}",
            code="project_is_home",
        )
    # Read before anything is done: a file that makes no sense is not met half-way.
    JsonFile.read(path)
    place = Place(path, record)
    act = _plugin if wish.as_plugin else _server
    made: list[Step] = [*act(wish, site, place, claude), *leftovers(wish.scope, site, record)]
    was_there = not wish.as_plugin and site.server(wish.scope) is not None
    edit = Edit(place, partial(_change, wish, path, was_there=was_there))
    return [*made, edit] if edit.shown() else made


def server_command(scope: Scope) -> list[str]:
    """Give what starts the server: in a file that others share, by a name that is theirs too."""
    if scope is Scope.PROJECT:
        return [_PROGRAM, "mcp"]
    own = Path(sys.prefix) / "bin" / _PROGRAM
    found = shutil.which(_PROGRAM)
    if found and own.exists() and Path(found).resolve() == own.resolve():
        # The link that ./install.sh made outlives the environment behind it.
        return [found, "mcp"]
    return [str(own), "mcp"] if own.exists() else [sys.executable, *_MODULE, "mcp"]


def _change(
    wish: Wish, path: Path, content: dict[str, Any], note: Note, *, was_there: bool
) -> list[str]:
    words: list[str] = []
    note.was_there = note.was_there or (was_there and not note.server)
    is_shared = wish.scope is Scope.PROJECT
    if not wish.as_plugin:
        command = entries.shared_hook if is_shared else entries.own_hook
        words += entries.add_hooks(content, note, path, command)
    if wish.allow:
        prefix = entries.BY_PLUGIN if wish.as_plugin else entries.BY_SERVER
        words += entries.allow(content, note, path, prefix)
    if wish.status_line:
        words += entries.show_status(content, note, entries.status_line(is_shared=is_shared))
    return words


def _server(wish: Wish, site: Site, place: Place, claude: str) -> list[Step]:
    if plugins := site.plugins():
        raise Conflict(
            f"Claude Code has claudemesh as a plugin already (scope {plugins[0]}).",
            "It would be there twice. First: claudemesh uninstall --plugin",
            code="installed_as_plugin",
        )
    entry, made = site.server(wish.scope), list[Step]()
    scope = ("--scope", str(wish.scope))
    if entry is not None:
        if not scopes.is_ours(entry):
            raise Conflict(
                f"Claude Code has another server called {SERVER} (scope {wish.scope}).",
                f"Look at it: claude mcp get {SERVER}. To replace it, first:"
                f" claude mcp remove --scope {wish.scope} {SERVER}",
                code="name_taken",
            )
        told = str(entry.get("command", ""))
        if told == server_command(wish.scope)[0] or shutil.which(told):
            return []
        # Of an installation that is gone.
        made.append(Run(claude, ("mcp", "remove", *scope, SERVER), place, ("server", True)))
    command = server_command(wish.scope)
    added = ("mcp", "add", *scope, SERVER, "--", *command)
    return [*made, Run(claude, added, place, ("server", True))]


def _has_server_or_hooks(site: Site) -> Scope | None:
    """Give the first scope that has what the plugin brings too."""
    servers = {scope for scope, entry in site.servers() if scopes.is_ours(entry)}
    hooked = (
        scope
        for scope in site.placed
        if any(entries.has_hooks(scopes.read(path)) for path in site.files(scope))
    )
    return next((scope for scope in Scope if scope in {*servers, *hooked}), None)


def _plugin(wish: Wish, site: Site, place: Place, claude: str) -> list[Step]:
    if (scope := _has_server_or_hooks(site)) is not None:
        raise Conflict(
            f"Claude Code has claudemesh as a server already (scope {scope}).",
            f"It would be there twice. First: claudemesh uninstall --scope {scope}",
            code="installed_as_server",
        )
    scope = ("--scope", str(wish.scope))
    folder = plugin_folder(place.record.data)
    made: list[Step] = [step] if (step := Assemble(folder)).shown() else []
    # Where a folder is made anew in its place, the plugin is there again.
    is_lost = lost(site) not in {None, folder}
    if site.plugin(wish.scope) and not is_lost:
        return made
    if wish.scope is Scope.PROJECT:
        raise Conflict(
            "The plugin is read from a folder of this machine, which the settings that a project"
            " shares would name to everybody.",
            "Share the server and its hooks: claudemesh install --scope project. Or have the plugin"
            " for yourself in this project: claudemesh install --plugin --scope local",
            code="plugin_not_shared",
        )
    if is_lost:
        words = ("plugin", "marketplace", "add", *scope, str(folder))
        # It was there before, or is noted already.
        made.append(Run(claude, words, place, ("marketplace", place.note().marketplace)))
    elif site.marketplace not in {"", str(folder)}:
        raise Conflict(
            f"Claude Code knows another marketplace called {MARKETPLACE}: {site.marketplace}.",
            f"To use it: claude plugin install {PLUGIN}. To replace it, first:"
            f" claude plugin marketplace remove {MARKETPLACE}",
            code="name_taken",
        )
    elif not site.marketplace:
        words = ("plugin", "marketplace", "add", *scope, str(folder))
        made.append(Run(claude, words, place, ("marketplace", True)))
    if site.plugin(wish.scope):
        return made
    words = ("plugin", "install", *scope, PLUGIN)
    return [*made, Run(claude, words, place, ("plugin", True))]
