"""Cut: every sample to its first tokens."""

from typing import TypeVar, cast

from dataeff.transforms._batch import checked_length, replaced, tensors

_Batch = TypeVar("_Batch")


def truncate(batch: _Batch, length: int) -> _Batch:
    """The first `length` tokens of every sample (`seqtru`); as it is if it is not longer.

    Tokens past `length` are dropped, not moved to another sample.

    Args:
        batch: a (B, S, ...) tensor, or a mapping of such tensors (`input_ids`, `attention_mask`, `labels`,
            `position_ids`); in a dict S is that of `input_ids`, and what has no such axis stays.
        length: of the sequence, at least 1.

    Raises:
        ValueError: a length that is not a whole number (give the pace `multiple=`), or a tensor whose
            sequence axis is not its second, by name.

    Examples:
        >>> import torch
        >>> truncate(torch.arange(10).reshape(2, 5), 3).tolist()
        [[0, 1, 2], [5, 6, 7]]
        >>> batch = {"input_ids": torch.zeros(2, 5), "domain": torch.zeros(2)}
        >>> {name: tuple(tensor.shape) for name, tensor in truncate(batch, 3).items()}
        {'input_ids': (2, 3), 'domain': (2,)}
    """
    checked_length(length)
    cut = {name: tensor[:, :length] for name, tensor in tensors(batch, "truncate").items()}
    return cast(_Batch, replaced(batch, cut))
