"""Says what is to be done about a message that its recipient's grants keep from being shown.

``shown_messages.py`` shows it to the sender, beside the status. The broker goes by its copy of the
recipient's grants, which may lack some; what the recipient signed goes by the grants themselves.
"""

from claudemesh_mcp.peer import Peer
from claudemesh_wire.receipts import ReceiptStatus

HELD_FULL = "held_full"


def hint(peer: Peer, status: str | None, reason: str | None, *, is_signed: bool) -> str | None:
    """Name what a recipient's human, or the sender, can do; ``None`` where nothing is held.

    Args:
        peer: The sender.
        status: How far the message got.
        reason: Why no further.
        is_signed: Whether the recipient says so; else it is the broker's word.
    """
    # By the mesh's id: what their home calls it is not known here.
    command = f"claudemesh --mesh {peer.identity.mesh} allow {peer.own_name()}"
    if status == ReceiptStatus.HELD:
        if is_signed:
            return f"Its user can let it through: {command}"
        return f"Unless it has done so already, its user can let it through: {command}"
    if status != ReceiptStatus.DECLINED or reason != HELD_FULL:
        return None
    if is_signed:
        return (
            "As many of this member's messages are held there as may be. Send it again once its"
            f" user has discarded them or let them through: {command}"
        )
    return (
        "As much of this member's waits there, held, as may. Send it again once a session of it"
        f" has been here; its user can let all of it through: {command}"
    )
