"""Which tokens enter a layer."""

import attrs
import torch

from dataeff import ops


@attrs.frozen
class random_ltd:
    """Random layerwise token dropping: each layer and sample keeps its own random subset of tokens.

    No importance scores and no special tokens; the others bypass the layer.

    Source: random-LTD, arXiv 2211.11586, and DeepSpeed Data Efficiency, arXiv 2212.03597.

    Examples:
        >>> random_ltd()(2, 8, 3, key=(1234, 0, 0, 1)).shape
        torch.Size([2, 3])
    """

    def __call__(
        self,
        batch: int,
        seq: int,
        keep: int,
        *,
        key: tuple[int, ...],
        first_row: int = 0,
        device: torch.device | None = None,
    ) -> torch.Tensor:
        """Ids of the tokens that enter, sorted. (batch, keep) int32; see `ops.sample_tokens`."""
        return ops.sample_tokens(
            batch, seq, keep, key=("random_ltd", *key), first_row=first_row, device=device
        )


def layer_tokens(samples: int, seq: int, keep: int, *, layers: int, routed: int) -> int:
    """Layer tokens of one step: samples * (keep * routed + seq * (layers - routed)), keep at most seq.

    Source: random-LTD, arXiv 2211.11586; `seq` is the step's actual length, so it holds under a curriculum.

    Examples:
        >>> layer_tokens(8, 512, 128, layers=12, routed=10)
        18432
    """
    return samples * (min(keep, seq) * routed + seq * (layers - routed))
