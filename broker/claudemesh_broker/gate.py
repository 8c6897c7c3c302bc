"""Lets in who may connect at all, and says where each connection comes from.

``app.py`` puts the gate before everything else and gives ``origin_of`` to the WebSocket's door.
What is allowed follows from the ``Binding``: this machine alone, or others by the broker's names.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from ipaddress import ip_network
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from claudemesh_broker.admission import Origin
from claudemesh_broker.binding import Binding, Tls, is_loopback, plain_address
from claudemesh_broker.crowd import place_of
from claudemesh_broker.reach import Reach
from claudemesh_broker.websocket import Receive, Scope, Send

_HTTPS_PORT: Final = 443
_TELLS: Final = (b"x-forwarded-for", b"forwarded")


class Gate:
    """Keeps out what names another host, comes from another site's page, or passes by the proxy.

    A browser sends any page's requests to loopback as well: the names in Host and Origin are what
    tells them apart.

    Args:
        inner: What is behind it.
        guard: Who knows whom to let in.
    """

    def __init__(self, inner: ASGIApp, guard: "Guard") -> None:
        self._inner = inner
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] in {"http", "websocket"} and not self._guard.admits(scope):
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
                return
            refusal = PlainTextResponse(self._guard.refusal, 403)
            await refusal(scope, receive, send)
            return
        await self._inner(scope, receive, send)


class Guard:
    """Knows the names of this broker, and whose word about a client's address counts.

    Args:
        binding: Where the broker listens, and for whom.
        reach: How others reach it, if they do.
    """

    def __init__(self, binding: Binding, reach: Reach | None = None) -> None:
        self._binding = binding
        self._reach = reach
        self._proxies = tuple(ip_network(one) for one in binding.proxies)
        self._is_behind_proxy = binding.tls is Tls.PROXY

    @property
    def refusal(self) -> str:
        """What is said to those who are kept out."""
        if self._reach is None:
            return "This broker serves its own machine only.\n"
        return f"This broker is {self._reach.url} and answers to that name only.\n"

    def admits(self, scope: Scope) -> bool:
        """Tell whether a connection names this broker, and comes from no page of another site."""
        hosts = _values(scope, b"host")
        peer = _peer(scope)
        if self._is_behind_proxy and not (self._is_proxy(peer) or is_loopback(peer)):
            # Whoever passes the proxy by would speak in clear.
            return False
        return (
            len(hosts) == 1
            and self._is_here(_host_in(f"//{hosts[0]}"), scope)
            and all(self._is_own_page(origin) for origin in _values(scope, b"origin"))
        )

    def origin_of(self, scope: Scope) -> Origin:
        """Say where a connection comes from; behind the proxy nobody is local."""
        peer, arrived_at = _peer(scope), _arrived_at(scope)
        place = self.counted_as(peer, arrived_at, scope)
        if self._is_behind_proxy and self._is_proxy(peer):
            return Origin(self._forwarded(scope) or peer, is_local=False, place=place)
        binding = self._binding
        if binding.is_public and is_loopback(binding.bind):
            # Something on this machine hands connections on, and tells not whose.
            return Origin(peer, is_local=False, place=place)
        # No other machine can speak from the very address that it speaks to.
        is_own = binding.is_public and bool(peer) and peer == arrived_at
        return Origin(peer, is_local=is_loopback(peer) or is_own, place=place)

    def counted_as(self, peer: str, arrived_at: str, scope: Scope | None = None) -> str:
        """Give the place whose connections are counted together, empty for one that has no limit.

        The machine itself has none, since nobody else comes from there; nor has a declared proxy
        before it has told for whom it speaks, since everybody does. What it then tells counts. All
        for whom it tells nothing that can be believed share one place, which is nobody's address.

        Args:
            peer: The address at the connection's other end.
            arrived_at: The address of this broker that it came to.
            scope: Its request, once that is read.
        """
        address = _plain(peer)
        if self._is_behind_proxy and self._is_proxy(address):
            if scope is None:
                return ""
            told = self._forwarded(scope)
            is_handed_on = any(_values(scope, name) for name in _TELLS)
            if told is None and (is_handed_on or not is_loopback(address)):
                return f"behind {place_of(address)}"
            # Without either header it is no proxy that speaks from loopback, but a session here.
            address = told or address
        is_own = is_loopback(address) or address == _plain(arrived_at)
        return "" if not address or is_own else place_of(address)

    @cached_property
    def _names(self) -> frozenset[str]:
        if not self._binding.is_public:
            return frozenset()
        url = self._reach.url if self._reach else self._binding.public_url
        return frozenset({_host_in(url), self._binding.bind, socket.gethostname().lower()} - {""})

    def _is_here(self, host: str, scope: Scope) -> bool:
        if is_loopback(host) or host in self._names:
            return True
        return self._binding.is_public and bool(host) and _plain(host) == _arrived_at(scope)

    def _is_own_page(self, origin: str) -> bool:
        if is_loopback(_host_in(origin)):
            return True
        return self._reach is not None and _site(origin) == _site(self._reach.url)

    def _is_proxy(self, address: str) -> bool:
        with suppress(ValueError):
            plain = plain_address(address)
            return any(plain in network for network in self._proxies)
        return False

    def _forwarded(self, scope: Scope) -> str | None:
        """Give the address that the declared proxies tell; ``None`` if they tell none, or two.

        A proxy adds to one of the two headers and hands the other on as the client wrote it.
        """
        chains = [list(_x_forwarded_for(scope)), list(_forwarded_for(scope))]
        told = {self._first_stranger(chain) for chain in chains if chain}
        return (told.pop() or None) if len(told) == 1 else None

    def _first_stranger(self, addresses: Sequence[str]) -> str:
        """Give the last address that is no proxy's: what stands before it, anyone can have sent."""
        last = ""
        for text in reversed(addresses):
            last = _plain(_without_port(text))
            if not self._is_proxy(last):
                break
        return last


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return _plain(client[0]) if client else ""


def _arrived_at(scope: Scope) -> str:
    server = scope.get("server")
    return _plain(server[0]) if server else ""


def _plain(text: str) -> str:
    """Write an address in its one form; empty if it is none."""
    try:
        return str(plain_address(text))
    except ValueError:
        return ""


def _host_in(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _site(url: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or _HTTPS_PORT
    except ValueError:
        return None


def _x_forwarded_for(scope: Scope) -> Iterator[str]:
    for line in _values(scope, b"x-forwarded-for"):
        yield from line.split(",")


def _forwarded_for(scope: Scope) -> Iterator[str]:
    """Give the ``for`` of each hop in the header of RFC 7239, empty where a hop has none."""
    for line in _values(scope, b"forwarded"):
        for hop in line.split(","):
            pairs = (pair.partition("=") for pair in hop.split(";"))
            named = [value for name, _, value in pairs if name.strip().lower() == "for"]
            yield named[0] if named else ""


def _without_port(text: str) -> str:
    bare = text.strip().strip('"')
    if bare.startswith("["):
        return bare[1:].partition("]")[0]
    return bare.partition(":")[0] if bare.count(":") == 1 else bare
