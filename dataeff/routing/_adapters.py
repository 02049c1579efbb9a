"""What travels with a token: the tensors aligned to tokens that a layer takes beside the hidden states."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dataeff import ops


def travel(
    name: str, value: Any, ids: torch.Tensor, seq: int, token_args: Mapping[str, int | Sequence[int]]
) -> Any:
    """The argument `name` of a layer as the kept tokens need it.

    Raises ValueError for a tensor with an axis of length `seq` that `token_args` does not declare, and for
    a declaration that does not fit the tensor.

    Examples:
        >>> travel("position_ids", torch.arange(4)[None], torch.tensor([[0, 2]]), 4, {"position_ids": 1})
        tensor([[0, 2]])
    """
    if isinstance(value, tuple | list):  # rotary (cos, sin), say
        return tuple(travel(name, each, ids, seq, token_args) for each in value)
    if isinstance(value, Mapping):
        return {key: travel(name, each, ids, seq, token_args) for key, each in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    if name not in token_args:
        if seq not in value.shape:
            return value
        looks = tuple(axis - value.dim() for axis, size in enumerate(value.shape) if size == seq)
        raise ValueError(
            f"the argument {name!r} has shape {tuple(value.shape)} and looks aligned to the {seq} tokens; "
            f"declare its token axes, as in attach(..., token_args={{{name!r}: {looks}}}), or () if it is not"
            + ("" if value.shape[0] in (1, ids.shape[0]) else "; and give it a batch axis, as [None] does")
        )
    declared = token_args[name]
    axes = (declared,) if isinstance(declared, int) else tuple(declared)
    if axes and not _fits(value, axes, ids.shape[0], seq):
        raise ValueError(
            f"token_args declares {name!r} aligned to tokens on {axes}, but it has shape "
            f"{tuple(value.shape)}; expected {seq} on those axes, after a batch axis of 1 or {ids.shape[0]} "
            "(value[None] gives it one)"
        )
    return ops.gather_axes(value, ids, axes) if axes else value


def _fits(value: torch.Tensor, axes: Sequence[int], batch: int, seq: int) -> bool:
    within = all(-value.dim() < axis < value.dim() and axis != 0 for axis in axes)
    return within and value.shape[0] in (1, batch) and all(value.shape[axis] == seq for axis in axes)
