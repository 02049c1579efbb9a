"""A random subset of the tokens, of each sample or of all."""

import attrs
import torch

from dataeff import ops
from dataeff._check import is_flag, is_whole


@attrs.frozen
class RandomTokens:
    """A router that draws; how often, and what becomes of the others, is for its kinds to say.

    Examples:
        >>> RandomTokens(prefix=2)(1, 8, 3, key=(1234,))[0, :2]
        tensor([0, 1], dtype=torch.int32)
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
            key=(type(self).__name__, *key),
            first_row=first_row,
            always=self.prefix,
            valid=valid,
            device=device,
        )
