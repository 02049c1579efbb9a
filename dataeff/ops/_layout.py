"""How rows of tokens lie in memory."""

import torch


def is_sequence_major(x: torch.Tensor) -> bool:
    """Whether the tokens of different rows lie side by side, as in (S, B, C) seen as (B, S, C).

    Examples:
        >>> is_sequence_major(torch.zeros(3, 2, 4)), is_sequence_major(torch.zeros(2, 3, 4).transpose(0, 1))
        (False, True)
    """
    return x.stride(0) < x.stride(1) and x.shape[0] > 1


def empty(x: torch.Tensor, keep: int) -> torch.Tensor:
    """Room for `keep` tokens a row of `x`, in the layout of `x`. (B, S, ...) -> (B, keep, ...).

    Examples:
        >>> empty(torch.zeros(3, 2, 4).transpose(0, 1), 5).stride()
        (4, 8, 1)
    """
    batch, rest = x.shape[0], x.shape[2:]
    if is_sequence_major(x):
        return x.new_empty((keep, batch, *rest)).transpose(0, 1)
    return x.new_empty((batch, keep, *rest))


def places(ids: torch.Tensor, batch: int, seq: int) -> torch.Tensor:
    """`ids` as places on the first two axes of (B, S, ...) as one. (B, K) or (K,) -> (B, K).

    Examples:
        >>> places(torch.tensor([[0, 2], [1, 2]]), 2, 3).tolist()
        [[0, 2], [4, 5]]
    """
    if batch == 1:
        return ids if ids.dim() == 2 else ids.unsqueeze(0)
    return torch.add(ids, rows(ids, batch), alpha=seq)


with torch.inference_mode(False):  # whoever imports it, autograd may keep them
    _ROWS = tuple(torch.arange(batch, device="cpu").unsqueeze(1) for batch in range(65))


def rows(ids: torch.Tensor, batch: int) -> torch.Tensor:
    """The number of each row, beside `ids` on their device. (batch, 1) int64.

    To make it takes as long as a small move; so those of usual batches are there, where they are seen by no
    compiler and no mode that wants tensors of its own.

    Examples:
        >>> rows(torch.tensor([[0, 2], [1, 2]]), 2).tolist()
        [[0], [1]]
    """
    if batch < len(_ROWS) and ids.is_cpu and type(ids) is torch.Tensor and not torch.compiler.is_compiling():
        return _ROWS[batch]
    return torch.arange(batch, device=ids.device).unsqueeze(1)


STORED_AS = {
    torch.float8_e4m3fn: torch.int8,
    torch.float8_e4m3fnuz: torch.int8,
    torch.float8_e5m2: torch.int8,
    torch.float8_e5m2fnuz: torch.int8,
    torch.uint16: torch.int16,
    torch.uint32: torch.int32,
    torch.uint64: torch.int64,
} | ({torch.float8_e8m0fnu: torch.int8} if hasattr(torch, "float8_e8m0fnu") else {})
"""Dtypes that torch cannot copy everywhere, and those of the same size that it can."""


def stored(x: torch.Tensor) -> torch.Tensor:
    """The bits of `x`, of one of those dtypes.

    Examples:
        >>> stored(torch.zeros(2).to(torch.float8_e4m3fn)).dtype
        torch.int8
    """
    return x.view(STORED_AS[x.dtype])
