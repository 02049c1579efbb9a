"""Sampling, gathering and scattering tokens."""

from collections.abc import Sequence

import torch

from dataeff import rng
from dataeff._check import whole
from dataeff.ops import reference

__all__ = ["gather_tokens", "sample_tokens", "scatter_tokens"]


def sample_tokens(
    batch: int,
    seq: int,
    keep: int,
    *,
    key: Sequence[int | str],
    first_row: int = 0,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Ids of `keep` tokens of each row, uniformly at random without replacement, sorted. (batch, keep) int32.

    Row r depends on (key, first_row + r) alone, so the ids are the same however rows are spread over ranks,
    and on any device: position i of a row holds word i of its Philox stream (`rng.bits`), and the `keep`
    smallest words win, ties by position.

    Args:
        batch: rows.
        seq: tokens in a row.
        keep: of them, from 0 to `seq`.
        key: all that the choice depends on, as (seed, step, layer): integers of at least 0, or strings.
        first_row: of this rank in the global batch.
        device: of the result.

    Raises:
        ValueError: `keep` above `seq`, or a negative number.

    Examples:
        >>> ids = sample_tokens(2, 16, 4, key=(1234, 0, 1))
        >>> ids.shape, bool((ids.diff(dim=1) > 0).all())
        (torch.Size([2, 4]), True)
        >>> bool((sample_tokens(1, 16, 4, key=(1234, 0, 1), first_row=1) == ids[1:]).all())
        True
    """
    whole("batch", batch, low=0)
    whole("seq", seq, low=0)
    if whole("keep", keep, low=0) > seq:
        raise ValueError(f"keep is {keep}; expected at most seq, the {seq} tokens that a row has")
    words = rng.bits(rng.key(*key), batch, seq, first_row=first_row)
    return reference.sample(torch.from_numpy(words.astype("int64")), keep).to(device)


def gather_tokens(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The tokens `ids` of each row. (B, S, ...), (B, K) -> (B, K, ...).

    The gradient puts each token's back where it came from. `ids` are int32 or int64, distinct in a row.

    Raises:
        ValueError: shapes or an id dtype that do not fit, with the shapes; on the CPU, an id out of range.

    Examples:
        >>> gather_tokens(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0, 2]]))
        tensor([[1., 3.]])
    """
    _check_ids(x, ids)
    return reference.gather(x, ids)


def scatter_tokens(x: torch.Tensor, y: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """`x` with `y` in place of the tokens `ids`. (B, S, ...), (B, K, ...), (B, K) -> (B, S, ...).

    The inverse of `gather_tokens`: `scatter_tokens(x, gather_tokens(x, ids), ids)` equals `x`. `x` is not
    changed. The gradient of a token goes to `y` where it was put there, to `x` elsewhere.

    Raises:
        ValueError: shapes or dtypes that do not fit, with the shapes.

    Examples:
        >>> scatter_tokens(torch.zeros(1, 3), torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 2]]))
        tensor([[1., 0., 2.]])
    """
    _check_ids(x, ids)
    if y.shape != ids.shape + x.shape[2:] or y.dtype != x.dtype:
        raise ValueError(
            f"y is {y.dtype} of shape {tuple(y.shape)}; expected {x.dtype} of shape "
            f"{tuple(ids.shape + x.shape[2:])}, from ids and x"
        )
    return reference.scatter(x, y, ids)


def _check_ids(x: torch.Tensor, ids: torch.Tensor) -> None:
    if x.dim() < 2 or ids.dim() != 2 or ids.shape[0] != x.shape[0]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and ids {tuple(ids.shape)}; expected (B, S, ...) and (B, K)"
        )
    if ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"ids are {ids.dtype}; expected int32 or int64")
    if ids.device.type == "cpu" and ids.numel() and not 0 <= ids.min() <= ids.max() < x.shape[1]:
        raise ValueError(
            f"ids go from {ids.min()} to {ids.max()}; expected them in [0, {x.shape[1]}), as x has"
        )
