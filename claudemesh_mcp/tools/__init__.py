"""The tools that a model sees: each is a function, and its signature is its registration.

``session.py`` hands a name and raw arguments to ``run``, which imports the one feature module
that has the tool, reads the arguments by its annotations and awaits it with the ``Mesh``.
``python -m claudemesh_mcp.tools`` writes ``definitions.json``, all that ``server.py`` needs of the
tools before the first call.
"""

import inspect
import json
import re
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from claudemesh_mcp.answers import Raw
from claudemesh_mcp.calls import CallContext
from claudemesh_mcp.suggestions import did_you_mean, quoted
from claudemesh_wire.errors import Invalid, NotFound

DEFINITIONS_FILE: Final = Path(__file__).with_name("definitions.json")
MAX_DESCRIPTION_BYTES: Final = 2048
_LONGEST_SHOWN: Final = 100
ALWAYS_LOAD: Final = "anthropic/alwaysLoad"
_NAME: Final = re.compile(r"[a-z][a-z_]{1,39}")
_SECTION: Final = re.compile(r"^(Args|Returns|Raises|Source):$", re.MULTILINE)

Result = BaseModel | Raw
AnyTool = TypeVar("AnyTool", bound=Callable[..., Awaitable[Result]])


class DeclarationError(TypeError):
    """A tool is declared wrongly; raised while its module is imported."""


@dataclass(frozen=True, slots=True)
class Hints:
    """What a client may want to know before it lets a model call a tool."""

    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool


@dataclass(frozen=True, slots=True)
class Tool:
    """A registered tool: the function and what its signature says."""

    name: str
    feature: str
    title: str
    description: str
    function: Callable[..., Awaitable[Result]]
    arguments: type[BaseModel]
    result: type[BaseModel] | None
    """None if another server says what its results look like."""
    hints: Hints
    meta: Mapping[str, Any]
    takes_call: bool


REGISTRY: Final[dict[str, Tool]] = {}


def tool(
    *,
    title: str,
    core: bool = False,
    read_only: bool = False,
    destructive: bool = False,
    idempotent: bool = False,
    open_world: bool = False,
    search_hint: str = "",
    max_result_chars: int | None = None,
) -> Callable[[AnyTool], AnyTool]:
    """Register an async function ``(mesh, ...) -> a pydantic model`` as the tool of its name.

    It may also be ``-> Raw``, for a result that another server made.

    Every parameter but ``mesh`` and ``call`` is an argument: its annotation is the schema and
    ``Annotated[..., Field(description=...)]`` what the model reads of it. The docstring up to its
    first section is the description.

    Args:
        title: What a person sees in place of the name.
        core: The client loads the definition up front, not only when the model searches for it.
        read_only: It changes nothing, so that a client may run several at once.
        destructive: It can take away something that was there.
        idempotent: Once more with the same arguments changes nothing more.
        open_world: It reaches somebody outside this mesh's own records.
        search_hint: A few words by which a client's tool search finds it.
        max_result_chars: Results up to this size stay in the context instead of in a file.

    Raises:
        DeclarationError: the signature or the docstring can't be a tool.
    """
    meta: dict[str, Any] = {}
    if core:
        meta[ALWAYS_LOAD] = True
    if search_hint:
        meta["anthropic/searchHint"] = search_hint
    if max_result_chars is not None:
        meta["anthropic/maxResultSizeChars"] = max_result_chars
    hints = Hints(read_only, destructive, idempotent, open_world)

    def register(function: AnyTool) -> AnyTool:
        declared = _declare(function, title, hints, meta)
        if declared.name in REGISTRY:
            raise DeclarationError(f"There are two tools named {declared.name}.")
        REGISTRY[declared.name] = declared
        return function

    return register


async def run(
    mesh: object, name: str, arguments: dict[str, Any], call: CallContext
) -> dict[str, Any] | Raw:
    """Call a tool by name with the arguments a client sent; give its structured result.

    Args:
        mesh: The connected ``Mesh`` that the tool works with.
        name: The tool's name.
        arguments: As they came, unchecked.
        call: What the tool may tell its caller.

    Raises:
        MeshError: the arguments are wrong (``Invalid`` names the parameter), or the tool refused.
    """
    declared = find(name)
    given = read_arguments(declared, arguments)
    if declared.takes_call:
        given["call"] = call
    result = await declared.function(mesh, **given)
    return result if isinstance(result, Raw) else result.model_dump(mode="json", by_alias=True)


def find(name: str) -> Tool:
    """Find a tool, importing the feature it belongs to.

    Raises:
        NotFound: there is no such tool; the hint names the nearest.
    """
    features = _features()
    if name not in REGISTRY:
        if name not in features:
            raise NotFound(f"There is no tool {quoted(name)}.", did_you_mean(name, features))
        import_module(f"{__name__}.{features[name]}")
    return REGISTRY[name]


def read_arguments(declared: Tool, arguments: dict[str, Any]) -> dict[str, Any]:
    """Read a tool's arguments by its annotations; leave out what was not given.

    Raises:
        Invalid: one of them is missing, unknown or wrong; the reason names it.
    """
    try:
        read = declared.arguments.model_validate(arguments)
    except ValidationError as wrong:
        raise _explain(declared, wrong) from None
    return {name: getattr(read, name) for name in read.model_fields_set}


def _explain(declared: Tool, wrong: ValidationError) -> Invalid:
    """Turn pydantic's first complaint into a sentence about one parameter."""
    fields = {one.alias or name: one for name, one in declared.arguments.model_fields.items()}
    problem = wrong.errors(include_url=False, include_input=False, include_context=False)[0]
    parameter = str(problem["loc"][0]) if problem["loc"] else "arguments"
    details = {"parameter": parameter[:_LONGEST_SHOWN]}
    if problem["type"] == "extra_forbidden" and parameter not in fields:
        reason = f"`{declared.name}` has no parameter {quoted(parameter)}."
        return Invalid(reason, did_you_mean(parameter, fields), details=details)
    known = fields.get(parameter)
    meaning = f"`{parameter}`: {known.description}" if known else "Its schema says what it takes."
    if problem["type"] == "missing" and len(problem["loc"]) == 1:
        reason = f"`{declared.name}` needs `{parameter}`."
    else:
        inner = ".".join(str(part) for part in problem["loc"])[:_LONGEST_SHOWN]
        reason = f"`{inner}` is wrong: {problem['msg']}."
    return Invalid(reason, meaning, details=details)


@cache
def _features() -> dict[str, str]:
    """Read which feature module has which tool."""
    return json.loads(DEFINITIONS_FILE.read_bytes())["features"]


def _declare(
    function: Callable[..., Awaitable[Result]],
    title: str,
    hints: Hints,
    meta: Mapping[str, Any],
) -> Tool:
    name = getattr(function, "__name__", "")
    if not _NAME.fullmatch(name) or not inspect.iscoroutinefunction(function):
        raise DeclarationError(f"{name!r} is not an async function with a tool's name.")
    parameters = inspect.signature(function).parameters
    if next(iter(parameters), "") != "mesh":
        raise DeclarationError(f"The first parameter of {name} is not `mesh`.")
    asked = {key: parameters[key] for key in parameters if key not in {"mesh", "call"}}
    types = _annotations(function, {*asked, "return"})
    return Tool(
        name=name,
        feature=function.__module__.rpartition(".")[2],
        title=title,
        description=_description(function, name),
        function=function,
        arguments=_arguments(name, asked, types),
        result=_result(name, types.get("return")),
        hints=hints,
        meta=dict(meta),
        takes_call="call" in parameters,
    )


def _annotations(function: Callable[..., Any], wanted: set[str]) -> dict[str, Any]:
    """Resolve the wanted annotations only: `Mesh` may be imported for the type checker alone."""
    written = {k: v for k, v in inspect.get_annotations(function).items() if k in wanted}
    return typing.get_type_hints(
        SimpleNamespace(__annotations__=written),
        globalns=getattr(function, "__globals__", {}),
        include_extras=True,
    )


def _arguments(
    name: str, asked: Mapping[str, inspect.Parameter], types: Mapping[str, Any]
) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for key, parameter in asked.items():
        if key not in types or parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}:
            raise DeclarationError(f"Parameter {key} of {name} has no type.")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[key] = (types[key], default)
    # `with_` is `with` to a client: a word of Python's own can be no parameter.
    config = ConfigDict(
        extra="forbid", defer_build=True, alias_generator=lambda key: key.removesuffix("_")
    )
    model = create_model(f"{name}_arguments", __config__=config, **fields)
    for key, field in model.model_fields.items():
        _check_described(name, key, field)
    return model


def _check_described(name: str, key: str, field: FieldInfo) -> None:
    if not field.description:
        raise DeclarationError(f"Parameter {key} of {name} has no Field(description=...).")


def _result(name: str, annotation: object) -> type[BaseModel] | None:
    if annotation is Raw:
        return None
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        raise DeclarationError(f"{name} returns neither a pydantic model nor Raw.")
    if not annotation.model_fields:
        raise DeclarationError(f"The result of {name} has no keys.")
    return annotation


def _description(function: Callable[..., Any], name: str) -> str:
    text = _SECTION.split(inspect.getdoc(function) or "")[0].strip()
    if not text or len(text.encode()) > MAX_DESCRIPTION_BYTES:
        raise DeclarationError(f"{name} has no docstring of 1 to {MAX_DESCRIPTION_BYTES} bytes.")
    return text
