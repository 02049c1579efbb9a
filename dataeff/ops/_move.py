"""Moving tokens: gather, scatter, scatter in place, and along several axes."""

from collections.abc import Sequence

import torch

from dataeff.ops import _aten, _checks, _layout, _library


def gather_tokens(x: torch.Tensor, ids: torch.Tensor, *, batch_first: bool = True) -> torch.Tensor:
    """The tokens `ids` of each row. (B, S, ...) and (B, K), or (K,) for all rows -> (B, K, ...).

    Of any dtype, and any strides; the result lies in memory as `x` does. The gradient puts each token's back
    where it came from. On CUDA one Triton kernel, `torch.ops.dataeff.gather_tokens`; on the CPU the calls of
    torch that are fastest for the shape, which a compiler sees through.

    Args:
        x: (B, S, ...), or (S, B, ...) without `batch_first`.
        ids: int32 or int64, rising in each row, as `sample_tokens` gives them.
        batch_first: whether the batch is the first axis of `x` and of the result, the tokens the second.

    Raises:
        ValueError: shapes, an id dtype or devices that do not fit; with DATAEFF_CHECK=1 in the environment
            also ids out of range, unsorted or duplicate.

    Examples:
        >>> gather_tokens(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0, 2]]))
        tensor([[1., 3.]])
    """
    if _is_one_call(x, ids):
        try:
            return x.index_select(1 if batch_first else 0, ids)
        except (RuntimeError, IndexError):
            pass  # what is wrong is told below
    _checks.tokens(x, ids, batch_first)
    if not (x.is_cuda and _for_kernels(x)):
        return _aten.gather(x, ids, batch_first)
    moved: torch.Tensor = torch.ops.dataeff.gather_tokens(_turned(x, batch_first), ids)
    return _turned(moved, batch_first)


def scatter_tokens(
    x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor, *, batch_first: bool = True
) -> torch.Tensor:
    """`x` with `y` in place of the tokens `ids`. (B, S, ...), (B, K, ...), (B, K) or (K,) -> (B, S, ...).

    The inverse of `gather_tokens`: `scatter_tokens(x, gather_tokens(x, ids), ids)` equals `x`. `x` is not
    changed. The gradient of a token goes to `y` where it was put there, to `x` elsewhere.

    Args:
        x: (B, S, ...), or (S, B, ...) without `batch_first`.
        y: (B, K, ...), or (K, B, ...); of the dtype of `x`.
        ids: int32 or int64, rising in each row, as `sample_tokens` gives them.
        batch_first: whether the batch is the first axis of `x`, `y` and the result, the tokens the second.

    Raises:
        ValueError: as `gather_tokens`, and for a `y` of another shape, dtype or device.

    Examples:
        >>> scatter_tokens(torch.zeros(1, 3), torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]]))
        tensor([[1., 0., 2.]])
    """
    _checks.replacement(x, y, ids, batch_first)
    if not (x.is_cuda and _for_kernels(x)):
        return _aten.scatter(x, y, ids, batch_first)
    moved: torch.Tensor = torch.ops.dataeff.scatter_tokens(
        _turned(x, batch_first), _turned(y, batch_first), ids
    )
    return _turned(moved, batch_first)


def scatter_tokens_(
    x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor, *, batch_first: bool = True
) -> torch.Tensor:
    """`scatter_tokens` into `x` itself, which it returns: only the tokens `ids` are written, no copy is made.

    To autograd it is what any in-place operation is: a leaf that requires a gradient is refused, and so is
    the backward pass of an operation that kept `x` as it was before.

    `y` may be a part of `x`. Raises ValueError, as `scatter_tokens` does, and for an `x` of which entries
    share memory.

    Examples:
        >>> x = torch.zeros(1, 3)
        >>> scatter_tokens_(x, torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]])) is x
        True
        >>> x
        tensor([[1., 0., 2.]])
    """
    compiling = torch.compiler.is_compiling()
    if (
        _is_one_call(x, ids)
        and ids.dtype in _checks.KINDS
        and x.dim() == y.dim()
        and not (compiling or _layout.may_share(x, y))
    ):
        try:
            return x.index_copy_(1 if batch_first else 0, ids.long(), y)
        except (RuntimeError, IndexError):
            pass
    _checks.replacement(x, y, ids, batch_first)
    if not x.is_contiguous():
        _checks.apart(x)
    if not compiling and _layout.may_share(x, y):
        y = y.clone()  # else some of it could be written over before it is read
    if x.is_cuda and _for_kernels(x) and not compiling:
        _library.Write.apply(_turned(x, batch_first), _turned(y, batch_first), ids)  # type: ignore[no-untyped-call]
    else:
        _aten.write(x, y, ids, batch_first)
    return x


def gather_axes(x: torch.Tensor, ids: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """`x` with only the tokens `ids` along each of `axes`: an attention mask, say. (1 or B, ...) -> (B, ...).

    One indexing call that reads what it needs: nothing is expanded, and no axis is cut before the other.

    Args:
        x: with a batch axis before all others, on which a single row serves all rows of `ids`; with ids
            (K,) it stays as it is.
        ids: (B, K), or (K,) for all rows; int32 or int64.
        axes: which axes of `x` are tokens; not the batch axis.

    Raises:
        ValueError: shapes, axes or devices that do not fit.

    Examples:
        >>> causal = torch.ones(4, 4).tril().bool()[None, None]  # (1, 1, S, S)
        >>> gather_axes(causal, torch.tensor([[0, 2]]), (-2, -1)).int().tolist()
        [[[[1, 0], [1, 1]]]]
        >>> gather_axes(torch.arange(8.0).view(1, 4, 2), torch.tensor([[0, 2], [1, 3]]), (1,)).tolist()
        [[[0.0, 1.0], [4.0, 5.0]], [[2.0, 3.0], [6.0, 7.0]]]
    """
    tokens = _checks.axes(x, ids, axes)
    ids = ids.long()
    if ids.dim() == 1:
        for axis in tokens:
            x = x.index_select(axis, ids)
        return x
    if tokens == {1}:
        return x[0][ids] if x.shape[0] == 1 else gather_tokens(x, ids)
    last = max(tokens)
    where = []  # an index for each axis up to the last of tokens; the rest is taken whole
    for axis in range(last + 1):
        view = [1] * (last + 1)
        view[axis] = -1
        if axis in tokens:
            view[0] = ids.shape[0]
            where.append(ids.view(view))
        else:
            where.append(torch.arange(x.shape[axis], device=x.device).view(view))
    return x[tuple(where)]


def _is_one_call(x: torch.Tensor, ids: torch.Tensor) -> bool:
    """Whether one call of torch's does it, which refuses what ours would: checks take long beside it."""
    return ids.dim() == 1 < x.dim() and x.is_cpu and ids.is_cpu and x.is_contiguous() and not _checks.DEBUG


def _turned(x: torch.Tensor, batch_first: bool) -> torch.Tensor:
    return x if batch_first else x.transpose(0, 1)


def _for_kernels(x: torch.Tensor) -> bool:
    """Whether to call the operators on CUDA: not under torch.func, which knows torch's own calls.

    Nor for what is conjugated or negated when it is read.
    """
    if torch.compiler.is_compiling():
        return True
    return not (torch._C._are_functorch_transforms_active() or x.is_conj() or x.is_neg())
