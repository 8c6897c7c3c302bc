"""Looks over an installation and says of each thing that is not well what puts it right.

``cli/doctor.py`` runs it. Every check is one small function that changes nothing and stands in
``CHECKS``; one that can't be made is itself a finding.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Final

import anyio

from claudemesh_mcp.doctor import client, grants, home, machine, mesh, servers
from claudemesh_mcp.doctor.finding import Case, Check, Finding, State, fail
from claudemesh_wire.errors import MeshError

__all__ = ["CHECKS", "Case", "Check", "Finding", "State", "examine"]

logger: Final = logging.getLogger(__name__)

# In this order: later ones use what earlier ones have learned.
CHECKS: Final[tuple[Check, ...]] = (
    Check("python", machine.check_python),
    Check("program", machine.check_program),
    Check("claude", machine.check_claude),
    Check("server", client.check_server),
    Check("hooks", client.check_hooks),
    Check("settings", home.check_settings),
    Check("home", home.check_folders),
    Check("disk", home.check_disk),
    Check("keys", home.check_keys, limit_s=15.0),
    Check("logs", home.check_logs),
    Check("mesh", mesh.check_choice),
    Check("address", mesh.check_address),
    Check("bindings", mesh.check_bindings),
    Check("token", client.check_token),
    Check("broker", mesh.check_broker, limit_s=20.0),
    Check("versions", mesh.check_versions),
    Check("clock", mesh.check_clock),
    Check("members", mesh.check_members, limit_s=15.0),
    Check("trust", mesh.check_trust),
    Check("grants", grants.check_grants, limit_s=15.0),
    Check("held", grants.check_held, limit_s=15.0),
    Check("mcp-servers", servers.check_servers, limit_s=15.0),
    Check("quotas", mesh.check_quotas),
    Check("messages", home.check_messages, limit_s=20.0),
    Check("routes", client.check_routes),
)


async def examine(case: Case, checks: Sequence[Check] = CHECKS) -> AsyncGenerator[Finding]:
    """Make the checks one after the other, and give what each found."""
    for check in checks:
        yield replace(await _look(check, case), name=check.name)


async def _look(check: Check, case: Case) -> Finding:
    found = fail(
        f"It could not be looked at within {check.limit_s:g} s.",
        "Run claudemesh doctor again when this machine is less busy.",
    )
    with anyio.move_on_after(check.limit_s):
        try:
            found = await check.look(case)
        except MeshError as error:
            found = fail(error.reason, error.hint or "Run claudemesh doctor again.")
        except Exception as error:
            logger.exception("the check %s could not be made", check.name)
            log = case.paths.logs
            told = (
                f"Look into the log in {log}."
                if log.is_dir()
                else f"Put right what else is wrong, and run it again; {log} is not there to tell."
            )
            found = fail(f"It could not be looked at: {error!r}.", told)
    return found
