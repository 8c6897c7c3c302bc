"""Reads what a grant names: capabilities, and services that another may provide.

``cli/grants.py`` and ``cli/invites.py`` read names with it, ``granting.py`` checks what is to be
taken back.
"""

from collections.abc import Iterable

from claudemesh_mcp.grantfile import Change
from claudemesh_mcp.suggestions import did_you_mean, quoted
from claudemesh_wire.errors import Invalid, NotFound
from claudemesh_wire.grants import PROVIDE, Capability, Grant, service_in, services
from claudemesh_wire.membership import Member


def named(words: Iterable[str]) -> list[str]:
    """Give the names in words of a command line, of which each may hold several with commas."""
    return [one for word in words for part in word.split(",") if (one := part.strip())]


def capabilities(names: Iterable[str]) -> frozenset[str]:
    """Read the names of capabilities.

    Raises:
        Invalid: ``unknown_capability``.
    """
    known, asked = [str(one) for one in Capability], frozenset(names)
    for name in sorted(asked):
        if name not in known:
            raise Invalid(
                f"There is no capability {quoted(name)}.",
                did_you_mean(name, known),
                code="unknown_capability",
            )
    return asked


def grantable(names: Iterable[str]) -> frozenset[str]:
    """Read what a grant may name: capabilities, and services as ``provide:name``.

    Raises:
        Invalid: ``unknown_capability``; ``bad_service``: it is no server's name.
    """
    asked = frozenset(names)
    provided = frozenset(one for one in asked if one.startswith(PROVIDE))
    for one in sorted(provided):
        if not service_in(one):
            raise Invalid(
                f"{quoted(one)} names no service.",
                f"Write {PROVIDE} and a server's name: a-z, 0-9, _ and -, 40 at most.",
                code="bad_service",
            )
    return capabilities(asked - provided) | provided


def check_provided(member: Member, grant: Grant | None, wanted: Change) -> None:
    """Refuse to take back what was not given: a name with a slip would seem to have done it."""
    known = services(grant)
    for name in sorted(map(service_in, wanted.deny)):
        if name and name not in known:
            near = did_you_mean(name, known)
            raise NotFound(
                f"{member.name} was not let provide {name}; nothing was changed.",
                f"{near} claudemesh grants shows it.",
                code="not_provided",
            )
