"""Checks the arguments of a call against the tool's schema, on both sides of it.

``approving.py`` asks it before a call leaves, ``hosting/serving.py`` before one reaches the server.
A schema is another's: nothing is fetched for it, and what could keep the checker busy for ever is
left to the server (``schemas.py``).
"""

import logging
from typing import Any, Final, cast

from claudemesh_wire.errors import Invalid

logger: Final = logging.getLogger(__name__)

_MOST_TOLD: Final = 5
_MOST_MADE: Final = 256
_made: Final[dict[int, tuple[Any, Any]]] = {}


def check_arguments(schema: object, arguments: object, name: str) -> None:
    """Refuse arguments that the tool can't take.

    Args:
        schema: Its ``inputSchema``; one that makes no sense checks nothing.
        arguments: Of the call.
        name: The tool's, for the refusal.

    Raises:
        Invalid: ``bad_arguments``; the details name the first mistakes with their places.
    """
    if not isinstance(arguments, dict):
        raise _bad(name, [{"at": "", "what": "The arguments are no object."}])
    if not isinstance(schema, dict):
        return
    found = _found(schema, cast("Any", arguments))
    if found:
        raise _bad(name, found)


def _found(schema: Any, arguments: Any) -> list[dict[str, str]]:
    """Give the first mistakes, as far as the schema makes sense and the looking takes no time."""
    # Imported with the first call: it takes as long as all else of a session's start.
    from claudemesh_mcp.calling.schemas import mistakes

    try:
        found = mistakes(_checker(schema), arguments, _MOST_TOLD)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the library believes that every schema makes
        # sense, and what it is written in panics at the end of the stack.
        logger.info("a schema makes no sense (%s): nothing is checked", type(error).__name__)
        return []
    return [{"at": str(one.json_path), "what": str(one.message)[:300]} for one in found]


def _checker(schema: Any) -> Any:
    """Give what checks by a schema, made once for each that is in use."""
    from claudemesh_mcp.calling.schemas import checker_of

    made = _made.get(id(schema))
    # The schema is kept beside: no other one gets its id meanwhile.
    if made is None or made[0] is not schema:
        while len(_made) >= _MOST_MADE:
            del _made[next(iter(_made))]
        made = _made[id(schema)] = (schema, checker_of(schema))
    return made[1]


def _bad(name: str, mistakes: list[dict[str, str]]) -> Invalid:
    first = mistakes[0]
    return Invalid(
        f"{name} can't be called with these arguments: {first['what']}",
        f"Look at its schema: mesh_tools(query={name!r}, schemas=true).",
        code="bad_arguments",
        details={"mistakes": mistakes},
    )
