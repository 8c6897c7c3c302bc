"""Answers a server of MCP's stateless era that wants to be told more before it goes on.

Such a server asks nothing: it ends the request with ``input_required``, and the same request is
sent again with the answers. ``toolcalls.py`` does that; a server of the handshake era asks in the
middle of a call, and never gets here.

Source: MCP 2026-07-28, multi round-trip requests.
"""

from typing import Any, Final, cast

from claudemesh_mcp.calling.approving import ELICIT
from claudemesh_mcp.calling.links import Hooks, Params
from claudemesh_wire.errors import Invalid, TooMuch, Unavailable

MAX_ROUNDS: Final = 10
"""So often a call is sent again because its server wants to be told more."""
_MOST_ASKED: Final = 16
_LONGEST_TOLD: Final = 300


def wants_more(result: Params) -> bool:
    """Tell whether a result is none yet."""
    return result.get("resultType") == "input_required"


async def answers(result: Params, hooks: Hooks) -> Params:
    """Have the client answer what a server wants to know; gives what the next request adds.

    Args:
        result: By which the server asks.
        hooks: ``ask`` reaches the client.

    Raises:
        Invalid: ``unsupported_question``: it asks nothing, too much, or what nobody here answers.
        Unavailable: ``input_required``: the client can't be asked, or did not answer.
    """
    requests: Any = result.get("inputRequests")
    asked = cast("Params", requests) if isinstance(requests, dict) else {}
    state = result.get("requestState")
    if len(asked) > _MOST_ASKED or not (asked or isinstance(state, str)):
        raise _unsupported("asks too much at once" if asked else "asks for nothing")
    given = {key: await _answer(question, hooks) for key, question in asked.items()}
    told: Params = {"inputResponses": given} if asked else {}
    return told | ({"requestState": state} if isinstance(state, str) else {})


async def _answer(question: Any, hooks: Hooks) -> Params:
    asked = cast("Params", question) if isinstance(question, dict) else {}
    method, params = asked.get("method"), asked.get("params")
    if method != ELICIT or not isinstance(params, dict):
        raise _unsupported(f"asks for {str(method)[:60]!a}, which nobody lends it")
    said = cast("Params", params)
    answer = await hooks.ask(ELICIT, said)
    found = answer.get("result")
    if isinstance(found, dict):
        return cast("Params", found)
    error: Any = answer.get("error")
    why = str(cast("Params", error).get("message", "")) if isinstance(error, dict) else ""
    raise Unavailable(
        f"The server wants to be told something before it goes on, and nobody did: {why}",
        f"It asks: {str(said.get('message'))[:_LONGEST_TOLD]}",
        code="input_required",
    )


def too_many() -> TooMuch:
    """Say that a server goes on asking."""
    return TooMuch(
        f"The server asked {MAX_ROUNDS} times, and still wants to be told more.",
        "Call it with other arguments, or tell its owner.",
        code="too_many_rounds",
    )


def _unsupported(what: str) -> Invalid:
    return Invalid(
        f"The server {what}; the call has not ended.",
        "Tell its owner.",
        code="unsupported_question",
    )
