"""Decides what has to be done so that Claude Code has no claudemesh any more.

``cli/install.py`` asks for it. What was there before ``claudemesh install``, or was added by
others, stays; what an installation has left whose note is lost is known by what it starts.
"""

from functools import partial
from typing import Any

from claudemesh_mcp.installation import entries, scopes
from claudemesh_mcp.installation.jsonfile import JsonFile
from claudemesh_mcp.installation.record import Note, Record
from claudemesh_mcp.installation.scopes import (
    MARKETPLACE,
    PLUGIN,
    SERVER,
    SHARED,
    Scope,
    Site,
    table,
)
from claudemesh_mcp.installation.steps import Edit, Place, Run, Step


def steps(
    scope: Scope, site: Site, record: Record, claude: str, *, plugin: bool = False
) -> list[Step]:
    """Give what has to be done in a scope.

    Args:
        scope: Which.
        site: Where Claude Code keeps things.
        record: What was noted.
        claude: The client's program.
        plugin: Remove the plugin, whoever installed it.

    Raises:
        Invalid: ``settings_invalid``.
    """
    path = site.settings(scope)
    place, told = Place(path, record), ("--scope", str(scope))
    remove = ("mcp", "remove", *told, SERVER)
    if scope not in site.placed:
        # Of such a project only the server is not the user's too, and it has no note.
        beside = Place(site.project / SHARED, record)
        is_there = _added_server(site.server(scope), None)
        return [Run(claude, remove, beside, ("server", False))] if is_there else []
    JsonFile.read(path)
    note = record.note(path)
    edit = Edit(place, partial(_change, scope, site))
    made: list[Step] = [edit] if edit.is_needed() else []
    made += leftovers(scope, site, record)
    if _added_server(site.server(scope), note):
        made.append(Run(claude, remove, place, ("server", False)))
    if site.plugin(scope) and (plugin or (note is not None and note.plugin)):
        words = ("plugin", "uninstall", *told, PLUGIN)
        made.append(Run(claude, words, place, ("plugin", False)))
    if note is not None and note.marketplace and site.marketplace:
        words = ("plugin", "marketplace", "remove", *told, MARKETPLACE)
        made.append(Run(claude, words, place, ("marketplace", False)))
    return made


def leftovers(scope: Scope, site: Site, record: Record) -> list[Edit]:
    """Give what takes ours out of files that a scope is read from too, and is not written to.

    Args:
        scope: Which.
        site: Where Claude Code keeps things.
        record: What was noted.

    Raises:
        Invalid: ``settings_invalid``.
    """
    edits = [Edit(Place(path, record), entries.take_out) for path in site.files(scope)[1:]]
    return [edit for edit in edits if edit.is_needed()]


def left(scope: Scope, site: Site, record: Record) -> str:
    """Say what stays, because it was there before; empty if nothing does."""
    note = record.note(site.settings(scope)) if scope in site.placed else None
    entry = site.server(scope)
    if entry is None or not scopes.is_ours(entry) or _added_server(entry, note):
        return ""
    return (
        f"The server {SERVER} (scope {scope}) was there before. To remove it too:"
        f" claude mcp remove --scope {scope} {SERVER}"
    )


def _added_server(entry: dict[str, Any] | None, note: Note | None) -> bool:
    return entry is not None and scopes.is_ours(entry) and (note is None or note.server)


def _change(scope: Scope, site: Site, content: dict[str, Any], note: Note) -> list[str]:
    # What is there no more can't be ours when somebody puts it there again.
    note.server = note.server and site.server(scope) is not None
    note.plugin = note.plugin and PLUGIN in table(content, "enabledPlugins")
    note.marketplace = note.marketplace and bool(site.marketplace)
    return entries.take_out(content, note)
