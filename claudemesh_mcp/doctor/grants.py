"""Checks of what others may do here: the home's own grants and blocks, and what waits held.

``doctor/__init__.py`` lists them. Both look into this home's files alone, which are the truth.
"""

from collections.abc import Callable

from claudemesh_mcp import held
from claudemesh_mcp.doctor.finding import Case, Finding, in_thread, ok, skip, warn
from claudemesh_mcp.doctor.mesh import identity_of
from claudemesh_mcp.grantfile import GrantFile
from claudemesh_mcp.identity import Identity
from claudemesh_mcp.trust import Trust


async def check_grants(case: Case) -> Finding:
    """Look whether the grants can be read, and count those beside the defaults."""
    return await in_thread(lambda: _look(case, _count_grants))


async def check_held(case: Case) -> Finding:
    """Look whether messages wait for this home's human."""
    return await in_thread(lambda: _look(case, _count_held))


def _look(case: Case, look: Callable[[Identity], Finding]) -> Finding:
    identity = identity_of(case)
    return skip("There is no mesh here yet.") if identity is None else look(identity)


def _count_grants(identity: Identity) -> Finding:
    granted = GrantFile(identity).read()
    others = [
        one
        for one in Trust.open(identity).chain.members.values()
        if not one.removed and one.id != identity.member
    ]
    if not others:
        return ok("Nobody else is in this mesh.")
    blocked = len(granted.blocked)
    return ok(
        f"{len(others)} other members; {len(granted.grants)} have grants beside the defaults,"
        f" {blocked} {'is' if blocked == 1 else 'are'} blocked."
    )


def _count_held(identity: Identity) -> Finding:
    found = held.find(identity.home, identity.mesh)
    if not found:
        return ok("No message is held.")
    names = sorted({one.member_name for one in found})
    return warn(
        f"{len(found)} message(s) from {', '.join(names)} lack a grant and are held.",
        "claudemesh inbox --held lists them, claudemesh allow lets them through.",
    )
