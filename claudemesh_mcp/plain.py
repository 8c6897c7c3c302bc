"""What hooks use of `typing`, `enum` and `contextlib`, at a twentieth of the time that these take.

``cleaning.py`` and the modules of ``routes/`` make their tuples and words by it. A type checker
sees the real ones, and a test holds these against them.
"""

from __future__ import annotations

__all__ = ["TYPE_CHECKING", "NamedTuple", "StrEnum", "cast", "closing", "suppress"]

# Not from `typing`: that alone takes as long as a bare interpreter.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import closing, suppress
    from enum import StrEnum
    from typing import Any, NamedTuple, Self, cast
else:
    from operator import itemgetter

    class NamedTuple(tuple):
        """A tuple whose places have names: those that the class annotates, in their order."""

        __slots__ = ()

        def __init_subclass__(cls) -> None:
            """Name the places."""
            cls._fields = cls.__match_args__ = tuple(cls.__annotations__)
            cls._field_defaults = {
                name: vars(cls)[name] for name in cls._fields if name in vars(cls)
            }
            for place, name in enumerate(cls._fields):
                setattr(cls, name, property(itemgetter(place)))

        def __new__(cls, *values: Any, **named: Any) -> Self:
            """Make one, of values in the order of the places and by their names."""
            if len(values) == len(cls._fields) and not named:
                return tuple.__new__(cls, values)
            in_order = dict(zip(cls._fields, values, strict=False))
            told = cls._field_defaults | in_order | named
            is_twice = len(in_order) < len(values) or in_order.keys() & named.keys()
            if is_twice or told.keys() != set(cls._fields):
                raise TypeError(f"{cls.__name__} is made of {', '.join(cls._fields)}")
            return tuple.__new__(cls, map(told.__getitem__, cls._fields))

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named: Any) -> Self:
            return type(self)(**(self._asdict() | named))

        def __repr__(self) -> str:
            """Show the names too."""
            told = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({told})"

    class _Words(type):
        """Makes one word of each text that a class names."""

        def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> None:
            super().__init__(name, bases, body)
            cls._words = {}
            for key, text in body.items():
                if isinstance(text, str) and not key.startswith("_"):
                    word = cls._words[text] = str.__new__(cls, text)
                    word.name, word.value = key, text
                    setattr(cls, key, word)

        def __iter__(cls) -> Iterator[Any]:
            return iter(cls._words.values())

    class StrEnum(str, metaclass=_Words):  # noqa: SLOT000 - a word has a name
        """A closed set of words, of which each is one object."""

        def __new__(cls, text: str) -> Self:
            """Give the word of a text."""
            try:
                return cls._words[text]
            except KeyError:
                raise ValueError(f"{text!r} is not a valid {cls.__name__}") from None

        def __repr__(self) -> str:
            """Show the name too."""
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

    class closing:  # noqa: N801 - as `contextlib` has it
        """Close something at the end."""

        def __init__(self, thing: Any) -> None:
            self._thing = thing

        def __enter__(self) -> Any:
            """Give it."""
            return self._thing

        def __exit__(self, *_: object) -> None:
            """Close it."""
            self._thing.close()

    class suppress:  # noqa: N801 - as `contextlib` has it
        """Go on behind an exception of some kinds."""

        def __init__(self, *kinds: type[BaseException]) -> None:
            self._kinds = kinds

        def __enter__(self) -> None:
            """Begin."""

        def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
            """Tell whether it is one of these."""
            return kind is not None and issubclass(kind, self._kinds)

    def cast(kind: Any, value: Any) -> Any:  # noqa: ARG001 - as `typing` has it
        """Give the value, which a type checker is to take for one of that kind."""
        return value
