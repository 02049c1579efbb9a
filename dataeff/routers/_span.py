"""One random subset of tokens that bypasses a span of layers."""

from typing import ClassVar

import attrs
import torch

from dataeff import ops


@attrs.frozen
class span:
    """TREAD's route: one random subset of tokens enters the first routed layer, the others wait for the last.

    x[i] <- (f_j o ... o f_i)(x[J])[i] for i in J, else x[i]: the tokens outside J leave before layer i and
    come back, as they were, after layer j. Unlike random-LTD it draws once for all layers, and copies once.

    Source: TREAD, arXiv 2501.04765.

    Examples:
        >>> span()(2, 8, 3, key=(1234, 0, 0, 0)).shape
        torch.Size([2, 3])
    """

    scope: ClassVar[str] = "span"

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
        return ops.sample_tokens(
            batch, seq, keep, key=("span", *key), first_row=first_row, valid=valid, device=device
        )
