"""Hands sealed messages to the broker; those that are ready in one turn of the loop go together.

``sending.py`` has one for each connection. Where much is sent that saves requests and commits at
both sides; a single message goes by itself and waits for nobody.
"""

import asyncio
from typing import Final

from claudemesh_mcp.client import Client
from claudemesh_wire.errors import MeshError, ProtocolError, Unavailable
from claudemesh_wire.message import Refused
from claudemesh_wire.messages import (
    MAX_SENT_AT_ONCE,
    Accepted,
    Outbound,
    Send,
    SendBundle,
    SendOutcome,
)

# As base64 it is below what a frame may hold.
_MOST_BYTES: Final = 512 * 1024
_Answer = asyncio.Future[Accepted | None]
_Waiting = tuple[Send, _Answer]


class Bundling:
    """The way of one connection's messages to the broker.

    Args:
        client: The connection.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._gathering: list[_Waiting] = []
        self._size_bytes = 0
        self._alone = False

    async def send(self, message: Send) -> Accepted:
        """Hand over one message.

        Raises:
            MeshError: as ``Client.call``; what is refused of a bundle concerns no other of it.
        """
        if self._alone or len(message.envelope) > _MOST_BYTES:
            return await self._client.call(message)
        answer: _Answer = asyncio.get_running_loop().create_future()
        if self._has_room(message):
            self._gather(message, answer)
            # Nothing is the answer of a broker that knows no bundles.
            return await answer or await self._client.call(message)
        self._gathering, self._size_bytes = [], 0
        bundle = self._gathering
        self._gather(message, answer)
        try:
            # Whatever else is ready in this turn of the loop comes along.
            await asyncio.sleep(0)
            if self._gathering is bundle:
                self._gathering = []
            if len(bundle) == 1:
                return await self._client.call(message)
            await self._hand_over(bundle)
        finally:
            _settle(
                bundle,
                Unavailable(
                    "The connection ended.",
                    "It is restored by itself; try again.",
                    code="connection_lost",
                ),
            )
        return await answer or await self._client.call(message)

    def _has_room(self, message: Send) -> bool:
        """Tell whether a bundle is being gathered that this one fits into."""
        size_bytes = self._size_bytes + len(message.envelope)
        return 0 < len(self._gathering) < MAX_SENT_AT_ONCE and size_bytes <= _MOST_BYTES

    def _gather(self, message: Send, answer: _Answer) -> None:
        self._gathering.append((message, answer))
        self._size_bytes += len(message.envelope)

    async def _hand_over(self, bundle: list[_Waiting]) -> None:
        messages = [
            Outbound(envelope=one.envelope, resolved_ms=one.resolved_ms) for one, _ in bundle
        ]
        try:
            outcomes = (await self._client.call(SendBundle(messages=messages))).outcomes
            if len(outcomes) != len(bundle):
                raise ProtocolError("The broker answered for another number of messages.")
        except MeshError as error:
            if error.code != "unsupported":
                _settle(bundle, error)
                return
            self._alone = True
            outcomes = [SendOutcome() for _ in bundle]
        for outcome, (_, answer) in zip(outcomes, bundle, strict=True):
            if answer.done():
                continue
            if outcome.refused is not None:
                answer.set_exception(outcome.refused.error())
            else:
                answer.set_result(outcome.accepted)


def _settle(bundle: list[_Waiting], error: MeshError) -> None:
    """Tell those that have no answer why; a new error each, for it gathers tracebacks."""
    for _, answer in bundle:
        if not answer.done():
            answer.set_exception(Refused.of(error).error())
            # Whoever waits may be cancelled before it looks.
            answer.exception()
