"""JSON that is signed: written once, then hashed and sent as those exact bytes.

Certificates, membership entries, invites, envelope headers and handshake claims are such bytes.
Reading refuses what two parsers could understand differently: another encoding than UTF-8, a key
twice, half a surrogate pair, a number that a double does not hold exactly.
"""

import json
from typing import Any, Final, NoReturn, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from claudemesh_wire.errors import Invalid

VERSION: Final = 1
MAX_WHOLE: Final = 2**53 - 1
HALVES: Final = "Leave out the half of a surrogate pair that is in it."
_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
)


class Signed(BaseModel):
    """Fields that stand inside signed bytes: strict types, unknown fields ignored, frozen."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, defer_build=True)


ModelT = TypeVar("ModelT", bound=Signed)


def encode(fields: dict[str, Any] | Signed) -> bytes:
    """Write fields as compact UTF-8 JSON with sorted keys; ``None`` values are left out.

    Raises:
        Invalid: a text holds half a surrogate pair, which no encoding can carry.
    """
    plain = fields.model_dump(mode="json") if isinstance(fields, Signed) else fields
    present = {name: value for name, value in plain.items() if value is not None}
    try:
        return _ENCODER.encode(present).encode()
    except UnicodeEncodeError as error:
        raise Invalid("A text is not valid Unicode.", HALVES, code="malformed") from error


def decode(payload: bytes, model: type[ModelT], what: str) -> ModelT:
    """Read signed bytes into their model.

    Args:
        payload: The exact bytes, UTF-8 JSON, one object.
        model: What the object must be.
        what: Its name in the error, as ``certificate``.

    Raises:
        Invalid: ``unsupported_version`` where the model has a version ``v`` and the payload another
            or none; else ``malformed``.
    """
    fields = _parse(payload, what)
    if "v" in model.model_fields and fields.get("v") != VERSION:
        raise Invalid(
            f"The {what} is of an unknown version.", "Update this side.", code="unsupported_version"
        )
    try:
        return model.model_validate(fields, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])[:80] or what
        raise Invalid(f"The {what} is malformed: {where}: {first['msg']}.", code="malformed") from (
            error
        )


def _parse(payload: bytes, what: str) -> dict[str, Any]:
    try:
        text = payload.decode()
        fields = _DECODER.decode(text)
        if "\\u" in text:  # An escape can smuggle in what the bytes themselves cannot hold.
            _ENCODER.encode(fields).encode()
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The {what} is not clean JSON.", code="malformed") from error
    if not isinstance(fields, dict):
        raise Invalid(f"The {what} is not a JSON object.", code="malformed")
    return cast("dict[str, Any]", fields)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _whole(digits: str) -> int:
    number = int(digits)
    if abs(number) > MAX_WHOLE:
        raise ValueError(f"{digits[:20]} is not held exactly by a double")
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_whole, parse_constant=_refuse
)
