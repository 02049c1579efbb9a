"""Batch to batch: cut to the length that the pace asks for."""

from collections.abc import Mapping
from typing import TypeVar, cast

import torch

from dataeff._check import whole

_Batch = TypeVar("_Batch")


def truncate(batch: _Batch, length: int) -> _Batch:
    """The first `length` tokens of every sample (`seqtru`); the batch itself if it is not longer.

    Tokens past `length` are dropped, not moved to another sample.

    Args:
        batch: a (B, S, ...) tensor, or a mapping of such tensors (`input_ids`, `attention_mask`, `labels`,
            `position_ids`); in a dict S is that of `input_ids`, and what has no such axis stays.
        length: of the sequence, at least 1.

    Raises:
        ValueError: a length that is not a whole number (give the pace `multiple=`), or a tensor whose
            sequence axis is not its second, by name.

    Examples:
        >>> truncate(torch.arange(10).reshape(2, 5), 3).tolist()
        [[0, 1, 2], [5, 6, 7]]
        >>> batch = {"input_ids": torch.zeros(2, 5), "domain": torch.zeros(2)}
        >>> {name: tuple(tensor.shape) for name, tensor in truncate(batch, 3).items()}
        {'input_ids': (2, 3), 'domain': (2,)}
    """
    if isinstance(length, float):
        raise ValueError(
            f"length is {length!r}; expected a whole number: "
            "give the pace multiple=, or wrap it in pacing.multiple"
        )
    whole("length", length, low=1)
    if isinstance(batch, torch.Tensor):
        return cast(_Batch, _cut("the batch", batch, batch.shape[1] if batch.dim() > 1 else None, length))
    if not isinstance(batch, Mapping) or not isinstance(batch.get("input_ids"), torch.Tensor):
        raise ValueError(
            f"cannot truncate a {type(batch).__name__}; expected a tensor or a dict with input_ids"
        )
    size = batch["input_ids"].shape[1] if batch["input_ids"].dim() > 1 else None
    cut = {
        name: _cut(name, value, size, length) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
    return cast(_Batch, type(batch)(cut))  # type: ignore[call-arg]


def _cut(name: str, tensor: torch.Tensor, size: int | None, length: int) -> torch.Tensor:
    if size is None:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected (samples, length, ...)")
    if size in tensor.shape[2:]:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}: which axis is the sequence? cut it beforehand"
        )
    return tensor[:, :length] if tensor.dim() > 1 and tensor.shape[1] == size else tensor
