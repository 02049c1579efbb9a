"""Tokens dropped at the input of a model."""

from typing import ClassVar

import attrs
import torch

from dataeff import ops
from dataeff._check import is_whole


@attrs.frozen
class patch_dropout:
    """PatchDropout: a random subset of the tokens is dropped before the first routed layer, for good.

    x <- x[J], J of `keep` tokens with the first `prefix` always among them, and layers after it, the head
    too, see the kept tokens alone. For models that pool, as a ViT does by its class token; one that gives an
    output a token gives as many as were kept.

    Source: PatchDropout, arXiv 2208.07220.

    Args:
        prefix: how many tokens at the beginning are always kept: a class token, registers.

    Examples:
        >>> patch_dropout(prefix=1)(2, 8, 3, key=(1234, 0, 0, 0))[:, 0].tolist()
        [0, 0]
    """

    scope: ClassVar[str] = "input"

    prefix: int = attrs.field(default=1, kw_only=True, validator=is_whole(0))

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
        """Ids of the tokens that enter, sorted. (batch, keep) int32; see `ops.sample_tokens`."""
        if keep < self.prefix:
            raise ValueError(f"keep is {keep}; expected at least the prefix of {self.prefix} tokens")
        return ops.sample_tokens(
            batch,
            seq,
            keep,
            key=("patch_dropout", *key),
            first_row=first_row,
            always=self.prefix,
            valid=valid,
            device=device,
        )
