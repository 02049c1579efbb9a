"""Checkpoints of models whose layers DeepSpeed has wrapped."""

from collections.abc import Mapping
from typing import Any

_WRAPPER = "random_ltd_layer"


def unwrapped(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict with the names that the model's layers have without DeepSpeed's wrapper.

    In place of `layers.3.random_ltd_layer.weight` it has `layers.3.weight`; other names stay as they are, and
    so do all values and their order. Mappings inside, as `{"model": state_dict}` of a checkpoint, are
    unwrapped, too. A state dict of a plain model comes back unchanged.

    Raises:
        ValueError: two names become one.

    Source: DeepSpeed 0.19 wraps each layer that drops tokens in a module of its own.

    Examples:
        >>> unwrapped({"layers.3.random_ltd_layer.weight": 1, "head.weight": 2})
        {'layers.3.weight': 1, 'head.weight': 2}
        >>> unwrapped({"model": {"layers.3.random_ltd_layer.weight": 1}, "step": 7})
        {'model': {'layers.3.weight': 1}, 'step': 7}
    """
    plain: dict[str, Any] = {}
    for wrapped, value in state_dict.items():
        name = _plain(wrapped)
        if name in plain:
            raise ValueError(f"{wrapped!r} and another key both become {name!r}; expected only one of them")
        plain[name] = unwrapped(value) if isinstance(value, Mapping) else value
    return plain


def _plain(name: Any) -> Any:
    """Keys that are no names, as the numbers in an optimizer's state, stay."""
    if not isinstance(name, str):
        return name
    return ".".join(part for part in name.split(".") if part != _WRAPPER)
