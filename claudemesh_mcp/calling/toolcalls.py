"""Calls what others offer: one provider at a time and at most once, and says what is known.

The tools of the model and ``sdk.py`` call it, once ``approving.py`` let them. A call that never
left the broker goes to the next provider; whether one that may have arrived was run nobody knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from claudemesh_mcp.calling import rounds, words
from claudemesh_mcp.calling.directory import Definition, Offered
from claudemesh_mcp.calling.links import Hooks, Link, Links, Params
from claudemesh_mcp.line import LineEnded
from claudemesh_mcp.peer import Peer
from claudemesh_mcp.results import rfc3339
from claudemesh_wire.errors import Conflict, MeshError, ProtocolError, TooMuch, Unavailable

MAX_HOPS: Final = 4
TIMEOUT_S: Final = 300.0
PROVIDER: Final = "claudemesh/provider"
_UNKNOWN: Final = "outcome_unknown"
_NOT_RUNNING: Final = "server_not_running"


class BackendError(Exception):
    """The server answered with a JSON-RPC error.

    Args:
        error: As it came: ``code``, ``message`` and perhaps ``data``.
    """

    def __init__(self, error: Params) -> None:
        super().__init__(str(error.get("message", "")))
        self.error = error


class Untaken(Exception):
    """Nobody took a call: nothing was run that may not be run again.

    Args:
        why: What the last of those who were tried said, or that nobody is here.
    """

    def __init__(self, why: MeshError) -> None:
        super().__init__(str(why))
        self.why = why


@dataclass(frozen=True)
class Wanted:
    """What is to be called.

    Args:
        method: Of MCP, as ``tools/call``.
        params: As the server is to get them.
        pin: The digest of the definition that was approved; empty where there is none.
        is_repeatable: Whether it may be run again, elsewhere, if it may have been run already.
        hops: How many sessions it has gone through before this one.
        timeout_s: How long it may take.
    """

    method: str
    params: Params
    pin: str = ""
    is_repeatable: bool = False
    hops: int = 0
    timeout_s: float = TIMEOUT_S


class ToolCalls:
    """The calls of one peer.

    Args:
        peer: The peer.
        links: Its lines.
    """

    def __init__(self, peer: Peer, links: Links) -> None:
        self._peer = peer
        self._links = links

    async def call(self, providers: Sequence[Offered], wanted: Wanted, hooks: Hooks) -> Params:
        """Call one of the providers of a service, and give the server's result as it came.

        Args:
            providers: Of one service; those that are not here are not tried.
            wanted: What is to be called.
            hooks: Hear what the server says meanwhile.

        Returns:
            The result, and in its ``_meta`` under ``claudemesh/provider`` who gave it.

        Raises:
            BackendError: the server answered with an error of the protocol.
            MeshError: as ``rounds.answers``, of a server that wants to be told more.
            Conflict: ``outcome_unknown``: it may have been run; ``details`` name the provider.
            Unavailable: ``peer_offline``: nobody who offers it is here; nothing was run.
            MeshError: the provider refused; nothing was run.
        """
        try:
            return await self.attempt(providers, wanted, hooks)
        except Untaken as nobody:
            raise nobody.why from nobody

    async def attempt(self, providers: Sequence[Offered], wanted: Wanted, hooks: Hooks) -> Params:
        """Call as ``call`` does, but raise ``Untaken`` where nobody took it."""
        if wanted.hops >= MAX_HOPS:
            raise TooMuch(
                f"This call has gone through {MAX_HOPS} sessions already.",
                "Call the server where it is, without a detour.",
                code="too_many_hops",
            )
        why: MeshError | None = None
        perhaps_run: MeshError | None = None
        was_taken = False
        for offered in self._in_order(providers):
            try:
                return await self._in_rounds(offered, wanted, hooks)
            except LineEnded as ended:
                why = ended.why
                perhaps_run = _unknown(offered, why) if ended.left else perhaps_run
                may_go_on = wanted.is_repeatable or not ended.left
            except MeshError as error:
                why, was_taken = error, True
                may_go_on = wanted.is_repeatable and error.code == _NOT_RUNNING
            if not may_go_on:
                break
        # What the last of several providers says holds for that one alone.
        if perhaps_run is not None:
            raise perhaps_run
        if why is None or not was_taken:
            raise Untaken(why or _away(providers))
        raise why

    def _in_order(self, providers: Sequence[Offered]) -> list[Offered]:
        """Give those that are here: of this machine first, then those with the least to do."""
        here = self._peer.setup.session.host
        return sorted(
            (one for one in providers if one.online),
            key=lambda one: (one.host != here, self._links.in_flight(one.peer)),
        )

    async def _in_rounds(self, offered: Offered, wanted: Wanted, hooks: Hooks) -> Params:
        """Call one provider, again each time it wants to be told more before it goes on."""
        result = await self._at(offered, wanted, hooks)
        for _ in range(rounds.MAX_ROUNDS):
            if not rounds.wants_more(result):
                return self._marked(result, offered)
            more = await rounds.answers(result, hooks)
            again = replace(wanted, params={**wanted.params, **more})
            try:
                result = await self._at(offered, again, hooks)
            except LineEnded as ended:
                # What it did before it asked, and what it would make of these answers, only this
                # provider knows.
                raise LineEnded(ended.why, left=True) from ended
        if rounds.wants_more(result):
            raise rounds.too_many()
        return self._marked(result, offered)

    async def _at(self, offered: Offered, wanted: Wanted, hooks: Hooks) -> Params:
        said = {
            "server": offered.name,
            "method": wanted.method,
            "params": wanted.params,
            "hops": wanted.hops + 1,
            **({"pin": wanted.pin} if wanted.pin else {}),
        }
        try:
            done = await self._say(offered, said, hooks, wanted.timeout_s)
        except TimeoutError as error:
            raise _unknown(offered, _timed_out(wanted.timeout_s)) from error
        if "error" in done:
            raise BackendError(words.part(done, "error"))
        if "result" not in done:
            refusal = words.refusal(words.part(done, "refused"))
            if refusal.code == _UNKNOWN:
                # Its server ended, which leaves as much open as if the line had.
                raise LineEnded(refusal, left=True)
            raise refusal
        if not isinstance(done["result"], dict):
            raise ProtocolError(
                f"What {offered.full_name} gave as a result is none.",
                "Whether it ran the call is not known; tell whoever offers it.",
                code="malformed",
            )
        return words.part(done, "result")

    async def _say(self, offered: Offered, said: Params, hooks: Hooks, timeout_s: float) -> Params:
        """Say a call to a provider, on a new line if the one that there was had ended."""
        link = await self._link(offered)
        try:
            return await link.call(said, hooks, timeout_s)
        except LineEnded as ended:
            if ended.left:
                raise
        # It did not leave. Whether the provider is here shows when it is called up again.
        link = await self._link(offered)
        return await link.call(said, hooks, timeout_s)

    async def _link(self, offered: Offered) -> Link:
        """Give the line to a provider; that there is none means that nothing was said."""
        try:
            link = await self._links.to(offered.peer)
        except MeshError as error:
            raise LineEnded(error, left=False) from error
        return link

    def _marked(self, result: Params, offered: Offered) -> Params:
        meta: Any = result.get("_meta")
        provider = {
            "peer": offered.peer,
            "handle": offered.handle,
            "member": offered.member.name,
            "server": offered.name,
        }
        known = cast("Params", meta) if isinstance(meta, dict) else {}
        return {**result, "_meta": {**known, PROVIDER: provider}}


def is_repeatable(tool: Definition) -> bool:
    """Tell whether a tool says that a second run does no harm."""
    hints: Any = tool.get("annotations")
    said = cast("Definition", hints) if isinstance(hints, dict) else {}
    return said.get("readOnlyHint") is True or said.get("idempotentHint") is True


def _unknown(offered: Offered, why: MeshError) -> Conflict:
    return Conflict(
        f"Whether {offered.full_name} ran the call is not known: {why.reason}",
        "Look at what it would have changed before calling it again.",
        code=_UNKNOWN,
        details={"provider": offered.full_name, "peer": offered.peer, "host": offered.host},
    )


def _timed_out(timeout_s: float) -> Unavailable:
    return Unavailable(
        f"it did not answer within {timeout_s:g} s, and was told to stop.",
        "Give it more time: timeout_s.",
    )


def _away(providers: Sequence[Offered]) -> Unavailable:
    last = max(providers, key=lambda one: one.since_ms)
    where = f" on {last.host}" if last.host else ""
    since = rfc3339(last.since_ms)
    return Unavailable(
        f"{last.full_name}{where} is offline since {since}; nothing was run.",
        "It is back when its session is.",
        code="peer_offline",
        details={"host": last.host, "since": since},
    )
