"""Moving tokens by torch's own calls: those that are fastest on a CPU for the shape.

Each is differentiable any number of times, and open to torch.compile and torch.func. None keeps `x` for the
backward pass, as `x.gather` would. Python that is left out here is time won where there is little to move.
"""

import torch

from dataeff.ops import _layout

_MANY = 2**16  # numbers moved, from which index_copy and index_select train faster than their kin
_MORE = 2**18  # from which index_copy_ is about as fast as indexing, and faster where tokens come first


def gather(x: torch.Tensor, ids: torch.Tensor, batch_first: bool = True) -> torch.Tensor:
    """`reference.gather`, in the layout of `x`.

    Examples:
        >>> gather(torch.tensor([[10, 20, 30]]), torch.tensor([[0, 2]])).tolist()
        [[10, 30]]
    """
    if x.dtype in _layout.STORED_AS:
        return gather(_layout.stored(x), ids, batch_first).view(x.dtype)
    if not x.is_contiguous() and _turns(x):
        return gather(x.transpose(0, 1), ids, not batch_first).transpose(0, 1)
    if ids.dim() == 1:
        return x.index_select(1 if batch_first else 0, ids)
    if _layout.is_one(x):
        return _take(x.flatten(0, 1), _layout.places(ids, x.shape, batch_first))
    outer, inner = _layout.index(ids, batch_first)
    return x[outer.contiguous(), inner]  # in the order of memory


def scatter(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor, batch_first: bool = True) -> torch.Tensor:
    """`reference.scatter`; rows, or places, lie together as in `x`.

    Examples:
        >>> scatter(torch.zeros(1, 3), torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]])).tolist()
        [[1.0, 0.0, 2.0]]
    """
    if x.dtype in _layout.STORED_AS:
        return scatter(_layout.stored(x), _layout.stored(y), ids, batch_first).view(x.dtype)
    if not x.is_contiguous() and _turns(x):
        return scatter(x.transpose(0, 1), y.transpose(0, 1), ids, not batch_first).transpose(0, 1)
    if ids.dim() == 1:
        return x.index_copy(1 if batch_first else 0, ids.long(), y)
    trains = x.requires_grad or y.requires_grad
    if trains and y.numel() >= _MANY and _layout.is_one(x):
        return x.flatten(0, 1).index_copy(0, *_flat(x, y, ids, batch_first)).view(x.shape)
    return x.index_put(_layout.index(ids, batch_first), y)


def write(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor, batch_first: bool = True) -> None:
    """`reference.scatter` into `x` itself.

    Examples:
        >>> x = torch.zeros(1, 3)
        >>> write(x, torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]]))
        >>> x.tolist()
        [[1.0, 0.0, 2.0]]
    """
    if x.dtype in _layout.STORED_AS:
        x, y = _layout.stored(x), _layout.stored(y)
    if ids.dim() == 1:
        x.index_copy_(1 if batch_first else 0, ids.long(), y)
    elif y.numel() >= _MORE and not (x.requires_grad or y.requires_grad) and _layout.is_one(x):
        x.flatten(0, 1).index_copy_(0, *_flat(x, y, ids, batch_first))
    else:
        x.index_put_(_layout.index(ids, batch_first), y)


def _flat(
    x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor, batch_first: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where `y` goes among the tokens of `x` in one line, and `y` in such a line: (I,) int64 and (I, ...)."""
    return _layout.places(ids, x.shape, batch_first).flatten().long(), y.flatten(0, 1)


def _turns(x: torch.Tensor) -> bool:
    """Whether to work on the axes in the order of memory; a compiler finds its own."""
    return not torch.compiler.is_compiling() and _layout.is_turned(x)


def _take(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(N, ...) and (I, J) -> (I, J, ...)."""
    many = rows.requires_grad and places.numel() * rows.shape[-1] >= _MANY  # its gradient is slower there
    if rows.dim() == 2 and not rows.is_complex() and not many:  # what torch.embedding knows, in fewer calls
        return torch.embedding(rows, places)
    return rows.index_select(0, places.flatten().long()).view(*places.shape, *rows.shape[1:])
