"""What stands in for parts of the standard library in a hook does what they do."""

from typing import Any

import pytest

REAL = """
from contextlib import closing, suppress
from enum import StrEnum
from typing import NamedTuple, cast
"""
PLAIN = "from claudemesh_mcp.plain import NamedTuple, StrEnum, cast, closing, suppress\n"
CLASSES = '''
import json, sqlite3

class Point(NamedTuple):
    """A place."""
    x: int
    y: int = 7

    @property
    def sum(self) -> int:
        return self.x + self.y

    @classmethod
    def at(cls, x: int) -> "Point":
        return cls(x)

class Word(StrEnum):
    """A word."""
    YES = "yes"
    NO = "no"

def behind(allowed, raised):
    with suppress(*allowed):
        if raised is not None:
            raise raised
    return "on"

def closed(raised):
    with suppress(LookupError), closing(sqlite3.connect(":memory:")) as sql:
        if raised is not None:
            raise raised
    return sql.total_changes
'''
EXPRESSIONS = [
    "Point(1)",
    "Point(1, 2)",
    "Point(y=3, x=1)",
    "Point(1, y=2)",
    "Point(*[1, 2])",
    "Point()",
    "Point(1, 2, 3)",
    "Point(1, x=2)",
    "Point(1, z=2)",
    "Point(y=2)",
    "Point(1) == (1, 7)",
    "Point(1) == Point.at(1)",
    "Point(1) < Point(2)",
    "hash(Point(1)) == hash((1, 7))",
    "isinstance(Point(1), tuple)",
    "[*Point(1)]",
    "Point(1).y",
    "Point(1).sum",
    "Point(1).z",
    "setattr(Point(1), 'x', 2)",
    "Point(1)._asdict()",
    "Point(1)._replace(x=4)",
    "Point._fields",
    "Point.__doc__",
    "Word.YES",
    "Word('no')",
    "Word('no') is Word.NO",
    "Word('maybe')",
    "Word.NO.value",
    "type(Word.NO.value)",
    "Word.NO.name",
    "str(Word.NO)",
    "f'{Word.NO}'",
    "Word.NO == 'no'",
    "Word.NO == Word.YES",
    "{Word.NO: 1}['no']",
    "[*Word]",
    "isinstance(Word.NO, Word)",
    "Word.NO + '!'",
    "json.dumps([Word.NO])",
    "sqlite3.connect(':memory:').execute('SELECT ?', (Word.NO,)).fetchone()",
    "cast('int', 'one')",
    "behind([OSError], None)",
    "behind([OSError, ValueError], FileNotFoundError())",
    "behind([FileNotFoundError], OSError())",
    "behind([], OSError())",
    "closed(None)",
    "closed(KeyError())",
    "closed(ValueError())",
]


def outcome(prelude: str, expression: str) -> tuple[str, str]:
    """Give what an expression is, or how it fails."""
    names: dict[str, Any] = {"__name__": __name__}
    exec(prelude + CLASSES, names)  # noqa: S102 - the same text with other imports
    try:
        found = eval(expression, names)  # noqa: S307 - as above
    except Exception as fault:  # noqa: BLE001 - any kind is compared
        return type(fault).__name__, ""
    return type(found).__name__, repr(found)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_it_gives_what_the_real_ones_give(expression: str) -> None:
    assert outcome(PLAIN, expression) == outcome(REAL, expression)
