"""What the token operations mean, in plain torch."""

from collections.abc import Sequence

import torch

_LOG2 = 0.6931471805599453


def sample(
    bits: torch.Tensor,
    keep: int,
    *,
    always: torch.Tensor | None = None,
    valid: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Where the `keep` tokens of each row that come first are, sorted. (B, S) -> (B, keep) int32.

    First come those that are `always` kept, then those of a weight above 0, then the `valid` rest, then
    padding; within each by their 32-bit words, or by `exponential(words) / weights`, ties by position.

    Examples:
        >>> sample(torch.tensor([[7, 3, 9, 3]]), 2).tolist()
        [[1, 3]]
        >>> sample(torch.tensor([[7, 3, 9, 3]]), 2, valid=torch.tensor([[True, False, True, True]])).tolist()
        [[0, 3]]
    """
    rank = torch.ones_like(bits)
    score = bits.to(torch.float64)
    if weights is not None:
        weights = weights.to(torch.float64).expand_as(bits)
        rank[weights == 0] = 2
        score = exponential(bits) / torch.where(weights == 0, 1.0, weights)
    if valid is not None:
        rank[~valid.expand_as(bits)] = 3
    if always is not None:
        rank[always.expand_as(bits)] = 0
    first = torch.sort(score, dim=1, stable=True).indices
    order = first.gather(1, torch.sort(rank.gather(1, first), dim=1, stable=True).indices)
    return order[:, :keep].sort(dim=1).values.to(torch.int32)


def exponential(bits: torch.Tensor) -> torch.Tensor:
    """Exponentially distributed numbers from 32-bit words: -log(1 - (word + 0.5) / 2**32). float64.

    Of weights w, the K smallest of exponential / w are a sample of K without replacement in proportion to w;
    -log of it is the Gumbel-top-k trick (Kool, van Hoof and Welling, ICML 2019). The logarithm is a series in
    additions, multiplications and divisions in this order, so that it is the same to the bit on any device.

    Examples:
        >>> exponential(torch.tensor([0, 2**31, 2**32 - 1])).tolist()
        [1.16...e-10, 0.693..., 22.87...]
    """
    rest = 1.0 - (bits.to(torch.float64) + 0.5) * 2.0**-32
    mantissa, exponent = torch.frexp(rest)  # in [0.5, 1)
    small = mantissa < 0.7071067811865476
    mantissa = torch.where(small, mantissa * 2.0, mantissa)
    exponent = torch.where(small, exponent - 1, exponent)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = torch.full_like(s, 1.0 / 21.0)
    for odd in range(19, 0, -2):
        series = series * square + 1.0 / odd
    return 0.0 - (2.0 * s * series + exponent.to(torch.float64) * _LOG2)


def gather(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """y[b, k] = x[b, ids[b, k]]. (B, S, ...), (B, K) or (K,) for all rows -> (B, K, ...).

    Examples:
        >>> gather(torch.tensor([[10, 20, 30]]), torch.tensor([[0, 2]])).tolist()
        [[10, 30]]
    """
    return x[_batch(x, ids), ids.expand(x.shape[0], -1)]


def scatter(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """A copy of x with x[b, ids[b, k]] = y[b, k]. (B, S, ...), (B, K, ...), (B, K) or (K,) -> (B, S, ...).

    Examples:
        >>> scatter(torch.zeros(1, 3), torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]])).tolist()
        [[1.0, 0.0, 2.0]]
    """
    return x.index_put((_batch(x, ids), ids.expand(x.shape[0], -1)), y)


def gather_axes(x: torch.Tensor, ids: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """`x` with only the tokens `ids` along each of `axes`. (1 or B, ...), (B, K) -> (B, ...).

    Examples:
        >>> gather_axes(torch.arange(9).view(1, 3, 3), torch.tensor([[0, 2]]), (1, 2)).tolist()
        [[[0, 2], [6, 8]]]
    """
    rows = []
    for b, kept in enumerate(ids):
        row = x[b if len(x) > 1 else 0]
        for axis in axes:
            row = row.index_select(axis % x.dim() - 1, kept)
        rows.append(row)
    return torch.stack(rows)


def _batch(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(B, 1) int64: the row of each id."""
    return torch.arange(x.shape[0], device=ids.device).unsqueeze(1)
