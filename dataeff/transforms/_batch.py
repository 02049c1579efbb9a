"""What a batch may be: a tensor of token ids, or a mapping of tensors with `input_ids`."""

import copy
from collections.abc import Mapping
from typing import Any

import torch

from dataeff._check import no_count, whole


def checked_length(length: object) -> int:
    """A sequence length of at least 1. ValueError for a float, as a pace without `multiple=` gives.

    Examples:
        >>> checked_length(16)
        16
    """
    if isinstance(length, float):
        raise no_count(f"length is {length!r}")
    return whole("length", length, low=1)


def tensors(batch: Any, verb: str) -> dict[str, torch.Tensor]:
    """The tensors of a batch that have a sequence axis, by name; it is their second.

    Raises ValueError for what is no batch, or where another axis might be the sequence too.

    Examples:
        >>> list(tensors({"input_ids": torch.zeros(2, 5), "domain": torch.zeros(2)}, "truncate"))
        ['input_ids']
    """
    if isinstance(batch, torch.Tensor):
        found, ids = {"the batch": batch}, batch
    elif isinstance(batch, Mapping) and isinstance(batch.get("input_ids"), torch.Tensor):
        found = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
        ids = batch["input_ids"]
    else:
        raise ValueError(
            f"cannot {verb} a {type(batch).__name__}; expected a tensor or a dict with input_ids"
        )
    for name, tensor in found.items():
        if ids.dim() < 2:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected (samples, length, ...)")
        if ids.shape[1] in tensor.shape[2:]:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}: which axis is the sequence? cut it beforehand"
            )
    return {name: own for name, own in found.items() if own.dim() > 1 and own.shape[1] == ids.shape[1]}


def replaced(batch: Any, changed: Mapping[str, Any]) -> Any:
    """The batch with other values under these names.

    Examples:
        >>> replaced({"input_ids": 1, "domain": 2}, {"input_ids": 3})
        {'input_ids': 3, 'domain': 2}
    """
    if isinstance(batch, torch.Tensor):
        return next(iter(changed.values()))
    if isinstance(batch, dict):  # a defaultdict is not made of a dict alone
        other = copy.copy(batch)
        other.update(changed)
        return other
    return type(batch)({**batch, **changed})
