"""The command ``doctor``: looks over this installation and says what puts right what is not well.

It runs the checks of ``claudemesh_mcp.doctor`` and prints through ``show.py``.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import typer

from claudemesh_mcp.cli import chosen, show
from claudemesh_mcp.cli.asking import connected
from claudemesh_mcp.config import Settings, locate
from claudemesh_wire.errors import MeshError

if TYPE_CHECKING:
    from claudemesh_mcp.doctor import Case, Finding
    from claudemesh_mcp.sdk import Mesh

_MARKS: Final = {"ok": "✓", "warn": "!", "fail": "✗", "skip": "-"}


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(doctor)


def doctor(
    *,
    fix: Annotated[
        bool, typer.Option("--fix", help="Put right what can be without asking anybody.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look over this installation, and say what puts right what is not well.

    Without --fix nothing is changed. With it, what others can look into is closed, and a server or
    hooks in Claude Code whose program has moved are set anew; then everything is looked at again.
    No broker is started. The exit code is 1 when something does not work.

    With --json: {"ok": ..., "checks": [{"name", "state", "message", "fix"}, ...], "fixed": [...]},
    where state is ok, warn, fail or skip, and fix is empty when nothing is to be done; fixed is
    there with --fix only.

    \b
    Examples:
      claudemesh doctor
      claudemesh doctor --fix
      claudemesh doctor --json | jq '.checks[] | select(.state == "fail")'
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    found = anyio.run(_examine, json or fix)
    told: dict[str, Any] = {}
    if fix:
        told["fixed"] = _repair(found)
        for said in told["fixed"] if not json else ():
            show.word(f"fixed: {said}")
        found = anyio.run(_examine, json)
    works = all(one.state != "fail" for one in found)
    if json:
        show.data({"ok": works, "checks": [one.as_dict() for one in found], **told})
    if not works:
        raise typer.Exit(show.FAILED)


def _repair(found: "list[Finding]") -> list[str]:
    fixed: list[str] = []
    for one in found:
        if one.repair is None:
            continue
        try:
            fixed.append(f"{one.name}: {one.repair()}")
        except (MeshError, OSError) as error:
            show.word(f"{one.name} could not be put right: {error}")
    return fixed


async def _examine(quietly: bool) -> "list[Finding]":
    from claudemesh_mcp.doctor import examine
    from claudemesh_mcp.logs import log_to_file

    case = _case()
    # A connection that fails is told by its check, and not a second time on stderr.
    log_to_file(case.paths.logs)
    found: list[Finding] = []
    async for one in examine(case):
        found.append(one)
        if not quietly:
            show.line(f"{_MARKS[one.state]} {one.name}: {one.message}")
            if one.fix:
                show.line(f"→ {one.fix}", indent=4)
    return found


def _case() -> "Case":
    from claudemesh_mcp.doctor import Case

    def load() -> tuple[Settings, dict[str, str]]:
        return chosen.settings(), chosen.origins()

    return Case(paths=locate(), load=load, connect=_connect)


@asynccontextmanager
async def _connect(settings: Settings) -> "AsyncGenerator[Mesh]":
    from claudemesh_wire.handshake import Mode

    async with connected(replace(settings, name=None), Mode.CALL) as mesh:
        yield mesh
