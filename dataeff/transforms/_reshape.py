"""Split: every sample into pieces, so that no token is lost."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch.nn import functional

from dataeff._check import whole
from dataeff.transforms._batch import checked_length, replaced, tensors

_Batch = TypeVar("_Batch")
_PADDING = {"input_ids": 0, "attention_mask": 0, "labels": -100, "position_ids": 0}


def reshape(
    batch: _Batch, length: int, *, overlap: int = 0, padding: float | Mapping[str, float] | None = None
) -> _Batch:
    """Every sample in pieces of `length` tokens, one row each (`seqres`); as it is if it is not longer.

    No token is lost: rows grow in number as they shrink in length. With `overlap=1` a piece begins with the
    last token of the one before, so that where S + 1 ids make S inputs and S targets every target stays.
    The last piece is filled up where the pieces do not come out even.

    Args:
        batch: a (B, S, ...) tensor, or a mapping with `input_ids`, as for `truncate`. What has a row a sample
            but no sequence axis is repeated for each of its pieces.
        length: of a piece, at least 1.
        overlap: how many tokens two neighbours share, below `length`.
        padding: what fills the last piece: a number, or a number for each name. By default, in a dict with
            `attention_mask` or `labels`: 0, and -100 for `labels`.

    Returns:
        (B * pieces, length, ...): the pieces of the first sample, then those of the second, and so on.

    Raises:
        ValueError: a last piece would need filling and nothing says with what; and as for `truncate`.

    Examples:
        >>> reshape(torch.arange(12).reshape(2, 6), 3).tolist()
        [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
        >>> reshape(torch.arange(5).reshape(1, 5), 3, overlap=1).tolist()
        [[0, 1, 2], [2, 3, 4]]
        >>> batch = {"input_ids": torch.ones(1, 5, dtype=int), "labels": torch.ones(1, 5, dtype=int)}
        >>> reshape(batch, 3)["labels"].tolist()
        [[1, 1, 1], [1, 1, -100]]
    """
    checked_length(length)
    whole("overlap", overlap, low=0, high=length - 1)
    aligned = tensors(batch, "reshape")
    rows, size = (batch if isinstance(batch, torch.Tensor) else cast(Any, batch)["input_ids"]).shape[:2]
    if size <= length:
        return batch
    pieces = -(-(size - overlap) // (length - overlap))
    missing = pieces * (length - overlap) + overlap - size
    split = {
        name: _pieces(
            functional.pad(
                tensor.expand(rows, *tensor.shape[1:]),
                (0, 0) * (tensor.dim() - 2) + (0, missing),
                value=_fill(name, aligned, padding, size, length) if missing else 0,
            ),
            length,
            length - overlap,
        )
        for name, tensor in aligned.items()
    }
    if isinstance(batch, torch.Tensor):
        return cast(_Batch, replaced(batch, split))
    others = {name: value for name, value in cast(Any, batch).items() if name not in aligned}
    return cast(_Batch, replaced(batch, split | {n: _repeated(v, rows, pieces) for n, v in others.items()}))


def _pieces(tensor: torch.Tensor, length: int, step: int) -> torch.Tensor:
    return tensor.unfold(1, length, step).movedim(-1, 2).flatten(0, 1)  # (B, pieces, ..., length)


def _fill(
    name: str,
    aligned: Mapping[str, torch.Tensor],
    padding: float | Mapping[str, float] | None,
    size: int,
    length: int,
) -> float:
    if padding is not None and not isinstance(padding, Mapping):
        return padding
    known = dict(padding or {})
    if "attention_mask" in aligned or "labels" in aligned:
        known = _PADDING | known
    if name not in known:
        raise ValueError(
            f"{name}: {size} tokens in pieces of {length} leave a last one that is not full; give padding= "
            "(a number, or one for each name), or a length that comes out even"
        )
    return known[name]


def _repeated(value: Any, rows: int, pieces: int) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() and len(value) == rows:
        return value.repeat_interleave(pieces, 0)
    if isinstance(value, list | tuple) and len(value) == rows and not hasattr(value, "_fields"):
        return type(value)(item for item in value for _ in range(pieces))
    return value
