"""Which of MCP's two eras a server is of, and how requests are dressed for it.

``backend.py`` asks at each start. A server of the stateless era answers ``server/discover`` and is
told with each request who asks; one of the handshake era is told once, by ``initialize``.

Source: MCP 2025-11-25 and 2026-07-28.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import anyio

from claudemesh_wire import VERSION

HANDSHAKE: Final = "2025-11-25"
STATELESS: Final = "2026-07-28"
METHOD_NOT_FOUND: Final = -32601
UNSUPPORTED_VERSION: Final = -32022

_PREFIX: Final = "io.modelcontextprotocol/"
VERSION_KEY: Final = f"{_PREFIX}protocolVersion"
CLIENT_KEY: Final = f"{_PREFIX}clientInfo"
CAPABILITIES_KEY: Final = f"{_PREFIX}clientCapabilities"
LOG_LEVEL_KEY: Final = f"{_PREFIX}logLevel"
SERVER_KEY: Final = f"{_PREFIX}serverInfo"
SUBSCRIPTION_KEY: Final = f"{_PREFIX}subscriptionId"
OF_THE_HOP: Final = frozenset(
    {VERSION_KEY, CLIENT_KEY, CAPABILITIES_KEY, LOG_LEVEL_KEY, SERVER_KEY, SUBSCRIPTION_KEY}
)
"""What one hop says to its neighbour in ``_meta``; the rest of ``_meta`` goes through."""
CLIENT: Final[dict[str, Any]] = {"name": "claudemesh", "version": VERSION}
CAN_BE_ASKED: Final[dict[str, Any]] = {"elicitation": {"form": {}, "url": {}}}
_NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

Raw = dict[str, Any]
Asking = Callable[[str, Raw, Mapping[str, str]], Awaitable[Raw]]
"""Sends a request with headers and gives ``{"result": ...}`` or ``{"error": ...}``."""


class NotMcp(Exception):
    """What answers is no MCP server; the text says why."""


@dataclass(frozen=True)
class Era:
    """What a server said of itself.

    Args:
        version: The protocol version that is spoken with it.
        capabilities: What it can do.
        instructions: How it wants to be used; may be empty.
        server: Its name and version.
    """

    version: str
    capabilities: Raw = field(default_factory=dict[str, Any])
    instructions: str = ""
    server: Raw = field(default_factory=dict[str, Any])

    @property
    def is_stateless(self) -> bool:
        """Whether each request has to say who asks."""
        return self.version == STATELESS

    def can(self, capability: str) -> bool:
        """Tell whether it declared this."""
        return isinstance(self.capabilities.get(capability), dict)

    def announces(self, capability: str) -> bool:
        """Tell whether it says when a list of these has changed."""
        declared = self.capabilities.get(capability)
        return isinstance(declared, dict) and cast("Raw", declared).get("listChanged") is True

    def dress(self, params: Raw, *, can_be_asked: bool) -> Raw:
        """Give params as they go to the server: without what the caller's hop said, with ours."""
        meta = _meta_of(params)
        level = meta.get(LOG_LEVEL_KEY)
        said = {name: value for name, value in meta.items() if name not in OF_THE_HOP}
        if self.is_stateless:
            said |= _stamp(self.version, can_be_asked=can_be_asked)
            if level is not None:
                said[LOG_LEVEL_KEY] = level
        return _with_meta(params, said)

    def headers(self, method: str, params: Raw) -> dict[str, str]:
        """Give the headers that go along over HTTP."""
        return headers_for(self.version, method, params)


def headers_for(version: str, method: str, params: Raw) -> dict[str, str]:
    """Give the headers of a request in this version."""
    if version != STATELESS:
        return {"mcp-protocol-version": version}
    headers = {"mcp-protocol-version": version, "mcp-method": method}
    name = params.get(_NAMED_BY.get(method, ""))
    if isinstance(name, str):
        from mcp.shared.inbound import encode_header_value

        headers["mcp-name"] = encode_header_value(name)
    return headers


def mirrored(schema: Any, arguments: Any) -> dict[str, str]:
    """Give the headers that a tool's schema wants arguments repeated in (``x-mcp-header``)."""
    if not isinstance(schema, dict) or not isinstance(arguments, dict):
        return {}
    from mcp.shared.inbound import find_invalid_x_mcp_header, mcp_param_headers, x_mcp_header_map

    if find_invalid_x_mcp_header(schema) is not None:
        return {}
    return mcp_param_headers(x_mcp_header_map(schema), cast("Raw", arguments))


def undress(said: Raw) -> Raw:
    """Give a result or params without what the server's hop said."""
    meta = _meta_of(said)
    kept = {name: value for name, value in meta.items() if name not in OF_THE_HOP}
    return said if len(kept) == len(meta) else _with_meta(said, kept)


def _meta_of(params: Raw) -> Raw:
    meta = params.get("_meta")
    return cast("Raw", meta) if isinstance(meta, dict) else {}


def _with_meta(params: Raw, meta: Raw) -> Raw:
    rest = {name: value for name, value in params.items() if name != "_meta"}
    return {**rest, "_meta": meta} if meta else rest


def _stamp(version: str, *, can_be_asked: bool) -> Raw:
    return {
        VERSION_KEY: version,
        CLIENT_KEY: CLIENT,
        CAPABILITIES_KEY: CAN_BE_ASKED if can_be_asked else {},
    }


async def agree(ask: Asking, probe_s: float) -> Era:
    """Find out what era a server is of, and greet it.

    Args:
        ask: Sends a request.
        probe_s: How long the first question may go unanswered; 0 leaves it out.

    Raises:
        NotMcp: it answers neither as one of the one nor of the other.
    """
    era = await _discover(ask, probe_s) if probe_s else None
    if era is not None:
        return era
    params = {
        "protocolVersion": HANDSHAKE,
        "capabilities": CAN_BE_ASKED,
        "clientInfo": CLIENT,
    }
    answer = await ask("initialize", params, {})
    error = answer.get("error")
    if error is not None:
        # It was slow: the probe that was given up has settled the era meanwhile.
        late = await _discover(ask, probe_s) if error.get("code") == UNSUPPORTED_VERSION else None
        if late is None:
            raise NotMcp(f"{error.get('message')!a}")
        return late
    found = answer["result"]
    version = found.get("protocolVersion")
    if not isinstance(version, str) or not version:
        raise NotMcp("it names no protocol version.")
    return _era(version, found, found.get("serverInfo"))


async def _discover(ask: Asking, probe_s: float) -> Era | None:
    params: Raw = {"_meta": _stamp(STATELESS, can_be_asked=True)}
    headers = headers_for(STATELESS, "server/discover", params)
    found: Any = None
    with anyio.move_on_after(probe_s):
        found = (await ask("server/discover", params, headers)).get("result")
    if not isinstance(found, dict):
        return None
    result = cast("Raw", found)
    versions = result.get("supportedVersions")
    if not isinstance(versions, list) or STATELESS not in versions:
        return None
    return _era(STATELESS, result, _meta_of(result).get(SERVER_KEY))


def _era(version: str, found: Raw, server: Any) -> Era:
    capabilities, instructions = found.get("capabilities"), found.get("instructions")
    return Era(
        version=version,
        capabilities=cast("Raw", capabilities) if isinstance(capabilities, dict) else {},
        instructions=instructions if isinstance(instructions, str) else "",
        server=cast("Raw", server) if isinstance(server, dict) else {},
    )
