"""The tool ``set_profile``: what the others see of this session.

``tools.run`` hands checked arguments here; it hands on to ``Mesh``, which tells the broker and,
for a new handle, publishes a new certificate.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from claudemesh_mcp.meshresults import ProfileResult
from claudemesh_mcp.tools import tool

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh


@tool(
    title="Change what others see of this session",
    idempotent=True,
    search_hint="rename handle status busy do not disturb summary role profile",
)
async def set_profile(
    mesh: "Mesh",
    *,
    handle: Annotated[
        str | None,
        Field(
            description="The name wished for: 1 to 40 of a-z, 0-9, `.`, `_`, `-`, beginning and"
            " ending with a letter or digit. It gets a number when somebody has it.",
        ),
    ] = None,
    role: Annotated[
        str | None, Field(max_length=80, description="What this session is for, e.g. reviewer.")
    ] = None,
    status: Annotated[
        Literal["idle", "working", "dnd"] | None,
        Field(description="idle, working, or dnd (do not disturb: nothing is pushed)."),
    ] = None,
    summary: Annotated[
        str | None,
        Field(max_length=500, description="What it works on now, in one or two sentences."),
    ] = None,
    profile: Annotated[
        dict[str, Any] | None,
        Field(
            description="One JSON object of at most 4 KiB, replaces the old. Known keys: `avatar`"
            " (an emoji, up to 8 characters, or an https URL), `title` (up to 80 characters),"
            " `bio` (up to 500), `capabilities` (up to 20 words, which searches find)."
        ),
    ] = None,
    visible: Annotated[
        bool | None,
        Field(
            description="false hides this session: it is in no list, no `@group` and no `*`;"
            " only who knows its peer id can write to it."
        ),
    ] = None,
    share_cwd: Annotated[
        bool | None,
        Field(description="true shows other members the full path of this session's folder."),
    ] = None,
) -> ProfileResult:
    """Change the handle, role, status, summary, profile or visibility of this session in the mesh.

    Use it when your task changes, so that others can find the right session with `search_peers`.
    What is left out stays as it is; the answer is what is shown now. All members of the mesh and
    the broker can read it: put no secrets here.
    """
    return await mesh.set_profile(
        handle=handle,
        role=role,
        status=status,
        summary=summary,
        profile=profile,
        visible=visible,
        share_cwd=share_cwd,
    )
