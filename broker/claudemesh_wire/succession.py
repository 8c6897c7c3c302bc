"""Succession: what an ended peer's heir reads in its place.

Served by ``claudemesh_broker.features.succession``; used by the client of a session that took over
the handle of an earlier one. What it reads is sealed to the earlier one's keys, which lie in the
same home; its receipts are its own, and the sender sees that they are the heir's.
"""

from typing import Annotated, Final

from pydantic import Field

from claudemesh_wire.message import Message, Notice, Part, PeerId, Rate, Request, Rule, Whole

MOST_TOLD: Final = 32
"""The welcome names so many ended peers at most, the latest; one who is told as many asks on."""


class Predecessors(Message, kind="succession.predecessors"):
    """Ended peers whose place one has taken, by their ids; ``more`` when others are behind them."""

    peers: list[PeerId]
    more: bool


class ListPredecessors(
    Request[Predecessors], kind="succession.list", rule=Rule.READ, rate=Rate.RPC
):
    """List the ended peers whose place one has taken, behind one of them."""

    after: Annotated[str, Field(max_length=40)] = ""
    limit: Annotated[int, Field(ge=1, le=200)] = 100


class Inherited(Part):
    """One copy that waits for the heir; ``of`` is the ended peer that it is sealed to."""

    row: Whole
    of: PeerId
    envelope: bytes
    queued_ms: Whole


class Inheritance(Message, kind="succession.inheritance"):
    """Part of what waits for an heir, oldest first; ``more`` when rows are left behind it."""

    messages: list[Inherited]
    certificates: list[bytes]
    more: bool


class FetchInheritance(
    Request[Inheritance], kind="succession.fetch", rule=Rule.READ, rate=Rate.RPC
):
    """Read what waits for ended peers of whom one is the heir, behind a row and its peer."""

    after_row: Whole = 0
    after_peer: Annotated[str, Field(max_length=40)] = ""
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class InheritanceGrew(Notice, kind="succession.grew"):
    """Something was sent to an ended peer of whom this one is the heir: fetch it."""
