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
        # A compiler's symbol for a size is an int to it, and operator.index would make one size of it.
        number = value if type(value) is int else operator.index(value)  # type: ignore[arg-type]
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
    plain: Any = value
    try:
        plain = value.item() if hasattr(value, "item") else value  # of a NumPy or torch number
        finite = not isinstance(plain, bool | str | bytes) and math.isfinite(plain)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # the last of a whole number of 309 digits
        finite = False
    if not finite or not _within(plain, low, None):
        raise ValueError(f"{name} is {value!r}; expected a finite number{_bounds(low, None)}")
    number: float = plain
    return number


def count(said: str, amount: float) -> int:
    """What a pace gives, as a number of tokens. ValueError, of what is `said`, where it is none.

    Examples:
        >>> count("keep is 16.0", 16.0)
        16
        >>> count("keep is 16.5", 16.5)
        Traceback (most recent call last):
        ...
        ValueError: keep is 16.5; expected a whole number of at least 1: give the pace multiple= (or wrap ...
    """
    if not (amount >= 1 and amount % 1 == 0):
        raise no_count(said)
    return int(amount)


def no_count(said: str) -> ValueError:
    """The error of a pace that gives no whole number, with its cure.

    Examples:
        >>> print(no_count("keep is 16.5"))
        keep is 16.5; expected a whole number of at least 1: give the pace multiple= (or wrap it in ...
    """
    return ValueError(
        f"{said}; expected a whole number of at least 1: give the pace multiple= (or wrap it in "
        "pacing.multiple) and a start of at least 1"
    )


def is_flag() -> Validator:
    """True or False itself, as an attrs validator: the text "false" would count as true.

    Examples:
        >>> @attrs.frozen
        ... class Sum:
        ...     mean: bool = attrs.field(validator=is_flag())
        >>> Sum("false")
        Traceback (most recent call last):
        ...
        ValueError: mean is 'false'; expected True or False
    """

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        if not isinstance(value, bool):
            raise ValueError(f"{field.name} is {value!r}; expected True or False")

    return check


def is_seed() -> Validator:
    """A whole number that can be part of a key, as an attrs validator.

    Examples:
        >>> @attrs.frozen
        ... class Draw:
        ...     seed: int = attrs.field(validator=is_seed())
        >>> Draw(-1)
        Traceback (most recent call last):
        ...
        ValueError: seed is -1; expected a whole number from 0 to 18446744073709551615
    """
    return is_whole(0, 2**64 - 1)


def is_whole(low: int | None = None, high: int | None = None) -> Validator:
    """`whole` as an attrs validator; the field then holds a plain int, whatever it was given.

    Examples:
        >>> @attrs.frozen
        ... class Point:
        ...     x: int = attrs.field(validator=is_whole(0))
        >>> Point(-1)
        Traceback (most recent call last):
        ...
        ValueError: x is -1; expected a whole number of at least 0
    """

    def check(instance: object, field: "attrs.Attribute[Any]", value: object) -> None:
        object.__setattr__(instance, field.name, whole(field.name, value, low=low, high=high))

    return check


def is_real(low: float | None = None) -> Validator:
    """`real` as an attrs validator; the field then holds a plain number.

    Examples:
        >>> @attrs.frozen
        ... class Point:
        ...     x: float = attrs.field(validator=is_real())
        >>> Point("near")
        Traceback (most recent call last):
        ...
        ValueError: x is 'near'; expected a finite number
    """

    def check(instance: object, field: "attrs.Attribute[Any]", value: object) -> None:
        object.__setattr__(instance, field.name, real(field.name, value, low=low))

    return check


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _bounds(low: float | None, high: float | None) -> str:
    if low is None:
        return ""
    return f" of at least {low}" if high is None else f" from {low} to {high}"
