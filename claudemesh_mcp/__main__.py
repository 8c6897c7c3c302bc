"""The console script: ``claudemesh mcp`` is served here, every other command by ``cli``.

A client waits for `claudemesh mcp` to answer, so it is told apart before anything slow is
imported: typer, pydantic, anyio, websockets and cryptography come later or never. Its status line
and the hooks of a shared project come every few seconds: for them not even `typing` is.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from claudemesh_mcp.handover import Handover

USAGE = """\
Usage: claudemesh mcp [--name NAME] [--mesh NAME] [--resume ID] [--messages HOW]
                      [--toolsets SETS]

Examples:
  claude mcp add claudemesh -- claudemesh mcp
  claude mcp add claudemesh -- claudemesh mcp --name ada
  claudemesh mcp --resume nightly-build

Serves one MCP client over stdin and stdout, and connects it with the mesh.

Options:
  --name NAME      The handle wished for; made unique in the mesh.
  --mesh NAME      The mesh to be in, as `claudemesh mesh list` has it.
  --resume ID      Be the peer that last used this id: its queue, groups and keys.
  --messages HOW   push shows the model what arrives, inbox says how many wait, off says nothing.
  --toolsets SETS  The tools to list, as core,groups; the others can still be called.
  -h, --help       Show this.
"""
_OPTIONS = {f"--{name}": name for name in ("name", "mesh", "resume", "messages", "toolsets")}
_USAGE_ERROR = 2


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run the command line; give its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["mcp"]:
        return _mcp(arguments[1:])
    if arguments == ["statusline"]:
        from claudemesh_mcp.statusline import main as show_status

        return show_status()
    if arguments[:1] == ["hook"] and len(arguments) > 1:
        # What a project's settings start, on whatever machine it is.
        from claudemesh_mcp.routes.hook import main as hook

        return hook(arguments[1:])
    if arguments == ["--version"]:
        # The plugin asks for it before its server starts, and a client waits for that.
        from claudemesh_wire import VERSION

        sys.stdout.write(f"{VERSION}\n")
        return 0
    from claudemesh_mcp.cli import run

    return run(arguments)


def _mcp(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        sys.stdout.write(USAGE)
        return 0
    try:
        before = _handover(arguments)
        flags = _read_flags(arguments)
    except ValueError as wrong:
        sys.stderr.write(f"claudemesh mcp: {wrong}\n\n{USAGE}")
        return _USAGE_ERROR
    try:
        from claudemesh_mcp.front import open_front
        from claudemesh_mcp.stdio import leave, run

        leave(run(*open_front(flags), before))
    except KeyboardInterrupt:
        return 0


def _handover(arguments: list[str]) -> "Handover | None":
    """Take what the plugin's front leaves; the option is its own, and none for people.

    Raises:
        ValueError: there is nothing to take.
    """
    if arguments[:1] != ["--handover"]:
        return None
    from pathlib import Path

    from claudemesh_mcp.handover import take

    try:
        taken = take(Path(arguments[1]))
    except (OSError, IndexError) as error:
        raise ValueError("--handover needs the file that the plugin's front has left.") from error
    del arguments[:2]
    return taken


def _read_flags(arguments: list[str]) -> dict[str, object]:
    """Read ``--flag value`` and ``--flag=value``.

    Raises:
        ValueError: a flag is unknown or has no value; the text says which.
    """
    flags: dict[str, object] = {}
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag not in _OPTIONS:
            from claudemesh_mcp.suggestions import did_you_mean

            raise ValueError(f"{flag!r} is unknown. {did_you_mean(flag, _OPTIONS)}")
        value = value if equals else next(rest, "")
        if not value:
            raise ValueError(f"{flag} needs a value.")
        flags[_OPTIONS[flag]] = value
    return flags


if __name__ == "__main__":
    sys.exit(main())
