"""The hidden states in what a layer returns: alone, or first in a tuple, a mapping or a dataclass."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dataeff.routing._given import Moved


def hidden_of(output: Any) -> torch.Tensor | None:
    """The hidden states that a layer returns, or None if they are not where they should be.

    Examples:
        >>> hidden_of((torch.ones(2), "cache"))
        tensor([1., 1.])
    """
    if isinstance(output, torch.Tensor):
        return output
    first = next(iter(_parts(output)), None)
    return first if isinstance(first, torch.Tensor) else None


def with_hidden(output: Any, hidden: torch.Tensor, moved: Sequence[Moved] = ()) -> Any:
    """`output` with other hidden states.

    Where the layer hands on one of its arguments, as T5's do with their bias, what was moved is as before.

    Examples:
        >>> with_hidden((torch.zeros(1), 3), torch.ones(1))
        (tensor([1.]), 3)
    """
    if isinstance(output, torch.Tensor):
        return hidden
    _, *others = _parts(output)
    parts = [hidden, *(_before(part, moved) for part in others)]
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*parts)
    if isinstance(output, tuple | list):
        return type(output)(parts)
    changed = copy.copy(output)
    for name, part in zip(_names(output), parts, strict=True):
        if isinstance(output, Mapping):
            changed[name] = part
        else:
            object.__setattr__(changed, name, part)
    return changed


def _before(part: Any, moved: Sequence[Moved]) -> Any:
    return next((own.before for own in moved if part is own.after), part)


def _names(output: Any) -> list[str]:
    if isinstance(output, Mapping):
        return list(output)
    return [field.name for field in dataclasses.fields(output)] if dataclasses.is_dataclass(output) else []


def _parts(output: Any) -> list[Any]:
    if isinstance(output, tuple | list):
        return list(output)
    get = output.__getitem__ if isinstance(output, Mapping) else lambda name: getattr(output, name)
    return [get(name) for name in _names(output)]
