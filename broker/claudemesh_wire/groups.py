"""Groups: who you are with.

Served by ``claudemesh_broker.features.groups``; asked by the tools ``join`` and ``leave``.
"""

from typing import Annotated

from pydantic import Field

from claudemesh_wire.address import GroupName
from claudemesh_wire.message import Message, Rate, Request, Rule
from claudemesh_wire.presence import GroupRole


class MyGroups(Message, kind="groups.mine"):
    """The groups one is in after the change, by name, and whether it changed anything."""

    groups: list[GroupRole]
    changed: bool
    members: int


class JoinGroup(
    Request[MyGroups], kind="groups.join", rule=Rule.WRITE, rate=Rate.RPC, audited=True
):
    """Enter a group, which exists as long as somebody is in it; again changes the role."""

    group: GroupName
    role: Annotated[str, Field(max_length=80)] = ""


class LeaveGroup(
    Request[MyGroups], kind="groups.leave", rule=Rule.READ, rate=Rate.RPC, audited=True
):
    """Go out of a group; NotFound when one is not in it."""

    group: GroupName
