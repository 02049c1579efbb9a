"""Moving tokens by torch's own calls: those that are fastest on a CPU for the shape.

Each is differentiable any number of times, and open to torch.compile and torch.func. None keeps `x` for the
backward pass, as `x.gather` would. Python that is left out here is time won where there is little to move.
"""

import torch

from dataeff.ops import _layout

_MANY = 2**16  # numbers moved, from which the backward pass of index_copy is faster than that of index_put


def gather(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """`reference.gather`, in the layout of `x`.

    Examples:
        >>> gather(torch.tensor([[10, 20, 30]]), torch.tensor([[0, 2]])).tolist()
        [[10, 30]]
    """
    if x.dtype in _layout.STORED_AS:
        return gather(_layout.stored(x), ids).view(x.dtype)
    batch, seq = x.shape[:2]
    if x.stride(0) == seq * x.stride(1) or batch == 1:  # the first two axes can be seen as one
        return _take(x.flatten(0, 1), _layout.places(ids, batch, seq))
    if _layout.is_sequence_major(x):
        x, ids = x.transpose(0, 1), ids.expand(batch, -1).t()
        rows = torch.arange(batch, device=ids.device)
        if x.stride(0) == batch * x.stride(1):
            return _take(x.flatten(0, 1), (ids * batch + rows).contiguous()).transpose(0, 1)
        return x[ids.contiguous(), rows].transpose(0, 1)
    return x[_layout.rows(ids, batch), ids]


def scatter(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """`reference.scatter`, in the layout of `x`.

    Examples:
        >>> scatter(torch.zeros(1, 3), torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]])).tolist()
        [[1.0, 0.0, 2.0]]
    """
    if x.dtype in _layout.STORED_AS:
        return scatter(_layout.stored(x), _layout.stored(y), ids).view(x.dtype)
    batch, seq = x.shape[:2]
    trained = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    if trained and y.numel() >= _MANY and x.stride(0) == seq * x.stride(1):
        places = _layout.places(ids.long(), batch, seq).view(-1)
        return x.flatten(0, 1).index_copy(0, places, y.flatten(0, 1)).view(x.shape)
    return x.index_put((_layout.rows(ids, batch), ids), y)


def write(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> None:
    """`reference.scatter` into `x` itself.

    Examples:
        >>> x = torch.zeros(1, 3)
        >>> write(x, torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]]))
        >>> x.tolist()
        [[1.0, 0.0, 2.0]]
    """
    if x.dtype in _layout.STORED_AS:
        x, y = _layout.stored(x), _layout.stored(y)
    x.index_put_((_layout.rows(ids, x.shape[0]), ids), y)


def _take(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(N, ...) and (I, J) -> (I, J, ...)."""
    if rows.dim() == 2 and not rows.is_complex():  # what torch.embedding knows: index_select in fewer calls
        return torch.embedding(rows, places)
    return rows.index_select(0, places.view(-1)).view(*places.shape, *rows.shape[1:])
