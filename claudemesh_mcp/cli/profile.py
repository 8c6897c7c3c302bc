"""The commands ``profile`` and ``profile set``: what others see of the command line's own peer.

They ask ``Mesh`` as that peer and print through ``show.py``.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from claudemesh_mcp.cli import show
from claudemesh_mcp.cli.asking import ask

if TYPE_CHECKING:
    from claudemesh_mcp.meshresults import ProfileResult
    from claudemesh_mcp.sdk import Mesh

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(no_args_is_help=False, rich_markup_mode=None)
    group.callback(invoke_without_command=True)(profile)
    group.command("set")(set_profile)
    app.add_typer(group, name="profile")


def profile(context: typer.Context, *, json: Json = False) -> None:
    """Print what others see of you; `set` changes it.

    \b
    Examples:
      claudemesh profile
      claudemesh profile set --title "Release manager" --capability deploys
      claudemesh profile set --hidden
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    if context.invoked_subcommand is None:
        _print(ask(lambda mesh: mesh.set_profile()), json)


def set_profile(
    *,
    avatar: Annotated[
        str | None, typer.Option(help="An emoji, up to 8 characters, or an https URL.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What you are, up to 80 characters.")] = None,
    bio: Annotated[str | None, typer.Option(help="About you, up to 500 characters.")] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="A word that others find you by; give it repeatedly.")
    ] = None,
    summary: Annotated[str | None, typer.Option(help="What you work on now.")] = None,
    status: Annotated[
        Literal["idle", "working", "dnd"] | None, typer.Option(help="dnd asks for quiet.")
    ] = None,
    visible: Annotated[
        bool | None,
        typer.Option("--visible/--hidden", help="Be in lists and groups' audiences, or in none."),
    ] = None,
    share_cwd: Annotated[
        bool | None,
        typer.Option("--share-cwd/--no-share-cwd", help="Show your folder to other members."),
    ] = None,
    json: Json = False,
) -> None:
    """Change what others see of you; what is left out stays.

    An empty text takes a part of the profile away.

    \b
    Examples:
      claudemesh profile set --title "Release manager" --avatar 🦊
      claudemesh profile set --capability deploys --capability rust
      claudemesh profile set --status dnd --hidden
    """  # noqa: D301 - typer's mark for a paragraph that is not to be wrapped
    given = {"avatar": avatar, "title": title, "bio": bio, "capabilities": capability}
    changed = {name: value for name, value in given.items() if value is not None}

    async def change(mesh: "Mesh") -> "ProfileResult":
        whole: dict[str, Any] | None = None
        if changed:
            kept = (await mesh.set_profile()).profile | changed
            whole = {name: value for name, value in kept.items() if value not in ("", [""])}
        return await mesh.set_profile(
            summary=summary, status=status, profile=whole, visible=visible, share_cwd=share_cwd
        )

    _print(ask(change), json)


def _print(shown: "ProfileResult", json: bool) -> None:
    if json:
        show.data(shown)
        return
    show.line(f"{shown.handle}  {shown.status}")
    told = [("role", shown.role), ("summary", shown.summary), *sorted(shown.profile.items())]
    for name, value in told:
        if value:
            show.line(f"{name}: {_text(value)}", 2)
    show.line("visible" if shown.visible else "hidden", 2)
    show.line("folder shown to other members" if shown.share_cwd else "folder not shown", 2)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(one) for one in cast("list[Any]", value))
    return str(value)
