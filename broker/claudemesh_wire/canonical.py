"""JSON that is signed: written once, then hashed and sent as those exact bytes.

Certificates, membership entries, invites, envelope headers and handshake claims are such bytes.
Reading refuses what two parsers could understand differently.
"""

import json
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from claudemesh_wire.errors import Invalid

_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
)


class Signed(BaseModel):
    """Fields that stand inside signed bytes: strict types, unknown fields ignored, frozen."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)


ModelT = TypeVar("ModelT", bound=Signed)


def encode(fields: dict[str, Any] | Signed) -> bytes:
    """Write fields as compact UTF-8 JSON with sorted keys; ``None`` values are left out."""
    plain = fields.model_dump(mode="json") if isinstance(fields, Signed) else fields
    present = {name: value for name, value in plain.items() if value is not None}
    return _ENCODER.encode(present).encode()


def decode(payload: bytes, model: type[ModelT], what: str) -> ModelT:
    """Read signed bytes into their model.

    Args:
        payload: The exact bytes, UTF-8 JSON, one object.
        model: What the object must be.
        what: Its name in the error, as ``certificate``.

    Raises:
        Invalid: not JSON, a key twice, a number that is no number, or fields of other types.
    """
    try:
        fields = json.loads(payload, object_pairs_hook=_object, parse_constant=_refuse)
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or what
        raise Invalid(f"The {what} is malformed: {where}: {first['msg']}.", code="malformed") from (
            error
        )
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The {what} is not clean JSON.", code="malformed") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
