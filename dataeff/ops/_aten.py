"""Moving tokens by torch's own calls: those that are fastest on a CPU for the shape.

Each is differentiable any number of times, and open to torch.compile and torch.func.
"""

import torch

from dataeff.ops import _layout

_FEW = 2048  # numbers that are moved, below which the time is that of starting calls


def gather(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """`reference.gather`, in the layout of `x`.

    Examples:
        >>> gather(torch.tensor([[10, 20, 30]]), torch.tensor([[0, 2]])).tolist()
        [[10, 30]]
    """
    batch, keep, rest = x.shape[0], ids.shape[-1], x.shape[2:]
    if batch == 1:
        return x.squeeze(0).index_select(0, ids.view(-1)).unsqueeze(0)
    major = _layout.is_sequence_major(x)
    flat = _layout.flattened(x, major) if batch * keep * rest.numel() > _FEW else None
    if flat is None:  # and not x.gather, which keeps x for the backward pass
        ids = ids.expand(batch, -1)
        if major:
            return x.transpose(0, 1)[ids.t().contiguous(), _rows(ids, batch).t()].transpose(0, 1)
        return x[_rows(ids, batch), ids]
    moved = flat.index_select(0, _layout.positions(ids, batch, x.shape[1], major))
    return moved.view(keep, batch, *rest).transpose(0, 1) if major else moved.view(batch, keep, *rest)


def scatter(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """`reference.scatter`, in the layout of `x`.

    Examples:
        >>> scatter(torch.zeros(1, 3), torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]])).tolist()
        [[1.0, 0.0, 2.0]]
    """
    if (bits := _layout.storable(x)) is not x:
        return scatter(bits, _layout.storable(y), ids).view(x.dtype)
    batch, keep, rest = x.shape[0], ids.shape[-1], x.shape[2:]
    if batch == 1:
        return x.squeeze(0).index_copy(0, ids.view(-1).long(), y.squeeze(0)).unsqueeze(0)
    if batch * keep * rest.numel() <= _FEW:
        return x.scatter(1, _of_each(ids, batch, rest), y)
    major = _layout.is_sequence_major(x)
    flat = _layout.flattened(x, major)
    if flat is None:
        return x.index_put((_rows(ids, batch), ids.expand(batch, -1)), y)
    rows = (y.transpose(0, 1) if major else y).flatten(0, 1)
    out = flat.index_copy(0, _layout.positions(ids, batch, x.shape[1], major), rows)
    return out.view(x.shape[1], batch, *rest).transpose(0, 1) if major else out.view(x.shape)


def write(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> None:
    """`reference.scatter` into `x` itself.

    Examples:
        >>> x = torch.zeros(1, 3)
        >>> write(x, torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]]))
        >>> x.tolist()
        [[1.0, 0.0, 2.0]]
    """
    bits = _layout.storable(x)
    bits.index_put_((_rows(ids, x.shape[0]), ids.expand(x.shape[0], -1)), _layout.storable(y))


def _rows(ids: torch.Tensor, batch: int) -> torch.Tensor:
    return torch.arange(batch, device=ids.device).unsqueeze(1)


def _of_each(ids: torch.Tensor, batch: int, rest: torch.Size) -> torch.Tensor:
    """`ids` for every number of a token. (B, K, ...) int64, a view."""
    index = ids.long().view(ids.shape[:-1].numel(), ids.shape[-1], *[1] * len(rest))
    return index.expand(batch, -1, *rest)
