"""How rows of tokens lie in memory."""

import torch


def is_sequence_major(x: torch.Tensor) -> bool:
    """Whether the tokens of different rows lie side by side, as in (S, B, C) seen as (B, S, C).

    Examples:
        >>> is_sequence_major(torch.zeros(3, 2, 4)), is_sequence_major(torch.zeros(2, 3, 4).transpose(0, 1))
        (False, True)
    """
    return x.stride(0) < x.stride(1) and x.shape[0] > 1


def flattened(x: torch.Tensor, sequence_major: bool) -> torch.Tensor | None:
    """The first two axes as one, in the order of memory, if that takes no copy. (B, S, ...) -> (B * S, ...).

    Examples:
        >>> flattened(torch.zeros(2, 3, 4), False).shape, flattened(torch.zeros(2, 7, 4)[:, ::2], False)
        (torch.Size([6, 4]), None)
    """
    if sequence_major:
        x = x.transpose(0, 1)
    return x.flatten(0, 1) if x.stride(0) == x.shape[1] * x.stride(1) else None


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


def positions(ids: torch.Tensor, batch: int, seq: int, sequence_major: bool) -> torch.Tensor:
    """`ids` as places on the first two axes as one, in the order of memory. (B, K) or (K,) -> (B * K,).

    Examples:
        >>> positions(torch.tensor([[0, 2], [1, 2]]), 2, 3, False).tolist()
        [0, 2, 4, 5]
        >>> positions(torch.tensor([[0, 2], [1, 2]]), 2, 3, True).tolist()
        [0, 3, 4, 5]
    """
    if ids.dim() == 1:
        ids = ids.expand(batch, -1)
    if sequence_major:
        return (ids.t() * batch + torch.arange(batch, device=ids.device)).reshape(-1)
    return (ids + torch.arange(0, batch * seq, max(seq, 1), device=ids.device).unsqueeze(1)).view(-1)


def storable(x: torch.Tensor) -> torch.Tensor:
    """`x` as it is if torch can copy rows of its dtype anywhere, else its bits as integers.

    Examples:
        >>> storable(torch.zeros(2).to(torch.float8_e4m3fn)).dtype
        torch.int8
    """
    kind = x.dtype
    if kind.is_floating_point and kind.itemsize == 1:
        return x.view(torch.int8)
    if kind in _UNSIGNED:
        return x.view(_UNSIGNED[kind])
    return x


_UNSIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
