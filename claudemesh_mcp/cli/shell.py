"""The commands that concern the shell and the client: ``mcp`` and ``completion``."""

from typing import Annotated, Literal

import typer

Shell = Literal["bash", "zsh", "fish", "powershell"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(mcp)
    app.command()(completion)


def mcp() -> None:
    """Serve an MCP client over stdin and stdout.

    A client such as Claude Code starts this.

    \b
    Examples:
      claude mcp add claudemesh -- claudemesh mcp
      claude mcp add claudemesh -- claudemesh mcp --name ada
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    # Reached by an option before the word: `claudemesh mcp` itself never gets here.
    raise typer.BadParameter("mcp must be the first word.")


def know_shells() -> None:
    """Let the command line answer the shells that ask it for completions."""
    from typer.completion import get_completion_inspect_parameters

    # Typer enters its shells here, and calls it itself for those who want its two options.
    get_completion_inspect_parameters()


def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(help="The shell that is to complete.")],
) -> None:
    """Print the completion script for a shell.

    \b
    Examples:
      eval "$(claudemesh completion bash)"
      claudemesh completion fish > ~/.config/fish/completions/claudemesh.fish
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    from typer.completion import shell_complete

    command = context.find_root().command
    shell_complete(command, {}, "claudemesh", "_CLAUDEMESH_COMPLETE", f"source_{shell}")
