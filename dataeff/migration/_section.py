"""A table of somebody's config that knows where it stands, so that errors say it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from dataeff import registry
from dataeff._check import real, whole

_MISSING: Any = object()


@attrs.frozen
class Section:
    """The table at `path`. What is asked of it is checked, and errors name the key by its whole path.

    Examples:
        >>> section = Section("a.b", {"steps": 8.0})
        >>> section.whole("steps", low=1)
        8
        >>> section.whole("max_steps")
        Traceback (most recent call last):
        ...
        ValueError: a.b.max_steps is missing; expected a whole number
    """

    path: str
    table: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return key in self.table

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def at(self, key: str) -> str:
        """The whole path of `key`."""
        return f"{self.path}.{key}" if self.path else key

    def only(self, *known: str) -> "Section":
        """Itself, if it has no other keys than `known`."""
        for key in self.table:
            if key not in known:
                raise ValueError(registry.unknown(key, list(known), of=self.path))
        return self

    def inner(self, key: str, *, needed: bool = False) -> "Section":
        """The table at `key`; an empty one for none, unless it is needed."""
        table = self.table.get(key, _MISSING if needed else {})
        if not isinstance(table, Mapping):
            raise self._wrong(key, table, "a table")
        return Section(self.at(key), table)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false."""
        value = self.table.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def whole(self, key: str, *, low: int | None = None, default: Any = _MISSING) -> int:
        """A whole number, as an int also where it is written as a float."""
        value = self.table.get(key, default)
        if value is _MISSING:
            raise self._wrong(key, value, "a whole number")
        as_int = int(value) if isinstance(value, float) and value.is_integer() else value
        return whole(self.at(key), as_int, low=low)

    def number(self, key: str) -> float:
        """A finite number; an int where it is whole."""
        value = self.table.get(key, _MISSING)
        if value is _MISSING:
            raise self._wrong(key, value, "a number")
        found = real(self.at(key), value)
        return int(found) if found == int(found) else found

    def numbers(self, key: str) -> list[float]:
        """A list of finite numbers."""
        return [Section(self.at(key), {str(i): v}).number(str(i)) for i, v in enumerate(self._list(key))]

    def wholes(self, key: str, *, low: int) -> list[int]:
        """A list of whole numbers."""
        return [
            Section(self.at(key), {str(i): v}).whole(str(i), low=low) for i, v in enumerate(self._list(key))
        ]

    def one_of(self, key: str, choices: Sequence[str], *, default: Any = _MISSING) -> str:
        """One of some words."""
        value = self.table.get(key, default)
        if value is _MISSING or not isinstance(value, str):
            of = "one of " if len(choices) > 1 else ""
            raise self._wrong(key, value, of + ", ".join(map(repr, choices)))
        if value not in choices:
            raise ValueError(registry.unknown(value, list(choices), of=self.at(key)))
        return value

    def text(self, key: str) -> str | None:
        """A string; None for none."""
        value = self.table.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def _list(self, key: str) -> list[Any]:
        value = self.table.get(key, _MISSING)
        if not isinstance(value, list | tuple):
            raise self._wrong(key, value, "a list of numbers")
        return list(value)

    def _wrong(self, key: str, value: Any, expected: str) -> ValueError:
        state = "is missing" if value is _MISSING else f"is {value!r}"
        return ValueError(f"{self.at(key)} {state}; expected {expected}")
