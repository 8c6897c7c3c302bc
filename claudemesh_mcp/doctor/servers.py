"""The check of the MCP servers that come back in this home: what starts them, who hosts each, how.

``doctor/__init__.py`` lists it. It looks into this home's files alone, which are the truth.
"""

from typing import TYPE_CHECKING, Final

from claudemesh_mcp.doctor.finding import Case, Finding, fail, in_thread, ok, skip, warn
from claudemesh_mcp.doctor.mesh import identity_of

if TYPE_CHECKING:
    from claudemesh_mcp.hosting.registry import Status

_BAD: Final = frozenset({"failed", "refused"})
_LONGEST_WHY: Final = 200


async def check_servers(case: Case) -> Finding:
    """Look whether what is kept of each can be read, who hosts it, and whether it runs."""
    return await in_thread(lambda: _look(case))


def _look(case: Case) -> Finding:
    from claudemesh_mcp.hosting.registry import Registry

    identity = identity_of(case)
    if identity is None:
        return skip("There is no mesh here yet.")
    registry = Registry(identity)
    kept = registry.read()
    if kept.faults:
        reasons = " ".join(one.error.reason for one in kept.faults)
        return fail(f"{len(kept.faults)} can't be read: {reasons}", kept.faults[0].error.hint)
    statuses = [registry.status(entry) for entry in kept.entries]
    if not statuses:
        return ok("None comes back in this home.")
    said = "; ".join(_said(one) for one in statuses)
    bad = [one.entry.wish.name for one in statuses if one.state in _BAD]
    if bad:
        return warn(f"{said}.", f"claudemesh mcp-server logs {bad[0]}")
    return ok(f"{said}.")


def _said(one: "Status") -> str:
    wish = one.entry.wish
    where = one.entry.folder if wish.scope == "project" else f"scope {wish.scope}"
    by = f" at {one.by}" if one.by and one.state != "waiting" else ""
    lines = one.why.strip().splitlines() if one.state in _BAD else []
    why = f" ({lines[0][:_LONGEST_WHY].rstrip('.')})" if lines else ""
    return f"{wish.name} ({where}) is {one.state}{by}{why}: {wish.launch.command_line}"
