"""What a broker may be made to say in frames of one kind; the twin's ``lie`` takes these."""

import json
from collections.abc import Callable
from typing import Any

from claudemesh_wire.frame import decode
from tests.support.twin import Lie


def changed(kind: str, change: Callable[[dict[str, Any]], Any]) -> Lie:
    """Lie in frames of one kind."""

    def lie(text: str) -> str | None:
        frame = decode(text)
        if frame.kind != kind:
            return text
        body = json.loads(frame.body)
        change(body)
        return f"{frame.number} {frame.answers} {kind} {json.dumps(body)}"

    return lie


def refusing(kind: str) -> Lie:
    """Refuse what would be answered by a kind."""
    refusal = {"category": "unavailable", "code": "draining", "reason": "Not now."}

    def lie(text: str) -> str | None:
        frame = decode(text)
        if frame.kind != kind:
            return text
        return f"0 {frame.answers} refused {json.dumps(refusal)}"

    return lie
