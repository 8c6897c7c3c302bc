"""The commands ``install`` and ``uninstall``: claudemesh in Claude Code, and out of it again.

They ask ``claudemesh_mcp.installation`` what has to be done, print it, and have it done.
"""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.config import locate
from claudemesh_mcp.installation.scopes import Scope
from claudemesh_wire.errors import NotFound

if TYPE_CHECKING:
    from claudemesh_mcp.installation.record import Record
    from claudemesh_mcp.installation.scopes import Site
    from claudemesh_mcp.installation.steps import Step

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
_NEXT: Final = "Sessions that start from now on have it. To look it over: claudemesh doctor"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(install)
    app.command()(uninstall)


def install(
    scope: Annotated[
        Scope, typer.Option(help="For all your sessions, for a project, for you in a project.")
    ] = Scope.USER,
    *,
    plugin: Annotated[
        bool, typer.Option("--plugin", help="As a plugin: it brings a monitor and skills along.")
    ] = False,
    allow: Annotated[
        bool | None,
        typer.Option(help="Let models call the tools that only read, without a question."),
    ] = None,
    statusline: Annotated[
        bool | None, typer.Option(help="Show the mesh in the status line, if none is set.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Say yes to both offers.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Put claudemesh into Claude Code: the server and its hooks, or the plugin.

    The commands it runs and the changes it makes are printed; what it changes is kept as it was. A
    second run finds nothing to do. At a terminal it asks whether the tools that only read may be
    called without a question, and whether to show a status line; elsewhere it leaves both out.

    With --json: {"done": ..., "steps": [{"run": ...} | {"edit", "changes", "backup"?} |
    {"write", "changes"}, ...]}, where done is false after --dry-run.

    \b
    Examples:
      claudemesh install --dry-run
      claudemesh install --plugin
      claudemesh install --scope project --yes
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp.installation import placing, scopes

    site = scopes.here()
    scopes.refuse_sudo(site, [scope])
    claude = scopes.find_claude()
    asks = not (yes or dry_run or json) and sys.stdin.isatty() and sys.stderr.isatty()
    wish = placing.Wish(
        scope,
        plugin,
        _settle(allow, yes, asks, "Let models call the tools that only read without a question?"),
        _settle(statusline, yes, asks, "Show the mesh in the status line, if none is set?"),
    )
    with _record(is_changed=not dry_run) as record:
        taken = _take(placing.steps(wish, site, record, claude), dry_run=dry_run, json=json)
    if not json:
        _say_what_is_double(site, scope)
        if not taken:
            show.word(f"Claude Code has claudemesh already (scope {scope}).")
        elif not dry_run:
            show.word(_NEXT)


def uninstall(
    scope: Annotated[
        Scope | None, typer.Option(help="Where; without it, wherever it is found from here.")
    ] = None,
    *,
    plugin: Annotated[
        bool, typer.Option("--plugin", help="The plugin too, if others have installed it.")
    ] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Take claudemesh out of Claude Code: what `install` has put there, and nothing else.

    Your home with its keys and messages stays. With --json it prints what install does.

    \b
    Examples:
      claudemesh uninstall --dry-run
      claudemesh uninstall --scope project
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from claudemesh_mcp.installation import removing, scopes

    site = scopes.here()
    chosen = list(Scope) if scope is None else [scope]
    scopes.refuse_sudo(site, chosen)
    try:
        claude, missing = scopes.find_claude(), None
    except NotFound as error:
        claude, missing = "", error
    with _record(is_changed=not dry_run and locate().data.exists()) as record:
        steps = [
            step
            for one in chosen
            for step in removing.steps(one, site, record, claude, plugin=plugin)
        ]
        kept = [said for one in chosen if (said := removing.left(one, site, record))]
        if missing is not None and not dry_run:
            _take_without_client(steps, missing, json=json)
        taken = _take(steps, dry_run=dry_run, json=json)
    if not json:
        for said in kept:
            show.word(said)
        if not taken:
            show.word("There is nothing of claudemesh in Claude Code, as far as seen from here.")


def _take_without_client(steps: "Sequence[Step]", missing: NotFound, *, json: bool) -> None:
    """Take the steps that need no client, if others do: the hooks must not outlive the program.

    Raises:
        NotFound: ``claude_not_found``, for the others.
    """
    from claudemesh_mcp.installation.steps import Run

    own = [step for step in steps if not isinstance(step, Run)]
    if len(own) == len(steps):
        return
    for told in [step.take() for step in own]:
        if told and not json:
            _print(told)
    raise missing


def _record(*, is_changed: bool) -> "AbstractContextManager[Record]":
    """Open the notes; who changes nothing leaves nothing behind, and waits for nobody."""
    from claudemesh_mcp.installation.record import Record, record_alone

    data = locate().data
    return record_alone(data) if is_changed else nullcontext(Record(data))


def _say_what_is_double(site: "Site", scope: Scope) -> None:
    from claudemesh_mcp.installation.scopes import is_ours

    for one, entry in site.servers():
        if one is not scope and is_ours(entry):
            show.word(
                f"Here Claude Code has claudemesh in scope {one} too, and calls each hook twice."
                f" To take one away: claudemesh uninstall --scope {one}"
            )


def _settle(given: bool | None, yes: bool, asks: bool, question: str) -> bool:
    if given is not None:
        return given
    return typer.confirm(question, default=True, err=True) if asks else yes


def _take(steps: "Sequence[Step]", *, dry_run: bool, json: bool) -> list[dict[str, Any]]:
    taken: list[dict[str, Any]] = []
    for step in steps:
        told = step.shown() if dry_run else step.take()
        if told:
            taken.append(told)
            if not json:
                _print(told)
    if json:
        show.data({"done": not dry_run, "steps": taken})
    return taken


def _print(told: dict[str, Any]) -> None:
    if "run" in told:
        show.line(told["run"])
        return
    show.line(f"{told.get('edit') or told['write']}: {'; '.join(told['changes'])}")
    if "backup" in told:
        show.line(f"as it was: {told['backup']}", indent=4)
