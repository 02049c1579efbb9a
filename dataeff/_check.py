"""Checks of what users pass in: each error names the value and what was expected."""

import math
import operator
from collections.abc import Callable
from typing import Any

import attrs

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def whole(name: str, value: object, *, low: int | None = None, high: int | None = None) -> int:
    """`value` as an int, if it is a whole number (not a bool) within [low, high].

    Examples:
        >>> whole("batch_size", 8, low=1)
        8
        >>> whole("batch_size", 0, low=1)
        Traceback (most recent call last):
        ...
        ValueError: batch_size is 0; expected a whole number of at least 1
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not _within(number, low, high):
        raise ValueError(f"{name} is {value!r}; expected a whole number{_bounds(low, high)}")
    return number


def real(name: str, value: object, *, low: float | None = None) -> float:
    """`value`, if it is a finite number of at least `low`.

    Examples:
        >>> real("degree", float("nan"))
        Traceback (most recent call last):
        ...
        ValueError: degree is nan; expected a finite number
    """
    try:
        finite = not isinstance(value, bool | str | bytes) and math.isfinite(value)  # type: ignore[arg-type]
    except TypeError:
        finite = False
    if not finite or not _within(value, low, None):  # type: ignore[arg-type]
        raise ValueError(f"{name} is {value!r}; expected a finite number{_bounds(low, None)}")
    return value  # type: ignore[return-value]


def is_whole(low: int | None = None) -> Validator:
    """`whole` as an attrs validator.

    Examples:
        >>> @attrs.frozen
        ... class Point:
        ...     x: int = attrs.field(validator=is_whole(0))
        >>> Point(-1)
        Traceback (most recent call last):
        ...
        ValueError: x is -1; expected a whole number of at least 0
    """

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        whole(field.name, value, low=low)

    return check


def is_real(low: float | None = None) -> Validator:
    """`real` as an attrs validator.

    Examples:
        >>> @attrs.frozen
        ... class Point:
        ...     x: float = attrs.field(validator=is_real())
        >>> Point("near")
        Traceback (most recent call last):
        ...
        ValueError: x is 'near'; expected a finite number
    """

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        real(field.name, value, low=low)

    return check


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _bounds(low: float | None, high: float | None) -> str:
    if low is None:
        return ""
    return f" of at least {low}" if high is None else f" from {low} to {high}"
