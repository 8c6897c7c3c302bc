"""Checks of what stands in Claude Code for us: the server, the hooks, and the routes they make.

``doctor/__init__.py`` lists them. The client's files are read, and the client itself is not run.
"""

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, cast

from claudemesh_mcp.config import Paths
from claudemesh_mcp.doctor.finding import Case, Finding, fail, in_thread, ok, skip, warn
from claudemesh_mcp.home import read_private
from claudemesh_mcp.installation import entries, placing, scopes, source
from claudemesh_mcp.installation.jsonfile import JsonFile
from claudemesh_mcp.installation.record import record_alone
from claudemesh_mcp.installation.scopes import Scope, Site
from claudemesh_mcp.peerfile import connect_to_read
from claudemesh_mcp.routes import bells, records
from claudemesh_mcp.shown_routes import states
from claudemesh_wire.errors import MeshError

_INSTALL: Final = "claudemesh install"
_MOST_SESSIONS: Final = 20


async def check_server(case: Case) -> Finding:
    """Look whether Claude Code has claudemesh, once, and can start it."""
    return await in_thread(lambda: _look_at_server(scopes.here(), case.paths))


async def check_hooks(case: Case) -> Finding:
    """Look whether Claude Code calls the hooks, and whether what it calls is there."""
    return await in_thread(lambda: _look_at_hooks(scopes.here(), case.paths))


async def check_token(case: Case) -> Finding:
    """Look whether the token of this home's broker is this user's alone."""
    file = case.paths.run / "broker.json"
    if await in_thread(lambda: read_private(file)) is None:
        return skip("No broker of this home has a token now.")
    return ok(f"{file} is readable by this user alone.")


async def check_routes(case: Case) -> Finding:
    """Tell by which routes messages reach the models of the sessions that are open."""
    return await in_thread(lambda: _look_at_routes(case.paths))


def _look_at_server(site: Site, paths: Paths) -> Finding:
    servers, plugins = list(site.servers()), site.plugins()
    if not servers and not plugins:
        if shutil.which("claude") is None and not site.config.exists():
            return skip("There is no Claude Code here.")
        return warn("Claude Code does not have claudemesh.", f"{_INSTALL} --plugin")
    if (servers and plugins) or len(servers) > 1:
        places = [f"server ({one})" for one, _ in servers] + [f"plugin ({one})" for one in plugins]
        extra = f"--scope {servers[0][0]}" if servers else "--plugin"
        return warn(
            f"Claude Code has claudemesh more than once: {', '.join(places)}. A session that has"
            " two servers shows its messages by the one that started last.",
            f"claudemesh uninstall {extra}",
        )
    if plugins and (folder := source.lost(site)) is not None:
        return _plugin_is_lost(plugins[0], folder, paths)
    if plugins:
        return ok(f"Claude Code has claudemesh as a plugin (scope {plugins[0]}).")
    (scope, entry) = servers[0]
    command = str(entry.get("command", ""))
    if not scopes.is_ours(entry):
        return warn(
            f"The server claudemesh of Claude Code starts something else: {command}.",
            f"Look at it: claude mcp get {scopes.SERVER}",
        )
    if shutil.which(command) is None:
        return fail(
            f"Claude Code starts {command} (scope {scope}), and that is not there.",
            f"{_INSTALL} --scope {scope}",
            _installing(placing.Wish(scope), paths),
        )
    return ok(f"Claude Code starts {command} (scope {scope}).")


def _plugin_is_lost(scope: Scope, folder: Path, paths: Paths) -> Finding:
    said = f"Claude Code reads the plugin (scope {scope}) from {folder}, and it is not there."
    if scope is Scope.PROJECT:  # Its settings are shared, and no folder is named in them.
        return fail(said, f"claudemesh uninstall --plugin --scope {scope}")
    wish = placing.Wish(scope, as_plugin=True)
    return fail(said, f"{_INSTALL} --plugin --scope {scope}", _installing(wish, paths))


def _look_at_hooks(site: Site, paths: Paths) -> Finding:
    found, gone, quiet = list[Scope](), list[tuple[Scope, str]](), list[Path]()
    for scope, path in [(one, path) for one in site.placed for path in site.files(one)]:
        try:
            content = JsonFile.read(path).content()
        except MeshError as error:
            return fail(error.reason, "Correct it, or move it away.")
        if content.get("disableAllHooks") is True:
            quiet.append(path)
        ours = entries.has_hooks(content)
        found += [scope] if ours else []
        gone += [(scope, lost) for one in ours if (lost := _lost(one))][:1]
    if quiet:
        return warn(
            f"{quiet[0]} switches all hooks off: messages come by the tools alone.",
            "Take disableAllHooks out of that file.",
        )
    if gone:
        scope, lost = gone[0]
        return fail(
            f"The hooks (scope {scope}) start {lost}, and that is not there.",
            f"{_INSTALL} --scope {scope}",
            _installing(placing.Wish(scope), paths),
        )
    return _judge(site, found)


def _judge(site: Site, found: list[Scope]) -> Finding:
    if site.plugins():
        if found:
            return warn(
                f"The plugin has hooks, and the settings (scope {found[0]}) have them too.",
                f"claudemesh uninstall --scope {found[0]}",
            )
        return ok("The plugin brings its hooks.")
    servers = [scope for scope, entry in site.servers() if scopes.is_ours(entry)]
    if servers and not found:
        return warn(
            "Claude Code has the server and no hooks: messages come by the tools alone.",
            f"{_INSTALL} --scope {servers[0]}",
        )
    if not found:
        return skip("Claude Code does not have claudemesh.")
    return ok(f"Claude Code calls the hooks (scope {', '.join(found)}).")


def _lost(entry: dict[str, Any]) -> str:
    """Give what an entry starts that is not there; empty if all is."""
    words = entry.get("args")
    if not words or not isinstance(words, list):
        return ""  # A line for a shell, which says nothing where there is nothing.
    named = [
        str(entry.get("command", "")),
        *(word for word in map(str, cast("list[Any]", words)) if "/" in word),
    ]
    return next((one for one in named if shutil.which(one) is None and not Path(one).exists()), "")


def _installing(wish: placing.Wish, paths: Paths) -> Callable[[], str]:
    def install() -> str:
        claude = scopes.find_claude()
        with record_alone(paths.data) as record:
            steps = placing.steps(wish, scopes.here(), record, claude)
            done = [step.take() for step in steps]
        told = [one.get("run") or one.get("edit") or one.get("write") for one in done]
        return "; ".join(str(one) for one in told if one)

    return install


def _look_at_routes(paths: Paths) -> Finding:
    told, deaf, asleep = list[str](), list[str](), list[str]()
    names = sorted((paths.run / "clients").glob("*.json"))[:_MOST_SESSIONS]
    pids = dict.fromkeys(name.name.partition(".")[0] for name in names)
    for record in [
        one for pid in pids if pid.isdigit() for one in records.of_client(paths.data, int(pid))
    ]:
        try:
            with closing(connect_to_read(Path(record.file))) as sql:
                found = states(sql, paths.data, _now_ms())
        except (OSError, sqlite3.Error):
            continue
        shown = ", ".join(f"{route} {state}" for route, state in found.items())
        name = record.handle or record.peer
        told.append(f"{name}: {shown}")
        deaf += [name] if found[bells.HOOKS] == "silent" else []
        asleep += [name] if _is_unheard(found) else []
    if not told:
        return skip("No session of Claude Code is open on this home.")
    if deaf:
        return warn(
            f"What the hooks of {', '.join(deaf)} print does not reach the model: its transcript"
            f" shows nothing of it. All: {'; '.join(told)}.",
            "Look at what starts the hooks: /hooks in that session; then start it anew.",
        )
    if asleep:
        return warn(
            f"Nothing seems to wake {', '.join(asleep)} when idle: what monitor or rewake hook said"
            f" last was not heard. All: {'; '.join(told)}.",
            "Messages come with the next prompt there. To be woken again, start that session anew.",
        )
    return ok("; ".join(told) + ".")


def _is_unheard(found: Mapping[str, str]) -> bool:
    """Tell whether there are wakers, and all of them are silent."""
    there = {found[route] for route in bells.ORDER} - {"off"}
    wakers = {found[route] for route in (bells.MONITOR, bells.REWAKE)} - {"off"}
    return bool(wakers) and there == {"silent"}


def _now_ms() -> int:
    from claudemesh_mcp.peer import system_ms

    return system_ms()
