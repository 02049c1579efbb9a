"""What a config gives, held against what it is for: a slip would train something else without a word."""

import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import attrs

from dataeff import registry

T = TypeVar("T")


def made(cls: type[T], given: Mapping[str, Any], where: str) -> T:
    """A `cls` of what is given.

    ValueError, with `where` it was said, for a key that is none of its own, one that is missing, or a value
    of another type than it takes.

    Examples:
        >>> made(attrs.make_class("Size", {"width": attrs.field(type=int)}), {"widht": 3}, "the size s")
        Traceback (most recent call last):
        ...
        ValueError: unknown name 'widht' in the size s; did you mean 'width'? Known: 'width'
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r}; expected a table")
    fields = {field.name: field for field in attrs.fields(cls)}  # type: ignore[arg-type, misc]
    hints = typing.get_type_hints(cls)
    for key, value in given.items():
        if key not in fields:
            raise ValueError(registry.unknown(key, list(fields), of=where))
        if not _fits(value, hints.get(key, Any)):
            raise ValueError(f"{where}: {key} is {value!r}; expected {_said(hints[key])}")
    missing = [key for key, own in fields.items() if own.default is attrs.NOTHING and key not in given]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    try:
        return cls(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_fits(value, each) for each in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if typing.get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(each, *typing.get_args(hint)) for each in value)
    if typing.get_origin(hint) is dict:
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (str, bool, types.NoneType) else True


def _said(hint: Any) -> str:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(_said(each) for each in typing.get_args(hint) if each is not types.NoneType)
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is list:
        return f"a list, each {_said(*typing.get_args(hint))}"
    if typing.get_origin(hint) is dict:
        return "a table"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    return words.get(hint, str(hint))
