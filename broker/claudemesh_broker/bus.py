"""Tells the broker process that holds a recipient's socket that there is something for it.

``delivery.py`` publishes after a commit. The store is the truth and this a hint: what is lost here
is found there. One embedded broker is one process, so that everything is a direct call.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from claudemesh_wire.errors import Unavailable

Heard = Callable[[bytes], None]
Answerer = Callable[[bytes], Awaitable[bytes]]
Unsubscribe = Callable[[], None]
logger: Final = logging.getLogger(__name__)


class Bus(Protocol):
    """The way between broker processes, each of which is a node with a name."""

    def publish(self, node: str, payload: bytes) -> None:
        """Tell a node something; it may be lost."""
        ...

    def subscribe(self, node: str, heard: Heard) -> Unsubscribe:
        """Hear what is published to a node."""
        ...

    def answer(self, node: str, answerer: Answerer) -> Unsubscribe:
        """Answer what is requested of a node; one answerer at a time."""
        ...

    async def request(self, node: str, payload: bytes) -> bytes:
        """Ask a node and wait for its answer; raises Unavailable when nobody is there."""
        ...


class LocalBus:
    """The bus of a broker that is one process."""

    def __init__(self) -> None:
        self._heard: dict[str, list[Heard]] = {}
        self._answerers: dict[str, Answerer] = {}

    def publish(self, node: str, payload: bytes) -> None:
        """Call whoever listens, now; one listener's failure is not the others'."""
        for heard in tuple(self._heard.get(node, ())):
            try:
                heard(payload)
            except Exception:
                logger.exception("a listener of node %s failed", node)

    def subscribe(self, node: str, heard: Heard) -> Unsubscribe:
        """Hear what is published to a node from now on."""
        listeners = self._heard.setdefault(node, [])
        listeners.append(heard)

        def unsubscribe() -> None:
            if heard in listeners:
                listeners.remove(heard)

        return unsubscribe

    def answer(self, node: str, answerer: Answerer) -> Unsubscribe:
        """Answer what is requested of a node; the newest answerer counts."""
        self._answerers[node] = answerer

        def unsubscribe() -> None:
            if self._answerers.get(node) is answerer:
                del self._answerers[node]

        return unsubscribe

    async def request(self, node: str, payload: bytes) -> bytes:
        """Ask a node.

        Raises:
            Unavailable: ``node_away``: nobody answers for it.
        """
        answerer = self._answerers.get(node)
        if answerer is None:
            raise Unavailable(f"The broker {node} is away.", "Try again.", code="node_away")
        return await answerer(payload)
