"""MCP servers that peers offer to the mesh: signed registrations of what each can do.

Served by ``claudemesh_broker.features.mcp_servers``. A registration is ``payload || signature(64)``
by the device that hosts the server; the definitions in it are a JSON text, kept as the server gave
it. The broker reads whom it is for and shows it to nobody else; calls go through ``tunnels.py``.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Self, cast

from pydantic import Field

from claudemesh_wire import canonical
from claudemesh_wire.certificate import MAX_CERTIFICATE_BYTES, Certificate
from claudemesh_wire.errors import Forbidden, Invalid
from claudemesh_wire.keys import SIGNATURE_BYTES, b64
from claudemesh_wire.message import (
    Digest,
    MemberId,
    MeshId,
    Message,
    Part,
    PeerId,
    Rate,
    Request,
    Rule,
    ServerName,
    Whole,
)

DOMAIN: Final = "claudemesh/mcp-server/v1"
MAX_REGISTRATION_BYTES: Final = 512 * 1024
MAX_SERVERS: Final = 32
"""So many servers a peer may offer."""
MAX_TOOLS: Final = 256
MAX_TOOL_NAME: Final = 200
MAX_DEPTH: Final = 100
"""So deep definitions may be nested: whoever shows them goes through them level by level."""
MAX_KNOWN: Final = 1024
MAX_BACKING: Final = 8
"""So many grants are shown with a server by which it counts in the services of others."""
OWN: Final = "own"
MESH: Final = "mesh"

_GROUP: Final = "[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_VIEWER: Final = re.compile(
    f"{OWN}|{MESH}|p_[a-z2-7]{{26}}|@{_GROUP}(?::[^:,]{{1,80}})?|role:(?:owner|admin|member)"
)
# Beside what Unicode calls a control or a format character: what is drawn as nothing.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
_UNSEEN_KINDS: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_DEFINED: Final = ("tools", "resources", "resource_templates", "prompts")


class RegistrationFields(canonical.Signed):
    """What a device says of a server; ``visible_to`` are viewers, ``at`` is in milliseconds.

    A viewer is ``own`` (the sessions of the same member, who always see it), ``mesh``, a peer's id,
    ``@group``, ``@group:role`` or ``role:admin``, by the role in the mesh.
    """

    v: int = 1
    mesh: MeshId
    peer: PeerId
    cert: Digest
    name: ServerName
    at: int
    description: Annotated[str, Field(max_length=2000)] = ""
    visible_to: Annotated[list[str], Field(min_length=1, max_length=64)]
    persistent: bool = False
    definitions: str


@dataclass(frozen=True)
class Registration:
    """A registration with the bytes that carry it; parsed does not mean believed."""

    blob: bytes
    fields: RegistrationFields

    @classmethod
    def make(cls, fields: RegistrationFields, sign: Callable[..., bytes]) -> Self:
        """Sign the fields with the key of the hosting device."""
        payload = canonical.encode(fields)
        return cls(payload + sign(DOMAIN, payload), fields)

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Read a registration without believing it.

        Raises:
            Invalid: no plausible size, malformed, another version, an unknown kind of viewer, or
                definitions that are none.
        """
        if not SIGNATURE_BYTES < len(blob) <= MAX_REGISTRATION_BYTES:
            raise Invalid(
                f"A server's registration has at most {MAX_REGISTRATION_BYTES} bytes.",
                "Offer fewer of its tools: tools_allowed.",
                code="registration_too_large",
            )
        fields = canonical.decode(blob[:-SIGNATURE_BYTES], RegistrationFields, "registration")
        check_viewers(fields.visible_to)
        made = cls(blob, fields)
        _ = made.definitions
        return made

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the whole registration: its name."""
        return hashlib.sha256(self.blob).digest()

    @cached_property
    def definitions(self) -> dict[str, list[dict[str, Any]]]:
        """The definitions as the server gave them, by ``tools``, ``resources`` and so on."""
        return read_definitions(self.fields.definitions)

    @cached_property
    def tools(self) -> dict[str, tuple[dict[str, Any], str]]:
        """Each tool's definition with its digest, by name."""
        listed = self.definitions["tools"]
        return {str(one["name"]): (one, definition_digest(one)) for one in listed}

    def check(self, certificate: Certificate) -> None:
        """Believe it by the certificate of its device, which was verified.

        Raises:
            Forbidden: ``forged_registration``.
        """
        said, shown = self.fields, certificate.fields
        named = (shown.mesh, shown.peer, b64(certificate.hash))
        genuine = named == (said.mesh, said.peer, said.cert) and certificate.covers(said.at)
        signature, payload = self.blob[-SIGNATURE_BYTES:], self.blob[:-SIGNATURE_BYTES]
        if not (genuine and certificate.sign_key.accepts(signature, DOMAIN, payload)):
            raise Forbidden(
                "A server's registration was not signed by the session that is said to offer it.",
                "Do not rely on this broker's word about it.",
                code="forged_registration",
            )


def check_viewers(viewers: Iterable[str]) -> None:
    """Refuse what says nobody who could see a server.

    Raises:
        Invalid: ``bad_viewer``.
    """
    for viewer in viewers:
        if not _VIEWER.fullmatch(viewer):
            raise Invalid(
                f"{viewer[:80]!a} says nobody who could see a server.",
                "Say own, mesh, a peer, @group, @group:role or role:admin.",
                code="bad_viewer",
            )


def read_definitions(text: str) -> dict[str, list[dict[str, Any]]]:
    """Read the definitions in a registration.

    Raises:
        Invalid: ``bad_definitions``: no JSON object of lists of objects with names, too many, or
            one that is ``unfit``.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad("they are not JSON") from error
    if not isinstance(given, dict):
        raise _bad("they are not an object")
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in _DEFINED:
        listed = cast("dict[str, Any]", given).get(kind, [])
        if not isinstance(listed, list) or not all(
            isinstance(one, dict) for one in cast("list[Any]", listed)
        ):
            raise _bad(f"{kind} is no list of objects")
        found[kind] = cast("list[dict[str, Any]]", listed)
    _check_tools(found["tools"])
    for kind, every in found.items():
        for one in every:
            why = unfit(kind, one)
            if why:
                raise _bad(f"of {str(one.get('name'))[:80]!a} {why}")
    return found


def _check_tools(tools: list[dict[str, Any]]) -> None:
    names = [one.get("name") for one in tools]
    if not all(isinstance(name, str) and name for name in names):
        raise _bad("a tool has no name")
    if len(set(names)) != len(names):
        raise _bad("a tool's name stands twice")
    if len(names) > MAX_TOOLS:
        raise _bad(f"there are more than {MAX_TOOLS} tools")


def unfit(kind: str, definition: dict[str, Any]) -> str:
    """Say why a definition can be shown to nobody; empty if it can.

    Args:
        kind: ``tools``, ``resources`` and so on.
        definition: As the server gave it.
    """
    try:
        json.dumps(definition, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "a text is no Unicode"
    except (ValueError, RecursionError):
        return "a number is infinite or none, or it is nested too deeply"
    if _is_deep(definition):
        return f"the definition is nested deeper than {MAX_DEPTH} levels"
    name = definition.get("name")
    if kind != "tools" or not isinstance(name, str):
        return ""
    if len(name) > MAX_TOOL_NAME:
        return f"the name has more than {MAX_TOOL_NAME} characters"
    is_unseen = any(unicodedata.category(one) in _UNSEEN_KINDS for one in name)
    if is_unseen or _UNSEEN.search(name):
        return "the name has characters that can't be seen"
    return ""


def _is_deep(definition: Any) -> bool:
    level: list[Any] = [definition]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("list[Any]", value) if isinstance(value, list) else ()


def _bad(why: str) -> Invalid:
    return Invalid(
        f"The definitions of a server can't be used: {why}.",
        "Look at what its tools/list answers.",
        code="bad_definitions",
    )


def definition_digest(definition: dict[str, Any]) -> str:
    """Sum up a definition, whatever the order of its keys, as base64url: what a pin holds."""
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return b64(hashlib.sha256(text.encode()).digest())


class ServerRegistered(Message, kind="mcp_servers.registered"):
    """It is offered from now on, as ``handle/name``; ``restored`` when it was here before."""

    full_name: str
    restored: bool = False


class RegisterServer(
    Request[ServerRegistered],
    kind="mcp_servers.register",
    rule=Rule.WRITE,
    rate=Rate.RPC,
    audited=True,
):
    """Offer a server of the caller's own.

    Refused with ``name_taken`` when the caller offers another by this name, unless ``replaces`` is
    the digest of that one. Offering the same again is no error.
    """

    registration: Annotated[bytes, Field(max_length=MAX_REGISTRATION_BYTES)]
    certificate: Annotated[bytes, Field(max_length=MAX_CERTIFICATE_BYTES)]
    replaces: bytes | None = None


class ServerUnregistered(Message, kind="mcp_servers.unregistered"):
    """It is offered no more."""


class UnregisterServer(
    Request[ServerUnregistered],
    kind="mcp_servers.unregister",
    rule=Rule.READ,
    rate=Rate.RPC,
    audited=True,
):
    """Take back a server of the caller's own; refused with ``unknown_server``.

    One of another ``peer`` of the same member as well, if that one is not here: else it is refused
    with ``still_offered``.
    """

    name: ServerName
    peer: PeerId | None = None


class ServerCard(Part):
    """One server that the caller may see.

    ``registration`` and ``certificate`` are empty when the caller named the digest as known.
    ``since_ms`` is when it was registered or, of one whose peer has no connection, when that ended.
    ``grants`` are those by which others let its member provide their service of this name: signed,
    and to be believed by the reader like any grant.
    """

    peer: PeerId
    handle: str
    member: MemberId
    host: str
    name: ServerName
    online: bool
    since_ms: Whole
    digest: bytes
    registration: bytes = b""
    certificate: bytes = b""
    grants: Annotated[list[bytes], Field(max_length=MAX_BACKING)] = Field(
        default_factory=list[bytes]
    )


class ServersFound(Message, kind="mcp_servers.found"):
    """Some of the servers; ``next_after`` continues behind them, if there are more."""

    servers: list[ServerCard]
    next_after: str | None = None


class ListServers(Request[ServersFound], kind="mcp_servers.list", rule=Rule.READ, rate=Rate.RPC):
    """Ask what is offered to the caller."""

    after: Annotated[str, Field(max_length=100)] = ""
    known: Annotated[list[bytes], Field(max_length=MAX_KNOWN)] = Field(default_factory=list[bytes])
