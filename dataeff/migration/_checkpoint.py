"""Checkpoints of models whose layers DeepSpeed has wrapped."""

from collections.abc import Mapping
from typing import TypeVar

_WRAPPER = "random_ltd_layer"

Value = TypeVar("Value")


def unwrapped(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """A state dict with the names that the model's layers have without DeepSpeed's wrapper.

    In place of `layers.3.random_ltd_layer.weight` it has `layers.3.weight`; other names stay as they are, and
    so do all values and their order. A state dict of a plain model comes back unchanged.

    Raises:
        ValueError: two names become one.

    Source: DeepSpeed 0.19 wraps each layer that drops tokens in a module of its own.

    Examples:
        >>> unwrapped({"layers.3.random_ltd_layer.weight": 1, "head.weight": 2})
        {'layers.3.weight': 1, 'head.weight': 2}
    """
    plain: dict[str, Value] = {}
    for wrapped, value in state_dict.items():
        name = ".".join(part for part in wrapped.split(".") if part != _WRAPPER)
        if name in plain:
            raise ValueError(f"{wrapped!r} and another key both become {name!r}; expected only one of them")
        plain[name] = value
    return plain
