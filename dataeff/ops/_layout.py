"""How rows of tokens lie in memory."""

from collections.abc import Sequence

import torch


def is_turned(x: torch.Tensor) -> bool:
    """Whether the second axis lies outside of the first in memory, as in (S, B, C) seen as (B, S, C).

    Examples:
        >>> is_turned(torch.zeros(3, 2, 4)), is_turned(torch.zeros(2, 3, 4).transpose(0, 1))
        (False, True)
    """
    return x.stride(0) < x.stride(1) and x.shape[0] > 1


def is_one(x: torch.Tensor) -> bool:
    """Whether the first two axes can be seen as one.

    Examples:
        >>> is_one(torch.zeros(3, 2, 4)), is_one(torch.zeros(3, 5, 4)[:, :2])
        (True, False)
    """
    return x.shape[0] == 1 or x.stride(0) == x.shape[1] * x.stride(1)


def may_share(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether numbers of `y` may be some of `x`: False is sure.

    Examples:
        >>> x = torch.zeros(2, 4)
        >>> may_share(x, x[:, 1:3]), may_share(x, torch.zeros(2, 2))
        (True, False)
    """
    try:
        begins, other = x.data_ptr(), y.data_ptr()
    except RuntimeError:  # they have no memory of their own, as those of torch.func
        return True
    if x.is_contiguous() and y.is_contiguous():
        return begins < other + y.nbytes and other < begins + x.nbytes
    return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def empty(x: torch.Tensor, keep: int) -> torch.Tensor:
    """Room for `keep` tokens a row of `x`, in the layout of `x`. (B, S, ...) -> (B, keep, ...).

    Examples:
        >>> empty(torch.zeros(3, 2, 4).transpose(0, 1), 5).stride()
        (4, 8, 1)
    """
    batch, rest = x.shape[0], x.shape[2:]
    if is_turned(x):
        return x.new_empty((keep, batch, *rest)).transpose(0, 1)
    return x.new_empty((batch, keep, *rest))


def places(ids: torch.Tensor, shape: Sequence[int], batch_first: bool) -> torch.Tensor:
    """`ids` (B, K) on the first two axes of `shape` as one: (B, K), or (K, B) for (S, B, ...).

    Examples:
        >>> places(torch.tensor([[0, 2], [1, 2]]), (2, 3), True).tolist()
        [[0, 2], [4, 5]]
        >>> places(torch.tensor([[0, 2], [1, 2]]), (3, 2), False).tolist()
        [[0, 3], [4, 5]]
    """
    if not batch_first:
        return torch.add(_rows(ids, batch_first), ids.t(), alpha=shape[1])
    return ids if shape[0] == 1 else torch.add(ids, _rows(ids, batch_first), alpha=shape[1])


def index(ids: torch.Tensor, batch_first: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """What picks the tokens `ids` (B, K) of (B, S, ...), or of (S, B, ...).

    Examples:
        >>> torch.eye(3)[index(torch.tensor([[0, 1], [1, 2]]), True)].tolist()
        [[1.0, 0.0], [1.0, 0.0]]
    """
    rows = _rows(ids, batch_first)
    return (rows, ids) if batch_first else (ids.t(), rows)


with torch.inference_mode(False):  # whoever imports it, autograd may keep them
    _NUMBERS = tuple(torch.arange(batch, device="cpu") for batch in range(65))
    _COLUMNS = tuple(numbers.unsqueeze(1) for numbers in _NUMBERS)


def _rows(ids: torch.Tensor, batch_first: bool) -> torch.Tensor:
    """The number of each row, on the device of `ids`. (B, 1), or (B,), int64.

    To make it takes as long as a small move; so those of usual batches are there, where they are seen by no
    compiler and no mode that wants tensors of its own.
    """
    batch = ids.shape[0]
    if (
        batch < len(_NUMBERS)
        and ids.is_cpu
        and type(ids) is torch.Tensor
        and not torch.compiler.is_compiling()
    ):
        return (_COLUMNS if batch_first else _NUMBERS)[batch]
    numbers = torch.arange(batch, device=ids.device)
    return numbers.unsqueeze(1) if batch_first else numbers


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
