"""What a server asks its client: passed on to the only caller, or refused in words.

``backend.py`` hands it each request that comes from the server, and sends what it gives.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio

from claudemesh_mcp.hosting.era import METHOD_NOT_FOUND, Era, undress
from claudemesh_mcp.hosting.flights import Asking, Flight, Flights, Raw
from claudemesh_wire.errors import MeshError

logger: Final = logging.getLogger(__name__)

_INTERNAL: Final = -32603
_OVER: Final = -32800
_ELICIT: Final = "elicitation/create"
_REFUSED: Final = {
    "sampling/createMessage": "Nobody lends a model to a server that is called through the mesh.",
    "roots/list": "A server that is called through the mesh sees no folders of its callers.",
}


class Questions:
    """The requests of one server that are not answered yet.

    Args:
        flights: Its calls.
        send: Sends a message to the server.
    """

    def __init__(self, flights: Flights, send: Callable[[Raw], Awaitable[None]]) -> None:
        self._flights = flights
        self._send = send
        self._open: dict[str, anyio.CancelScope] = {}

    def withdraw(self, number: Any) -> None:
        """The server wants no answer to this one any more."""
        scope = self._open.pop(_key(number), None)
        if scope is not None:
            scope.cancel()

    async def answer(self, number: Any, method: str, params: Raw, era: Era | None) -> None:
        """Answer a request, unless it is withdrawn meanwhile."""
        key, answer = _key(number), _error(_OVER, "The call because of which you ask is over.")
        with anyio.CancelScope() as scope:
            self._open[key] = scope
            answer = await self._answered(scope, method, params, era)
        if self._open.pop(key, None) is not None:
            await self._send({"id": number, **answer})

    async def _answered(
        self, scope: anyio.CancelScope, method: str, params: Raw, era: Era | None
    ) -> Raw:
        if method == "ping":
            return {"result": {}}
        if method in _REFUSED:
            return _error(METHOD_NOT_FOUND, _REFUSED[method])
        if method != _ELICIT or era is None or era.is_stateless:
            return _error(METHOD_NOT_FOUND, f"There is no method {method[:80]} here.")
        flight = self._flights.only_callers()
        if flight is None:
            return _error(_INTERNAL, _nobody(has_calls=self._flights.has_calls))
        asking = flight.hooks.ask if flight.hooks else None
        if asking is None:
            return _error(METHOD_NOT_FOUND, "Whoever called can't be asked anything.")
        return await _asked(flight, asking, scope, params)


async def _asked(flight: Flight, asking: Asking, scope: anyio.CancelScope, params: Raw) -> Raw:
    flight.asked.add(scope)
    try:
        return await asking(_ELICIT, undress(params))
    except MeshError as error:
        return _error(_INTERNAL, str(error))
    except Exception:
        logger.exception("a caller could not be asked")
        return _error(_INTERNAL, "Whoever called could not be asked.")
    finally:
        flight.asked.discard(scope)


def _nobody(*, has_calls: bool) -> str:
    if has_calls:
        return "Several callers are being served, and which of them you ask is not said."
    return "Nobody calls at the moment, so there is nobody to ask."


def _error(code: int, message: str) -> Raw:
    return {"error": {"code": code, "message": message}}


def _key(number: Any) -> str:
    """Tell 1 from "1"."""
    return repr(number)
