"""The tools ``register_mcp`` and ``unregister_mcp``: what this session offers to the others.

``tools.run`` hands checked arguments here; both hand on to ``Mesh.servers``.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from claudemesh_mcp.hosting.launch import Launch
from claudemesh_mcp.hosting.standing import Registered
from claudemesh_mcp.hosting.wishes import Scope, ServerWish
from claudemesh_mcp.results import Result
from claudemesh_mcp.tools import tool

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh


class Unregistered(Result):
    """A server that is offered no more."""

    name: str


@tool(
    title="Offer an MCP server to the mesh",
    destructive=True,
    open_world=True,
    search_hint="share tools host server register mcp offer",
)
async def register_mcp(
    mesh: "Mesh",
    name: Annotated[
        str, Field(description="Its name here: a-z, 0-9, `_`, `-`; others call `handle/name`.")
    ],
    command: Annotated[str, Field(description="The program; no shell is asked.")] = "",
    args: Annotated[list[str] | None, Field(description="Its arguments.")] = None,
    *,
    env: Annotated[
        dict[str, str] | None,
        Field(description="Its environment, beside PATH, HOME and the like. Kept secret."),
    ] = None,
    cwd: Annotated[str, Field(description="Its folder; this session's if left out.")] = "",
    url: Annotated[
        str, Field(description="Instead of command: where it answers Streamable HTTP.")
    ] = "",
    headers: Annotated[
        dict[str, str] | None, Field(description="For the url. Kept secret.")
    ] = None,
    description: Annotated[str, Field(description="What it is for, for those who call it.")] = "",
    persistent: Annotated[
        bool, Field(description="It comes back when everybody was restarted.")
    ] = False,
    scope: Annotated[
        Literal["project", "user"],
        Field(description="Whose sessions a persistent one comes back in: this project's or all."),
    ] = "project",
    visible_to: Annotated[
        str | list[str],
        Field(
            description="own: sessions of your user; mesh, a peer's id, @group, @group:role or"
            " role:admin: others too, if your user granted them `tool`."
        ),
    ] = "own",
    tools_allowed: Annotated[
        list[str] | None, Field(description="Offer only these of its tools.")
    ] = None,
) -> Registered:
    """Start a local MCP server, or connect to one by url, and offer it to other sessions.

    They can call its tools at once, as long as this session is there. It runs with your user's
    rights on this machine: offer only what your user wants shared, to those it is meant for.
    """
    wish = ServerWish(
        name,
        Launch(
            command=command,
            args=tuple(args or ()),
            env=env or {},
            cwd=cwd,
            url=url,
            headers=headers or {},
        ),
        description=description,
        visible_to=(visible_to,) if isinstance(visible_to, str) else tuple(visible_to),
        tools_allowed=None if tools_allowed is None else tuple(tools_allowed),
        persistent=persistent,
        scope=Scope(scope),
    )
    return await mesh.servers.register(wish)


@tool(
    title="Offer an MCP server no more",
    destructive=True,
    search_hint="unregister mcp server stop sharing tools",
)
async def unregister_mcp(
    mesh: "Mesh",
    name: Annotated[str, Field(description="As it was registered, without the handle.")],
) -> Unregistered:
    """End an MCP server that this session offers; what calls of it still run is cut off.

    A persistent one comes back no more.
    """
    await mesh.servers.unregister(name)
    return Unregistered(name=name)
