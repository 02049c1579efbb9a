"""Random layerwise token dropping."""

import attrs
import torch

from dataeff import ops
from dataeff._check import is_flag, is_whole


@attrs.frozen
class random_ltd:
    """Random layerwise token dropping: each layer and sample keeps its own random subset of tokens.

    A layer f of L takes the kept tokens, and they are put back among the others:
    x[i] <- f(x[J])[i] for i in J, else x[i], with J drawn anew for each layer and sample. No importance
    scores and no special tokens. Padding, where the layer's mask tells of it, is kept only when there is
    nothing else.

    Source: random-LTD, arXiv 2211.11586, and DeepSpeed Data Efficiency, arXiv 2212.03597.

    Args:
        shared: whether all samples of a batch keep the same tokens, as layers need that take tables without
            a batch axis.
        prefix: how many tokens at the beginning are always kept: a class token, registers. Layers may take
            rotary tables that have no entries for these.

    Examples:
        >>> random_ltd()(2, 8, 3, key=(1234, 0, 0, 1)).shape
        torch.Size([2, 3])
        >>> random_ltd(shared=True)(2, 8, 3, key=(1234, 0, 0, 1)).shape
        torch.Size([1, 3])
    """

    shared: bool = attrs.field(default=False, kw_only=True, validator=is_flag())
    prefix: int = attrs.field(default=0, kw_only=True, validator=is_whole(0))

    def __call__(
        self,
        batch: int,
        seq: int,
        keep: int,
        *,
        key: tuple[int | torch.Tensor, ...],
        first_row: int = 0,
        device: torch.device | None = None,
        valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Ids of the tokens that enter, sorted. (batch or 1, keep) int32; see `ops.sample_tokens`."""
        if keep < self.prefix:
            raise ValueError(f"keep is {keep}; expected at least the prefix of {self.prefix} tokens")
        if self.shared:
            batch, first_row, valid = 1, 0, None if valid is None else valid.any(0, keepdim=True)
        return ops.sample_tokens(
            batch,
            seq,
            keep,
            key=("random_ltd", *key),
            first_row=first_row,
            always=self.prefix,
            valid=valid,
            device=device,
        )
