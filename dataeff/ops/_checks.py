"""What the token operations refuse, and in which words."""

import os
from collections.abc import Sequence

import torch

DEBUG = os.environ.get("DATAEFF_CHECK", "0") not in ("", "0")
"""Whether ids are looked at, too: sorted, distinct and in range. It waits for a CUDA device."""


KINDS = (torch.int32, torch.int64)
"""Dtypes of ids."""

_WEIGHTS = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}


def tokens(x: torch.Tensor, ids: torch.Tensor, batch_first: bool) -> None:
    """Raise ValueError unless `ids` can say which tokens of `x` are meant.

    Examples:
        >>> tokens(torch.zeros(2, 4), torch.zeros(3, 1).int(), True)
        Traceback (most recent call last):
        ...
        ValueError: ids has shape (3, 1), x (2, 4); expected ids (B, K) or (K,), and x (B, S, ...) with ...
    """
    axes = ids.dim()
    if x.dim() < 2 or not (axes == 1 or (axes == 2 and ids.shape[0] == x.shape[0 if batch_first else 1])):
        layout = "(B, S, ...)" if batch_first else "(S, B, ...)"
        raise ValueError(
            f"ids has shape {tuple(ids.shape)}, x {tuple(x.shape)}; expected ids (B, K) or (K,), and x "
            f"{layout} with the same B"
        )
    if ids.dtype not in KINDS:
        raise ValueError(f"ids is {ids.dtype}; expected int32 or int64, as sample_tokens gives")
    if ids.device != x.device:
        raise ValueError(
            f"ids is on {ids.device}, of shape {tuple(ids.shape)}, and x on {x.device}, of shape "
            f"{tuple(x.shape)}; expected the same device: ids.to(x.device)"
        )
    if DEBUG and _can_be_read(ids):
        _ids(ids, x.shape[1 if batch_first else 0])


def _can_be_read(ids: torch.Tensor) -> bool:
    """Whether it has values, here and now: not under a compiler, torch.func, or on the device meta."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return type(ids) is torch.Tensor and not ids.is_meta


def _ids(ids: torch.Tensor, seq: int) -> None:
    if not ids.numel():
        return
    low, high = ids.min().item(), ids.max().item()
    if low < 0 or high >= seq:
        raise ValueError(
            f"ids, of shape {tuple(ids.shape)}, go from {low} to {high}; expected them in [0, {seq}), "
            "the tokens that x has"
        )
    steps = ids.diff(dim=-1)
    if (wrong := (steps <= 0).nonzero()).numel():
        *row, k = wrong[0].tolist()
        of = ids[tuple(row)]
        what = "comes twice" if of[k] == of[k + 1] else f"comes before {of[k + 1].item()}"
        raise ValueError(
            f"ids, of shape {tuple(ids.shape)}, are not rising{f' in row {row[0]}' if row else ''}: "
            f"{of[k].item()} {what}; expected each token once and in order, as ids.sort(-1).values puts them"
        )


def replacement(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor, batch_first: bool) -> None:
    """Raise ValueError unless `y` can stand for the tokens `ids` of `x`.

    Examples:
        >>> replacement(torch.zeros(1, 4), torch.zeros(1, 3), torch.tensor([[0, 1]]), True)
        Traceback (most recent call last):
        ...
        ValueError: y is torch.float32 of shape (1, 3) on cpu; expected torch.float32 of shape (1, 2) ...
    """
    shape, own = x.shape, ids.shape
    if not 1 <= len(own) <= 2 <= len(shape):
        tokens(x, ids, batch_first)  # says what is wrong
    expected = (shape[0], own[-1], *shape[2:]) if batch_first else (own[-1], *shape[1:])
    if (
        y.shape == expected
        and (len(own) == 1 or own[0] == shape[0 if batch_first else 1])
        and x.is_cpu
        and y.is_cpu
        and ids.is_cpu
        and x.dtype == y.dtype
        and ids.dtype in KINDS
        and not DEBUG
    ):
        return  # all that follows holds; asking it again takes long beside a small move
    tokens(x, ids, batch_first)
    if y.shape != expected or y.dtype != x.dtype or y.device != x.device:
        raise ValueError(
            f"y is {y.dtype} of shape {tuple(y.shape)} on {y.device}; expected {x.dtype} of shape {expected} "
            f"on {x.device}, from ids, of shape {tuple(ids.shape)}, and x, of shape {tuple(shape)}"
        )


def apart(x: torch.Tensor) -> None:
    """Raise ValueError if several tokens of `x` are one in memory, so that none can be written to alone.

    Examples:
        >>> apart(torch.zeros(1, 4).expand(2, 4))
        Traceback (most recent call last):
        ...
        ValueError: x, of shape (2, 4), has strides (0, 1), so that entries share memory; expected ...
    """
    extent = 0  # of what lies within each axis
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride <= extent:
            raise ValueError(
                f"x, of shape {tuple(x.shape)}, has strides {x.stride()}, so that entries share memory; "
                "expected one that can be written to: x.clone(), or scatter_tokens, which makes a copy"
            )
        extent += (size - 1) * stride


def axes(x: torch.Tensor, ids: torch.Tensor, given: Sequence[int]) -> set[int]:
    """`given` counted from 0. ValueError unless they are axes of tokens of `x`.

    Examples:
        >>> axes(torch.zeros(1, 1, 4, 4), torch.tensor([[0, 2]]), (-1, -2))
        {2, 3}
        >>> axes(torch.zeros(3, 4), torch.tensor([[0, 2]]), (1,))
        Traceback (most recent call last):
        ...
        ValueError: ids has shape (1, 2), x (3, 4); expected ids (B, K), and x (1, ...) or (B, ...), or ...
    """
    if not given or not all(-x.dim() <= axis < x.dim() and axis % x.dim() for axis in given):
        raise ValueError(
            f"axes is {given!r}, of x of shape {tuple(x.shape)}; expected axes of tokens, after that of the "
            "batch"
        )
    if ids.dim() != 1 and (ids.dim() != 2 or x.shape[0] not in (1, ids.shape[0])):
        raise ValueError(
            f"ids has shape {tuple(ids.shape)}, x {tuple(x.shape)}; expected ids (B, K), and x "
            "(1, ...) or (B, ...), or ids (K,)"
        )
    found = {axis % x.dim() for axis in given}
    if len(sizes := {x.shape[axis] for axis in found}) > 1:
        raise ValueError(
            f"axes is {given!r}, on which x, of shape {tuple(x.shape)}, has {sorted(sizes)} tokens; expected "
            "as many on each"
        )
    rows = x.transpose(1, min(found))
    tokens(rows if ids.dim() == 1 else rows.expand(ids.shape[0], *[-1] * (x.dim() - 1)), ids, True)
    return found


def mask(name: str, given: torch.Tensor, batch: int, seq: int, device: torch.device) -> None:
    """Raise ValueError unless `given` says something of each token, for all rows or row by row.

    Examples:
        >>> mask("valid", torch.ones(3), 2, 3, torch.device("cpu"))
        Traceback (most recent call last):
        ...
        ValueError: valid is torch.float32 of shape (3,); expected bool of shape (3,) or (2, 3)
    """
    fits = given.dtype in _WEIGHTS if name == "weights" else given.dtype == torch.bool
    if not fits or tuple(given.shape) not in ((seq,), (batch, seq)):
        kind = "floats of 16 bits or more, or int64," if name == "weights" else "bool"
        raise ValueError(
            f"{name} is {given.dtype} of shape {tuple(given.shape)}; expected {kind} of shape ({seq},) or "
            f"({batch}, {seq})"
        )
    if str(device) == "cuda":  # the current one
        device = torch.device("cuda", torch.cuda.current_device())
    if given.device != device:
        raise ValueError(
            f"{name}, of shape {tuple(given.shape)}, is on {given.device}, and the ids are for {device}; "
            f"expected the same device: {name}.to({str(device)!r})"
        )


def drawable(keep: int, always: torch.Tensor | None, weights: torch.Tensor | None) -> None:
    """Raise ValueError if more than `keep` tokens are always kept, or a weight is no share.

    Examples:
        >>> drawable(1, torch.tensor([True, True]), None)
        Traceback (most recent call last):
        ...
        ValueError: always marks 2 tokens in a row and keep is 1; expected at most keep: keep more, or ...
    """
    if always is not None and always.numel() and (most := int(always.sum(-1).max())) > keep:
        raise ValueError(
            f"always marks {most} tokens in a row and keep is {keep}; expected at most keep: keep more, or "
            "mark fewer"
        )
    if weights is not None and not (fine := weights.isfinite() & (weights >= 0)).all():
        raise ValueError(
            f"weights, of shape {tuple(weights.shape)}, has {weights[~fine][0].item()}; expected finite "
            "numbers of at least 0"
        )
