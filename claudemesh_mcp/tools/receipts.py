"""The tool ``message_status``: how far a message of one's own has come.

``tools.run`` hands checked arguments here; it hands on to ``Mesh``, which verifies the receipts.
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from claudemesh_mcp.results import StatusResult
from claudemesh_mcp.tools import tool

if TYPE_CHECKING:
    from claudemesh_mcp.sdk import Mesh


@tool(
    title="See whether a message was read",
    read_only=True,
    idempotent=True,
    search_hint="receipt delivered seen read status of a sent message",
)
async def message_status(
    mesh: "Mesh",
    id: Annotated[
        str, Field(min_length=1, max_length=40, description="The id that `send` gave (`msg_…`).")
    ],
) -> StatusResult:
    """Say how far a message that this session sent has come with each recipient, and when.

    `accepted`, `queued` and `expired` are the broker's word. `delivered`, `seen`, `declined` and
    `withheld` (not shown: superseded, or not for the commit checked out there) are signed by the
    recipient's session and verified here (`proved`); `held` too, once that session has it: its user
    has to let it through, by the command in `hint`. `seen` says that the recipient's session put
    the text before its reader, not that anybody acted on it. A recipient that had ended may have a
    `successor`, a later session of the same member.
    """
    return await mesh.message_status(id)
