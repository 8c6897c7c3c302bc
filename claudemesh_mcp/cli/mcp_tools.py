"""The commands ``mcp-server tools``, ``call``, ``approve``, ``deny`` and ``diff``.

What may be called of others is said here by the human, and by nothing that a model can call; they
hand on to ``calling/desk.py`` and print through ``show.py``.
"""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, cast

import anyio.to_thread
import typer

from claudemesh_mcp.cli import asking, show
from claudemesh_mcp.cli.durations import milliseconds
from claudemesh_mcp.cli.humans import check_human, is_within_a_client
from claudemesh_wire.errors import Invalid, MeshError, NotFound, ProtocolError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from claudemesh_mcp.calling.directory import Offered
    from claudemesh_mcp.sdk import Mesh
    from claudemesh_mcp.toolresults import ServerRow, ToolsResult

_LONGEST_TOLD: Final = 1000
_Given = TypeVar("_Given")
Server = Annotated[
    str, typer.Argument(metavar="SERVER", help="As ada/files; files where that is one server.")
]
Tool = Annotated[str, typer.Argument(metavar="TOOL", help="The tool's name there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(group: typer.Typer) -> None:
    """Add the commands of this module to ``mcp-server``."""
    group.command()(tools)
    group.command()(call)
    group.command()(approve)
    group.command()(deny)
    group.command()(diff)


def _ask(question: "Callable[[Mesh], Awaitable[_Given]]") -> _Given:
    """Ask the mesh; what is refused names the command, where a model has a tool."""
    try:
        return asking.ask(question)
    except MeshError as error:
        error.hint = error.hint.replace("mesh_tools", "claudemesh mcp-server tools")
        raise


def tools(
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="Words that a tool's name or text has.")
    ] = "",
    *,
    server: Annotated[
        str | None, typer.Option(metavar="SERVER", help="Only those of this server.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the tools that other sessions offer to yours, and what a call of each meets.

    With --json: what `mesh_tools` gives, with the schemas of their arguments.

    \b
    Examples:
      claudemesh mcp-server tools
      claudemesh mcp-server tools write --server ada/files --json
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped

    async def look(mesh: "Mesh") -> "ToolsResult":
        return await mesh.servers.desk.tools(query, server, schemas=json)

    found = _ask(look)
    if json:
        show.data(found)
        return
    if found.servers:
        titles = ("server", "tool", "of", "approval", "says", "description")
        show.table(titles, [cells for one in found.servers for cells in _cells(one)])
    else:
        show.word("No such tool is offered to your sessions." if query else "Nothing is offered.")
    if found.more:
        show.word(f"{found.more} more are not shown; name a server, or words.")


def _cells(row: "ServerRow") -> list[tuple[str, ...]]:
    is_here = any(one.online for one in row.providers)
    where = row.server if is_here else f"{row.server} (offline since {row.providers[0].since})"
    return [
        (
            where,
            one.name,
            row.member,
            one.approval.replace("_", " "),
            ", ".join(one.says or ()).replace("_", " "),
            one.description or "",
        )
        for one in row.tools
    ]


def call(
    server: Server,
    tool: Tool,
    arguments: Annotated[
        str, typer.Argument(metavar="JSON", help="Its arguments, an object; - reads stdin.")
    ] = "",
    *,
    arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="One argument; again for more.")
    ] = None,
    timeout: Annotated[
        str, typer.Option(metavar="SPAN", help="How long it may take, as 90s or 5m.")
    ] = "5m",
    json: Json = False,
) -> None:
    """Call a tool that another session offers, once, and print what it gives.

    Of another member's tool that does more than read, it asks you at a terminal; elsewhere it needs
    `claudemesh mcp-server approve`. With --json it prints the server's whole result. The exit code
    is 1 where the tool failed.

    \b
    Examples:
      claudemesh mcp-server call ada/files read_file --arg path=README.md
      claudemesh mcp-server call sums add '{"a": 1, "b": 2}' --json
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    given, timeout_s = _object(arguments), milliseconds(timeout) / 1000
    result = _ask(lambda mesh: _called(mesh, (server, tool), given, arg or [], timeout_s))
    if json:
        show.data(result)
    else:
        _print(result)
    if result.get("isError"):
        raise typer.Exit(show.FAILED)


def _object(text: str) -> dict[str, Any]:
    """Read the arguments; raises ``Invalid``."""
    try:
        given = json.loads((sys.stdin.read() if text == "-" else text) or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise Invalid("The arguments are no JSON object.", "Write them as '{\"a\": 1}'.")
    return cast("dict[str, Any]", given)


async def _called(
    mesh: "Mesh", named: tuple[str, str], given: dict[str, Any], words: list[str], timeout_s: float
) -> dict[str, Any]:
    from claudemesh_mcp.calling.desk import Going, hooks_of
    from claudemesh_mcp.calling.toolcalls import BackendError

    desk = mesh.servers.desk
    if words:
        given = {**given, **_typed(words, (await desk.look(*named)).definition)}
    # A model can make a terminal of its own, and answer there.
    is_asked = sys.stdin.isatty() and sys.stderr.isatty() and not is_within_a_client()
    human = _asked if is_asked else None
    hooks = hooks_of(_tell_progress, _ignore, human or _nobody)
    try:
        return await desk.call_tool(*named, given, Going(hooks, human, timeout_s))
    except NotFound as refused:
        if refused.code != "unknown_server":
            raise
        found = (await desk.look(*named)).offered
        raise NotFound(
            f"{found.full_name} is for a session of yours and not for the command line.",
            "Have that session call it; what it may call is approved here.",
            code="unknown_server",
        ) from refused
    except BackendError as refused:
        raise ProtocolError(
            f"The server answered with an error: {refused}",
            "Its details have what the server said.",
            code="server_error",
            details={"error": refused.error},
        ) from refused


def _typed(words: list[str], definition: dict[str, Any]) -> dict[str, Any]:
    """Read ``NAME=VALUE``: as JSON, unless it is none or the tool wants a text there."""
    schema: Any = definition.get("inputSchema")
    described: Any = cast("Any", schema).get("properties") if isinstance(schema, dict) else None
    properties = cast("dict[str, Any]", described) if isinstance(described, dict) else {}
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise Invalid(f"{word[:80]!a} is no argument.", "Write NAME=VALUE.")
        wanted: Any = properties.get(name)
        is_text = isinstance(wanted, dict) and cast("Any", wanted).get("type") == "string"
        found[name] = value if is_text else _json_or_text(value)
    return found


def _json_or_text(value: str) -> Any:
    try:
        # Python would read NaN and Infinity too, which are no JSON.
        return json.loads(value, parse_constant=int)
    except ValueError:
        return value


def _tell_progress(params: dict[str, Any]) -> None:
    if sys.stderr.isatty():
        total = f"/{params['total']}" if "total" in params else ""
        show.word(f"{params.get('progress')}{total} {params.get('message', '')}")


def _ignore(_params: dict[str, Any]) -> None:
    """Leave out what the server logs."""


async def _nobody(_method: str, _params: dict[str, Any]) -> dict[str, Any]:
    raise Unavailable(
        "Nobody can be asked here.",
        "Call it from a Claude Code session, whose client may ask its user.",
        code="client_cannot",
    )


async def _asked(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Ask at the terminal what can be answered by yes or no."""
    schema: Any = params.get("requestedSchema")
    described: Any = cast("Any", schema).get("properties") if isinstance(schema, dict) else None
    fields = cast("dict[str, Any]", described) if isinstance(described, dict) else {}
    if params.get("mode", "form") != "form" or not _is_yes_or_no(fields):
        return await _nobody(method, params)
    for line in str(params.get("message")).splitlines():
        show.word(line)
    for name, about in fields.items():
        show.word(f"{about.get('title', name)}?")
    show.word("y: yes; n: no, also later; anything else: not now")
    said = (await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)).strip()
    answers = {"y": "accept", "yes": "accept", "n": "decline", "no": "decline"}
    action = answers.get(said.lower(), "cancel")
    return {"action": action, "content": dict.fromkeys(fields, True) if action == "accept" else {}}


def _is_yes_or_no(fields: dict[str, Any]) -> bool:
    """Tell whether a form has nothing to fill in, or one thing to say yes to."""
    dicts = [cast("dict[str, Any]", one) for one in fields.values() if isinstance(one, dict)]
    return not fields or (len(fields) == 1 and [one.get("type") for one in dicts] == ["boolean"])


def _print(result: dict[str, Any]) -> None:
    content: Any = result.get("content")
    blocks = cast("list[Any]", content) if isinstance(content, list) else []
    for block in blocks:
        if isinstance(block, dict) and isinstance(text := cast("Any", block).get("text"), str):
            show.lines(text)
        elif isinstance(block, dict):
            one = cast("dict[str, Any]", block)
            about = [str(one[key]) for key in ("type", "mimeType", "uri", "name") if key in one]
            show.line(f"[{' '.join(about)}]")
    if not blocks and "structuredContent" in result:
        show.data({"structuredContent": result["structuredContent"]})


def approve(server: Server, tool: Tool) -> None:
    """Let your sessions call a tool of another member, as it is defined now.

    Claude Code can't run it, for its model or by `!`: it is for you, in a terminal of your own.

    \b
    Examples:
      claudemesh mcp-server approve ada/files write_file
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    check_human()
    _decide(server, tool, "approved")
    show.word("Your sessions of this home may call it, until its definition changes.")


def deny(server: Server, tool: Tool) -> None:
    """Keep your sessions from calling a tool, whatever it says of itself.

    \b
    Examples:
      claudemesh mcp-server deny ada/files write_file
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    _decide(server, tool, "denied")


def _decide(server: str, tool: str, said: str) -> None:
    async def decide(mesh: "Mesh") -> "Offered":
        from claudemesh_mcp.calling.pins import Verdict

        return await mesh.servers.desk.decide(server, tool, Verdict(said))

    offered = _ask(decide)
    what = offered.tool(tool).get("description")
    show.word(f"{tool} of {offered.full_name} ({offered.member.name}) is {said}.")
    show.word(f"It says of itself: {str(what)[:_LONGEST_TOLD]}" if what else "It says nothing.")


def diff(server: Server, tool: Tool) -> None:
    """Print how a tool differs from what you approved, or else what it says of itself.

    \b
    Examples:
      claudemesh mcp-server diff ada/files write_file
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    found = _ask(lambda mesh: mesh.servers.desk.look(server, tool))
    told = found.standing.replace("_", " ")
    show.word(f"{tool} of {found.offered.full_name} ({found.offered.member.name}): {told}.")
    show.lines(found.diff or json.dumps(found.definition, indent=1, ensure_ascii=False))
