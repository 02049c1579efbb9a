"""The hidden states in what a layer returns: alone, or in a tuple, a mapping or a dataclass."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dataeff.routing._adapters import with_attributes
from dataeff.routing._given import Moved


def hidden_of(output: Any, at: int | str = 0) -> torch.Tensor | None:
    """The hidden states that a layer returns, or None if they do not stand where they should.

    Examples:
        >>> hidden_of((torch.ones(2), "cache"))
        tensor([1., 1.])
        >>> hidden_of(("text", torch.ones(2)), 1), hidden_of({"x": torch.ones(2)}, "x")
        (tensor([1., 1.]), tensor([1., 1.]))
    """
    if isinstance(output, torch.Tensor):
        return output
    place = _place(output, at)
    hidden = None if place is None else _parts(output)[place]
    return hidden if isinstance(hidden, torch.Tensor) else None


def with_hidden(output: Any, hidden: torch.Tensor, moved: Sequence[Moved] = (), at: int | str = 0) -> Any:
    """`output` with other hidden states.

    Where the layer hands on one of its arguments, as T5's do with their bias, what was moved is as before.

    Examples:
        >>> with_hidden((torch.zeros(1), 3), torch.ones(1))
        (tensor([1.]), 3)
    """
    if isinstance(output, torch.Tensor):
        return hidden
    place = _place(output, at)
    parts = [hidden if i == place else _before(part, moved) for i, part in enumerate(_parts(output))]
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*parts)
    if isinstance(output, tuple | list):
        return type(output)(parts)
    named = dict(zip(_names(output), parts, strict=True))
    if not isinstance(output, Mapping):
        return with_attributes(output, named)
    changed: Any = copy.copy(output)
    for name, part in named.items():
        changed[name] = part
    return changed


def _place(output: Any, at: int | str) -> int | None:
    """Which part of `output` is meant, from 0; None if it is not there."""
    names, parts = _names(output), len(_parts(output))
    if isinstance(at, str):
        return names.index(at) if at in names else None
    return at % parts if -parts <= at < parts else None


def _before(part: Any, moved: Sequence[Moved]) -> Any:
    return next((own.before for own in moved if part is own.after), part)


def _names(output: Any) -> list[str]:
    if isinstance(output, Mapping):
        return list(output)
    if isinstance(output, tuple):
        return list(getattr(output, "_fields", ()))
    return [field.name for field in dataclasses.fields(output)] if dataclasses.is_dataclass(output) else []


def _parts(output: Any) -> list[Any]:
    if isinstance(output, tuple | list):
        return list(output)
    get = output.__getitem__ if isinstance(output, Mapping) else lambda name: getattr(output, name)
    return [get(name) for name in _names(output)]
