"""Plain Python functions as a server: each is a tool, and its signature says what it takes.

``Servers.functions`` offers them; ``serving.py`` calls them as it calls a server in a process
of its own. A docstring is the description, an exception the tool's own error.
"""

import inspect
import json
import logging
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, Final

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.abc import TaskStatus
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from claudemesh_mcp.calling.links import Hooks
from claudemesh_mcp.hosting.flights import Raw
from claudemesh_mcp.hosting.keeping import Condition, State
from claudemesh_mcp.hosting.serving import CALL_TOOL, CALLER
from claudemesh_wire.errors import Invalid
from claudemesh_wire.mcp_servers import OWN

logger: Final = logging.getLogger(__name__)

Function = Callable[..., Any]
MOST_THREADS: Final = 32
"""So many functions that are not async run at once; the others wait."""
_CALL: Final = "call"
_FILLED_BY_NAME: Final = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
_RESULT: Final = "result"


class FunctionCall:
    """What a function with a parameter ``call`` knows of the call it serves.

    Args:
        caller: Who calls, as proved: ``peer``, ``handle``, ``member``, ``member_name``, and ``own``
            if it is another session of the same member.
        tell: Takes progress to the caller.
    """

    def __init__(self, caller: Mapping[str, Any], tell: Callable[[Raw], None]) -> None:
        self.caller = caller
        self._tell = tell

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Tell the caller how far it is; ``done`` has to grow."""
        told = {"progress": done, "total": total, "message": message or None}
        self._tell({name: value for name, value in told.items() if value is not None})


class _Schema(GenerateJsonSchema):
    """Schemas without titles, which say again what the names say."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave them out."""
        del schema
        return False


@dataclass(frozen=True)
class _Tool:
    """One function, and how it is called.

    Args:
        function: It.
        definition: As `tools/list` gives it.
        arguments: Reads what it is called with; its fields are numbered, their aliases the names.
        result: Writes what it gives; ``None`` if it does not say what that is.
        is_wrapped: What it gives is no object, and stands in one under ``result``.
        takes_call: It wants to know of the call.
    """

    function: Function
    definition: Raw
    arguments: type[BaseModel]
    result: TypeAdapter[Any] | None
    is_wrapped: bool
    takes_call: bool

    def read(self, given: object) -> dict[str, Any]:
        """Read arguments; raises ``ValidationError``."""
        read = self.arguments.model_validate(given)
        fields = type(read).model_fields
        return {str(fields[one].alias): getattr(read, one) for one in read.model_fields_set}

    def shown(self, value: Any) -> Raw:
        """Write a result."""
        if self.result is None:
            return {"content": [] if value is None else [_text(_plain(value))]}
        written = self.result.dump_python(value, mode="json", by_alias=True, warnings="error")
        text = written if isinstance(written, str) else json.dumps(written, ensure_ascii=False)
        structured = {_RESULT: written} if self.is_wrapped else written
        return {"content": [_text(text)], "structuredContent": structured}


class Functions:
    """A server made of functions.

    A function that is not async runs in a thread; when its caller gives up it runs to its end, and
    nobody waits for it.

    Args:
        name: The server's short name.
        functions: Its tools.
        description: What it is for.
        visible_to: Whom it is for; see ``RegistrationFields``.
        read_only: None of them changes anything: other members call them without approving each.

    Raises:
        Invalid: ``bad_function``: one has no name, or parameters that no schema can say.
    """

    tools_allowed: None = None
    persistent = False
    command_line = "Python functions"

    def __init__(
        self,
        name: str,
        functions: Sequence[Function],
        *,
        description: str = "",
        visible_to: Sequence[str] = (OWN,),
        read_only: bool = False,
    ) -> None:
        self.name = name
        self.description = description
        self.visible_to = tuple(visible_to)
        self.condition = Condition(State.STARTING, 0)
        self._threads = anyio.CapacityLimiter(MOST_THREADS)
        self._tools: dict[str, _Tool] = {}
        for function in functions:
            tool = _declared(function, read_only=read_only)
            if tool.definition["name"] in self._tools:
                raise _bad(tool.definition["name"], "there are two of this name")
            self._tools[tool.definition["name"]] = tool

    async def run(
        self, *, patient: bool = False, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Be there until cancelled."""
        del patient
        self.condition = Condition(State.RUNNING, time.time_ns() // 1_000_000)
        task_status.started()
        await anyio.sleep_forever()

    async def definitions(self) -> dict[str, list[Raw]]:
        """Give the functions as tools."""
        tools = [tool.definition for tool in self._tools.values()]
        return {"tools": tools, "resources": [], "resource_templates": [], "prompts": []}

    async def call(self, method: str, params: Raw, hooks: Hooks) -> Raw:
        """Call a function; what it raises is an error of the tool, not of the protocol."""
        if method != CALL_TOOL:
            return {"error": {"code": -32601, "message": "Functions are tools only."}}
        tool = self._tools.get(str(params.get("name")))
        if tool is None:
            return {"error": {"code": -32602, "message": "There is no such tool."}}
        try:
            return {"result": tool.shown(await self._run(tool, params, hooks))}
        except Exception as error:  # noqa: BLE001 - it is the caller's, as its result would be
            logger.info("the function %s raised %s", params["name"], type(error).__name__)
            return {"result": {"content": [_text(_why(error))], "isError": True}}

    async def _run(self, tool: _Tool, params: Raw, hooks: Hooks) -> Any:
        given = tool.read(params.get("arguments", {}))
        is_async = inspect.iscoroutinefunction(tool.function)
        if tool.takes_call:
            tell = hooks.progress
            if not is_async:
                tell = partial(anyio.from_thread.run_sync, hooks.progress)
            # As ``serving.py`` marked it.
            given[_CALL] = FunctionCall(params["_meta"][CALLER], tell)
        if is_async:
            return await tool.function(**given)
        act = partial(tool.function, **given)
        return await anyio.to_thread.run_sync(act, abandon_on_cancel=True, limiter=self._threads)


def _declared(function: Function, *, read_only: bool) -> _Tool:
    """Make a tool of a function."""
    name = str(getattr(function, "__name__", ""))
    if not name.isidentifier():
        raise _bad(name or repr(function), "it has no name")
    parameters = inspect.signature(function).parameters
    asked = [one for one in parameters.values() if one.name != _CALL]
    try:
        types = _annotations(function)
        arguments = _arguments(name, asked, types)
        definition: Raw = {
            "name": name,
            "description": inspect.getdoc(function) or "",
            "inputSchema": _schema(arguments, "validation"),
        }
        result, is_wrapped = None, False
        if types.get("return", type(None)) is not type(None):
            result = TypeAdapter[Any](types["return"])
            definition["outputSchema"], is_wrapped = _output(result)
    except (PydanticUserError, NameError, TypeError) as error:
        raise _bad(name, str(error).partition("\n")[0]) from error
    if read_only:
        definition["annotations"] = {"readOnlyHint": True}
    return _Tool(function, definition, arguments, result, is_wrapped, _CALL in parameters)


def _annotations(function: Function) -> dict[str, Any]:
    """Resolve the annotations, but of ``call``: its type may be imported for type checkers only."""
    written = {k: v for k, v in inspect.get_annotations(function).items() if k != _CALL}
    return typing.get_type_hints(
        SimpleNamespace(__annotations__=written),
        globalns=getattr(function, "__globals__", {}),
        include_extras=True,
    )


def _arguments(
    name: str, asked: Sequence[inspect.Parameter], types: Mapping[str, Any]
) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(asked):
        if parameter.name not in types:
            raise _bad(name, f"its parameter {parameter.name} has no annotation")
        if parameter.kind not in _FILLED_BY_NAME:
            raise _bad(name, f"its parameter {parameter.name} can't be given by name")
        default = ... if parameter.default is parameter.empty else parameter.default
        # By number: a parameter may be called as something that every model has.
        fields[f"a{number}"] = (
            Annotated[types[parameter.name], Field(alias=parameter.name)],
            default,
        )
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def _schema(model: type[BaseModel], mode: JsonSchemaMode) -> Raw:
    schema = model.model_json_schema(schema_generator=_Schema, mode=mode)
    schema.pop("title", None)
    return schema


def _output(result: TypeAdapter[Any]) -> tuple[Raw, bool]:
    """Give the schema of a result, and whether the result is put into an object."""
    schema = result.json_schema(schema_generator=_Schema, mode="serialization")
    if schema.get("type") == "object":
        return schema, False
    definitions = schema.pop("$defs", None)
    more = {"$defs": definitions} if definitions else {}
    wrapped = {"type": "object", "properties": {_RESULT: schema}, "required": [_RESULT], **more}
    return wrapped, True


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _text(words: str) -> Raw:
    return {"type": "text", "text": words}


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        wrong = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(str(part) for part in wrong['loc'])}: {wrong['msg']}"
    return str(error) or type(error).__name__


def _bad(name: str, why: str) -> Invalid:
    return Invalid(
        f"The function {name} can't be offered: {why}.",
        "Offer functions whose parameters have names and annotations that JSON can say.",
        code="bad_function",
    )
