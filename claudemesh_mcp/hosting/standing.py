"""One server that is offered: what it can do, and what was said of it to the mesh.

``offering.py`` has one for each server it hosts. Definitions come as the server gives them; who
offers them, to whom and which of the tools is signed here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import anyio
from anyio.abc import TaskStatus
from pydantic import Field, ValidationError

from claudemesh_mcp.client import Client
from claudemesh_mcp.hosting.definitions import fit
from claudemesh_mcp.hosting.flights import Raw
from claudemesh_mcp.hosting.keeping import Condition
from claudemesh_mcp.hosting.serving import Runs
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.results import Result
from claudemesh_mcp.suggestions import did_you_mean, quoted
from claudemesh_wire.certificate import Certificate
from claudemesh_wire.errors import Invalid, MeshError, ProtocolError
from claudemesh_wire.keys import b64
from claudemesh_wire.mcp_servers import OWN, Registration, RegistrationFields

Definitions = dict[str, list[Raw]]
_NOTHING: Final[Definitions] = {}


class Announced(Protocol):
    """What is said of a server beside what it can do; a ``ServerWish`` is one."""

    @property
    def name(self) -> str:
        """Its short name."""
        ...

    @property
    def description(self) -> str:
        """What it is for."""
        ...

    @property
    def visible_to(self) -> tuple[str, ...]:
        """Whom it is for."""
        ...

    @property
    def tools_allowed(self) -> tuple[str, ...] | None:
        """Only these of its tools are offered; ``None`` for all."""
        ...

    @property
    def persistent(self) -> bool:
        """It comes back after everybody was restarted."""
        ...


class Server(Runs, Protocol):
    """What runs a server: a ``Kept``, or plain functions."""

    @property
    def condition(self) -> Condition:
        """How it is now."""
        ...

    @property
    def command_line(self) -> str:
        """How it was started, for its owner's eyes."""
        ...

    async def run(
        self, *, patient: bool = False, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep it running until cancelled; see ``Kept.run``."""
        ...

    async def definitions(self) -> Definitions:
        """Give what it can do now; raises ``MeshError``."""
        ...


class Registered(Result):
    """A server that is offered now."""

    name: str = Field(description="By which others call it: `handle/name`.")
    tools: list[str]
    resources: int = Field(description="How many, templates too.")
    prompts: int
    visible_to: list[str]
    started: str = Field(description="The command line or address.")
    warnings: list[str]


@dataclass(frozen=True)
class Hosting:
    """How a server of this peer stands.

    Args:
        name: Its short name.
        full_name: Its name in the mesh; empty before the mesh was told.
        command_line: How it was started.
        condition: How it is.
        visible_to: Whom it is for.
        persistent: Whether it is to come back.
        tools: Those that are offered.
        is_offered: Whether the mesh knows what it can do now.
        refused: Why the broker does not take it; empty while nothing is wrong.
    """

    name: str
    full_name: str
    command_line: str
    condition: Condition
    visible_to: tuple[str, ...]
    persistent: bool
    tools: tuple[str, ...]
    is_offered: bool
    refused: str


@dataclass(eq=False)
class Standing:
    """A server that is offered, or is to be.

    Args:
        announced: What is said of it.
        server: What runs it.
        is_restored: It is offered once it runs, and nobody waits for that.
    """

    announced: Announced
    server: Server
    is_restored: bool = False
    definitions: Definitions = field(default_factory=Definitions)
    left_out: tuple[str, ...] = ()
    """What of its definitions nobody can be shown, and why."""
    full_name: str = ""
    registration: Registration | None = None
    """What it can do now, signed; ``None`` before that was read."""
    certificate: Certificate | None = None
    """By which the registration is believed."""
    client: Client | None = None
    """The connection that the registration was made for."""
    told: Registration | None = None
    """What the broker has confirmed."""
    refused: tuple[Registration, MeshError] | None = None
    """What the broker does not take, and why."""
    due: anyio.Event = field(default_factory=anyio.Event)
    """Set when its definitions are to be read again."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)
    """Set when it runs no more, and is not to."""

    @property
    def name(self) -> str:
        """Its short name."""
        return self.announced.name

    @property
    def is_refused(self) -> bool:
        """Whether the broker does not take what it can do now."""
        return self.refused is not None and self.refused[0] is self.registration

    @property
    def may_be_known(self) -> bool:
        """Whether it was said to the broker, which may have it, whatever it answered.

        Only a refusal for what was said means that nothing is kept: an error of its own may have
        come after that.
        """
        said = self.refused[1] if self.refused is not None and self.is_refused else None
        return self.client is not None and (said is None or isinstance(said, ProtocolError))

    @property
    def tools(self) -> list[str]:
        """The names of the tools that are offered."""
        return [str(one.get("name")) for one in self.definitions.get("tools", [])]

    async def read(self, peer: Peer) -> bool:
        """Read what it can do now, and sign that; tell whether it is something else than before.

        A tool of ``tools_allowed`` that it does not have is refused only to who registers it now.

        Raises:
            Invalid: ``unknown_tool``, ``bad_definitions``, ``registration_too_large``.
            MeshError: it does not answer as it should.
        """
        found = await self.server.definitions()
        allowed = self.announced.tools_allowed
        if allowed is not None:
            if self.registration is None and not self.is_restored:
                _check_allowed(found["tools"], allowed)
            found["tools"] = [one for one in found["tools"] if one.get("name") in allowed]
        found, self.left_out = fit(found)
        made = sign(peer, self.announced, found)
        before = self.registration
        if before is not None and before.fields.definitions == made.fields.definitions:
            return False
        self.definitions, self.registration, self.certificate = found, made, peer.certified()
        self.client = None
        return True

    def renew(self, peer: Peer, client: Client) -> None:
        """Sign it anew for another connection: the certificate may be another one."""
        self.registration = sign(peer, self.announced, self.definitions)
        self.certificate, self.client = peer.certified(), client

    def registered(self) -> Registered:
        """Say what is offered."""
        found = self.definitions
        return Registered(
            name=self.full_name,
            tools=self.tools,
            resources=len(found["resources"]) + len(found["resource_templates"]),
            prompts=len(found["prompts"]),
            visible_to=list(self.announced.visible_to),
            started=self.server.command_line,
            warnings=self._warnings(),
        )

    def _warnings(self) -> list[str]:
        told = list(self.left_out)
        if not any(self.definitions.values()):
            told.append("It has no tools, resources or prompts.")
        if set(self.announced.visible_to) != {OWN}:
            told.append(
                "Of other members only those may call it to whom the human grants that:"
                " claudemesh grant MEMBER tool"
            )
        return told

    def hosting(self) -> Hosting:
        """Say how it stands."""
        said, now = self.announced, self.registration
        return Hosting(
            name=said.name,
            full_name=self.full_name,
            command_line=self.server.command_line,
            condition=self.server.condition,
            visible_to=said.visible_to,
            persistent=said.persistent,
            tools=tuple(self.tools),
            is_offered=now is not None and self.told is now,
            refused=self.refused[1].reason if self.refused and self.is_refused else "",
        )


def _check_allowed(tools: Sequence[Raw], allowed: Sequence[str]) -> None:
    names = [str(one.get("name")) for one in tools]
    for name in allowed:
        if name not in names:
            raise Invalid(
                f"tools_allowed names {quoted(name)}, which the server does not have.",
                did_you_mean(name, names),
                code="unknown_tool",
            )


def sign(peer: Peer, announced: Announced, definitions: Definitions = _NOTHING) -> Registration:
    """Say of a server what it can do, and whom it is for.

    Raises:
        Invalid: ``bad_server``: its name or description can't be shown; ``bad_viewer``;
            ``bad_definitions``; ``registration_too_large``.
    """
    certificate = peer.certified()
    try:
        fields = RegistrationFields(
            mesh=peer.trust.mesh,
            peer=peer.id,
            cert=b64(certificate.hash),
            name=announced.name,
            at=peer.now_ms(),
            description=announced.description,
            visible_to=list(announced.visible_to),
            persistent=announced.persistent,
            definitions=_written(definitions),
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise Invalid(
            f"A server can't be offered so: {problem['loc'][0]}: {problem['msg']}.",
            "name: 1 to 40 of a-z, 0-9, _ and -, not beginning with _ or -; description: at most"
            " 2000 characters; visible_to: 1 to 64 viewers.",
            code="bad_server",
        ) from None
    # Parsed as others will: what they would refuse is refused here.
    return Registration.parse(Registration.make(fields, peer.device.sign.sign).blob)


def _written(definitions: Definitions) -> str:
    try:
        return json.dumps(definitions, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise Invalid(
            "The definitions of a server can't be used: they are no JSON.",
            "Look at what its tools/list answers.",
            code="bad_definitions",
        ) from error
