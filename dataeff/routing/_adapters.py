"""What travels with a token: the tensors aligned to tokens that a layer takes beside the hidden states."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def gather_axes(tensor: torch.Tensor, ids: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """`tensor` with only the tokens `ids` along each of `axes`. (1 or B, ...), (B, K) -> (B, ...).

    Axis 0 is the batch; a single row serves all of them.

    Examples:
        >>> causal = torch.ones(4, 4).tril().bool()[None, None]  # (1, 1, S, S)
        >>> gather_axes(causal, torch.tensor([[0, 2]]), (-2, -1)).int().tolist()
        [[[[1, 0], [1, 1]]]]
    """
    rows = ids.shape[0]
    tensor = tensor.expand(rows, *tensor.shape[1:])
    for axis in axes:
        shape = [1] * tensor.dim()
        shape[0], shape[axis] = ids.shape
        tensor = torch.take_along_dim(tensor, ids.long().view(shape), dim=axis)
    return tensor


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
    if name in token_args and value is not None:
        declared = token_args[name]
        axes = (declared,) if isinstance(declared, int) else tuple(declared)
        if not isinstance(value, torch.Tensor):
            return type(value)(travel(name, each, ids, seq, token_args) for each in value)
        fits = all(-value.dim() <= axis < value.dim() and value.shape[axis] == seq for axis in axes)
        if (
            not fits
            or value.shape[0] not in (1, ids.shape[0])
            or any(axis % value.dim() == 0 for axis in axes)
        ):
            raise ValueError(
                f"token_args declares {name!r} aligned to tokens on {axes}, but it has shape "
                f"{tuple(value.shape)}; expected (1 or {ids.shape[0]}, ...) with {seq} on those axes"
            )
        return gather_axes(value, ids, axes)
    for tensor in value if isinstance(value, tuple | list) else [value]:
        if isinstance(tensor, torch.Tensor) and seq in tensor.shape:
            axes = tuple(axis - tensor.dim() for axis, size in enumerate(tensor.shape) if size == seq)
            raise ValueError(
                f"the argument {name!r} has shape {tuple(tensor.shape)} and looks aligned to the {seq} "
                f"tokens; declare its token axes, as in attach(..., token_args={{{name!r}: {axes}}}), "
                "or () if it is not aligned"
            )
    return value
