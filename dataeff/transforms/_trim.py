"""Trim: a padded batch to its longest sample."""

from typing import Any, TypeVar, cast

import torch
from torch import distributed

from dataeff._check import whole
from dataeff.transforms._batch import replaced, tensors

_Batch = TypeVar("_Batch")


def trim_to_longest(batch: _Batch, *, multiple: int = 8, padding: float | None = None) -> _Batch:
    """The batch without the padding that all its samples share (`seqreo`), rounded up to a multiple.

    With samples in order of length, early batches are short. Padding may be on the right or on the left.
    Where torch.distributed is initialised, the longest sample of all ranks counts, so that they run the same
    shapes: then every rank must call this at each step, in the training loop and not in a loader's worker.

    Args:
        batch: a mapping with `input_ids` and a (B, S) `attention_mask`; or a (B, S) tensor with `padding`.
        multiple: the length is rounded up to a multiple of this, as far as there are tokens.
        padding: in a tensor, the id that stands for none.

    Raises:
        ValueError: nothing says what is padding; and as for `truncate`.

    Examples:
        >>> batch = {"input_ids": torch.ones(2, 8), "attention_mask": torch.tensor([[1] * 3 + [0] * 5] * 2)}
        >>> trim_to_longest(batch, multiple=4)["input_ids"].shape
        torch.Size([2, 4])
    """
    whole("multiple", multiple, low=1)
    aligned = tensors(batch, "trim")
    used = torch.nonzero(_mask(batch, padding).any(0)).flatten()
    size = next(iter(aligned.values())).shape[1]
    on_left = len(used) > 0 and int(used[-1]) == size - 1 and int(used[0]) > 0
    needed = (size - int(used[0]) if on_left else int(used[-1]) + 1) if len(used) else 1
    length = min(size, -(-_of_all_ranks(needed, used.device) // multiple) * multiple)
    kept = slice(size - length, None) if on_left else slice(length)
    return cast(_Batch, replaced(batch, {name: tensor[:, kept] for name, tensor in aligned.items()}))


def _mask(batch: Any, padding: float | None) -> torch.Tensor:
    if padding is not None:
        ids = batch if isinstance(batch, torch.Tensor) else batch["input_ids"]
        if ids.dim() != 2:
            raise ValueError(
                f"padding= tells it from ids of shape {tuple(ids.shape)}; expected (samples, length): give a "
                "mapping with an attention_mask instead"
            )
        return cast(torch.Tensor, ids != padding)
    mask = None if isinstance(batch, torch.Tensor) else batch.get("attention_mask")
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2:
        raise ValueError("nothing says what is padding: give padding=, the id that stands for none")
    return mask != 0


def _of_all_ranks(length: int, device: torch.device) -> int:
    if not (distributed.is_available() and distributed.is_initialized()):
        return length
    longest = torch.tensor(length, device=device)
    distributed.all_reduce(longest, distributed.ReduceOp.MAX)
    return int(longest)
