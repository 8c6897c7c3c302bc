"""Where the product makes an error, and whether that says what can be done about it.

``test_architecture.py`` and ``wire/test_remedies.py`` read the project through here.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from claudemesh_wire.errors import MeshError
from tests.support.checkout import PACKAGES, import_all, name_of, tree


@dataclass(frozen=True)
class Made:
    """A place where an error is made.

    Args:
        place: File and line.
        category: Of its class.
        has_hint: Whether it has a hint there.
        code: What is written there as its code; empty without one, ``None`` if it is no literal.
    """

    place: str
    category: str
    has_hint: bool
    code: str | None


def errors_made(path: Path) -> list[Made]:
    """The places of a file, in no order."""
    kinds = {kind.__name__: kind for kind in kinds_of_error()}
    return [
        Made(
            f"{name_of(path)}:{call.lineno}",
            kinds[name].category,
            has_hint(call, tree(path)),
            _code(call),
        )
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call) and (name := _name(call.func)) in kinds
    ]


def kinds_of_error() -> Iterator[type[MeshError]]:
    """``MeshError`` and every class of the product that is made of it."""
    import_all()
    waiting: list[type[MeshError]] = [MeshError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.partition(".")[0] in PACKAGES:
            yield kind


def _name(called: ast.expr) -> str:
    """The name that is called, also as a module's or a class's."""
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def _code(call: ast.Call) -> str | None:
    given = [one.value for one in call.keywords if one.arg == "code"]
    if not given:
        return ""
    literal = given[0].value if isinstance(given[0], ast.Constant) else None
    return literal if isinstance(literal, str) else None


def has_hint(call: ast.Call, file: ast.Module) -> bool:
    """Tell whether an error that is made has a second text, or one named so, that is not empty."""
    given = [*call.args[1:2], *(one.value for one in call.keywords if one.arg == "hint")]
    return bool(given) and all(_says_something(one, file) for one in given)


def _says_something(text: ast.expr, file: ast.Module, above: frozenset[str] = frozenset()) -> bool:
    """Tell whether a text can't be empty, as far as its file tells.

    What is called, or belongs to something else, is taken to say something.

    Args:
        text: What gives it.
        file: Where that stands.
        above: Names that are looked into already: one may be made of itself.
    """
    if isinstance(text, ast.Constant):
        return isinstance(text.value, str) and bool(text.value.strip())
    if isinstance(text, ast.Name):
        if text.id in above:
            return True
        above |= {text.id}
    choices, pieces = _choices(text, file), _pieces(text)
    return all(_says_something(one, file, above) for one in choices) and (
        not pieces or any(_says_something(one, file, above) for one in pieces)
    )


def _choices(text: ast.expr, file: ast.Module) -> list[ast.expr]:
    """Give the texts one of which it is."""
    match text:
        case ast.IfExp(body=body, orelse=orelse):
            return [body, orelse]
        case ast.BoolOp(ast.Or(), [*_, last]):
            return [last]
        case ast.BoolOp():
            # Of `and`, which gives its first part where that is empty.
            return [ast.Constant("")]
        case ast.Name(name):
            return list(_values(name, file))
        case _:
            return []


def _pieces(text: ast.expr) -> list[ast.expr]:
    """Give the texts that it is put together of."""
    match text:
        case ast.JoinedStr(parts):
            return parts or [ast.Constant("")]
        case ast.FormattedValue(value):
            return [value]
        case ast.BinOp(left=left, right=right):
            return [left, right]
        case _:
            return []


def _values(name: str, file: ast.Module) -> Iterator[ast.expr]:
    """What a file gives a name, wherever that is, and as a parameter's default."""
    for node in ast.walk(file):
        match node:
            case ast.Assign(targets=[ast.Name(target)], value=value) if target == name:
                yield value
            case ast.AnnAssign(target=ast.Name(target), value=ast.expr() as value) if (
                target == name
            ):
                yield value
            case ast.arguments():
                yield from _defaults(node, name)
            case _:
                pass


def _defaults(parameters: ast.arguments, name: str) -> Iterator[ast.expr]:
    by_place = [*parameters.posonlyargs, *parameters.args]
    paired = [
        *zip(reversed(by_place), reversed(parameters.defaults), strict=False),
        *zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True),
    ]
    yield from (value for one, value in paired if one.arg == name and value is not None)
