"""Meshes: the membership log, what the mesh and its broker are.

Served by ``claudemesh_broker.features.meshes``; used by the client's trust and ``mesh_info``.
"""

from typing import Annotated

from pydantic import Field

from claudemesh_wire.message import Message, Notice, Rate, Request, Rule, Whole


class LogEntries(Message, kind="meshes.log_entries"):
    """Membership entries in order, and where the broker's log ends."""

    entries: list[bytes]
    head_seq: int
    head: bytes


class ReadLog(Request[LogEntries], kind="meshes.log", rule=Rule.READ, rate=Rate.RPC):
    """Read the membership log behind entry ``after_seq``."""

    after_seq: Whole = 0
    limit: Annotated[int, Field(ge=1, le=500)] = 200


class AppendEntry(
    Request[LogEntries], kind="meshes.append", rule=Rule.READ, rate=Rate.RPC, audited=True
):
    """Append one signed entry if it follows the head; who may is decided by the chain itself."""

    entry: bytes


class Return(Request[LogEntries], kind="meshes.return", rule=Rule.OPEN, rate=Rate.AUTH):
    """Append the entry by which a member returns whose removal had an end; before the hello."""

    entry: bytes


class LogGrew(Notice, kind="meshes.log_grew"):
    """The log has new entries; every client verifies them for itself."""

    entries: list[bytes]
    head_seq: int
    head: bytes


class MeshFacts(Message, kind="meshes.facts"):
    """What the broker says of the mesh and of itself; ``url`` and ``pin`` are for others."""

    name: str
    created_ms: Whole
    peers: int
    online: int
    queued: int
    broker_version: str
    data_version: int
    started_ms: Whole
    limits: dict[str, float]
    url: str = ""
    pin: bytes = b""


class AskMesh(Request[MeshFacts], kind="meshes.info", rule=Rule.READ, rate=Rate.RPC):
    """Ask what this mesh is."""


class MeshEnded(Message, kind="meshes.ended"):
    """The broker has forgotten the mesh, but for its id."""


class EndMesh(Request[MeshEnded], kind="meshes.end", rule=Rule.OWNER, rate=Rate.RPC, audited=True):
    """End the mesh for everybody: its peers, queues and log at the broker are deleted.

    ``entry`` is the owner's signed word, the last that the log takes.
    """

    entry: bytes
