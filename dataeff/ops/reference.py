"""What the token operations mean, in plain torch."""

import torch


def sample(bits: torch.Tensor, keep: int) -> torch.Tensor:
    """Where the `keep` smallest words of each row are, ties by position, sorted. (B, S) -> (B, keep) int32.

    Examples:
        >>> sample(torch.tensor([[7, 3, 9, 3]]), 2).tolist()
        [[1, 3]]
    """
    smallest = torch.sort(bits, dim=1, stable=True).indices[:, :keep]
    return smallest.sort(dim=1).values.to(torch.int32)


def gather(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """y[b, k] = x[b, ids[b, k]]. (B, S, ...), (B, K) -> (B, K, ...).

    Examples:
        >>> gather(torch.tensor([[10, 20, 30]]), torch.tensor([[0, 2]])).tolist()
        [[10, 30]]
    """
    rows = x.flatten(0, 1).index_select(0, _rows(ids, x.shape[1]))  # (B * K, ...)
    return rows.view(ids.shape + x.shape[2:])


def scatter(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """A copy of x with x[b, ids[b, k]] = y[b, k]. (B, S, ...), (B, K, ...), (B, K) -> (B, S, ...).

    Examples:
        >>> scatter(torch.zeros(1, 3), torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]])).tolist()
        [[1.0, 0.0, 2.0]]
    """
    return x.flatten(0, 1).index_copy(0, _rows(ids, x.shape[1]), y.flatten(0, 1)).view(x.shape)


def _rows(ids: torch.Tensor, seq: int) -> torch.Tensor:
    """The ids as rows of the flattened (B * S, ...) tensor. (B, K) -> (B * K,) int64."""
    first = torch.arange(ids.shape[0], device=ids.device).unsqueeze(1) * seq
    return (first + ids).flatten()
