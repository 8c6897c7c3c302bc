"""Checks of what others may do here: the home's own grants and blocks, and what waits held.

``doctor/__init__.py`` lists them. Both look into this home's files alone, which are the truth.
"""

from claudemesh_mcp import held, meshes
from claudemesh_mcp.doctor.finding import Case, Finding, in_thread, ok, skip, warn
from claudemesh_mcp.doctor.mesh import identity_of
from claudemesh_mcp.grantfile import GrantFile
from claudemesh_mcp.home import Home
from claudemesh_mcp.rights import defaults, difference
from claudemesh_mcp.trust import Trust
from claudemesh_wire.grants import services


async def check_grants(case: Case) -> Finding:
    """Look whether the grants can be read, count those beside the defaults, and name these."""
    strict = case.settings is not None and case.settings.strict
    return await in_thread(lambda: _count_grants(case, strict=strict))


async def check_held(case: Case) -> Finding:
    """Look whether messages wait for this home's human, in whatever mesh."""
    return await in_thread(lambda: _count_held(case))


def _count_grants(case: Case, *, strict: bool) -> Finding:
    identity = identity_of(case)
    if identity is None:
        return skip("There is no mesh here yet.")
    granted = GrantFile(identity).read()
    others = [
        one
        for one in Trust.open(identity).chain.members.values()
        if not one.removed and one.id != identity.member
    ]
    if not others:
        return ok("Nobody else is in this mesh.")
    found = [difference(identity.member, one, granted.grants.get(one.id), "") for one in others]
    provided = [
        f" {one.name} may provide {', '.join(names)} as well as you."
        for one in others
        if (names := services(granted.grants.get(one.id)))
    ]
    blocked = sum(one.id in granted.blocked for one in others)
    table = "; ".join(
        f"{who} {', '.join(may) or '-'}" for who, may in defaults(strict=strict).items()
    )
    return ok(
        f"{len(others)} other member{'' if len(others) == 1 else 's'};"
        f" {len(found) - found.count(None)} with rights beside the defaults, {blocked} blocked."
        f"{''.join(provided)} The defaults: {table}."
    )


def _count_held(case: Case) -> Finding:
    if not case.paths.sessions.is_dir():
        return skip("No session has opened here yet.")
    home = Home(case.paths)
    found = held.find(home).within(meshes.names(home))
    if found.skipped:
        return warn(
            f"{len(found.messages)} message(s) are held;"
            f" {len(found.skipped)} file(s) of sessions can't be looked into: {found.skipped[0]}",
            "Upgrade claudemesh if a newer one wrote it; else see what the check messages says.",
        )
    if not found.messages:
        return ok("No message is held.")
    names = sorted({one.member_name for one in found.messages})
    return warn(
        f"{len(found.messages)} message(s) from {', '.join(names)} lack a grant and are held.",
        "claudemesh inbox --held lists them, and the commands that let through or decline them.",
    )
