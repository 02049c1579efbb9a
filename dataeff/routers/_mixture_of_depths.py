"""Tokens chosen by a learned score."""

from collections.abc import Iterator
from typing import ClassVar

import attrs
import torch
from torch import nn

from dataeff._check import whole
from dataeff.routers._chosen import Chosen


@attrs.frozen
class mixture_of_depths:
    """Mixture-of-Depths: each layer learns which tokens it is worth to process.

    x[i] <- x[i] + r[i] * f(x[J])[i] for i in J, else x[i], with r = w . x, J the `keep` tokens of the largest
    r in each sample, and f the layer without its residual, f(x) = layer(x) - x. The score multiplies what the
    layer adds, so it is trained with the rest.

    w is a module on each routed layer, `mixture_of_depths`, so it is in the model's parameters and in its
    state dict as `<layer>.mixture_of_depths.weight`: attach before you make the optimizer, and before
    DistributedDataParallel or fully_shard. The model routes in evaluation too, since it is no longer the same
    without; sequences of no more than `keep` tokens go through the plain layer, without r. Which tokens are
    the largest is known only once all are, so a causal model that is to generate needs a rule of its own for
    that.

    Source: Mixture-of-Depths, arXiv 2404.02258.

    Args:
        width: C, of the hidden states; by default that of the layer's norm, or of its first parameter with
            one axis.

    Examples:
        >>> router, hidden = mixture_of_depths(width=4), torch.randn(2, 8, 4)
        >>> chosen = router(2, 8, 3, hidden=hidden, gate=router.gate(torch.nn.LayerNorm(4)))
        >>> chosen.ids.shape, chosen.weights.shape
        (torch.Size([2, 3]), torch.Size([2, 3]))
    """

    evaluates: ClassVar[bool] = True

    width: int | None = attrs.field(default=None, kw_only=True)

    @width.validator
    def _check_width(self, _: object, width: int | None) -> None:
        if width is not None:
            whole("width", width, low=1)

    def gate(self, layer: nn.Module) -> nn.Module:
        """The module that scores the tokens of a layer, (..., C) -> (..., 1)."""
        like = next(layer.parameters(), torch.empty(0))
        width = self.width or next(_widths(layer), None)
        if width is None:
            raise ValueError(
                f"the width of a {type(layer).__name__} is not known; name it: mixture_of_depths(width=...)"
            )
        return nn.Linear(width, 1, bias=False, device=like.device, dtype=like.dtype)

    def __call__(
        self,
        batch: int,
        seq: int,
        keep: int,
        *,
        hidden: torch.Tensor,
        gate: nn.Module,
        valid: torch.Tensor | None = None,
    ) -> Chosen:
        """The `keep` tokens of the largest score; padding is among them when there is nothing else."""
        scores = gate(hidden).squeeze(-1)
        ids = top_tokens(scores.detach(), keep, valid=valid)
        return Chosen(ids, weights=scores.gather(1, ids))


def _widths(layer: nn.Module) -> Iterator[int]:
    """Guesses at the width of hidden states: of a layer's own norms, of those inside, of any vector."""
    for module in [*layer.children(), *layer.modules()]:
        weight = getattr(module, "weight", None)
        if "norm" in type(module).__name__.lower() and isinstance(weight, torch.Tensor) and weight.dim() == 1:
            yield weight.shape[0]
    yield from (parameter.shape[0] for parameter in layer.parameters() if parameter.dim() == 1)


def top_tokens(scores: torch.Tensor, keep: int, *, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Ids of the `keep` largest of each row's scores, sorted. (B, S) -> (B, keep) int64.

    Of equal scores the first win. Those that are not `valid`, (B, S) bool, come after all others.

    Examples:
        >>> top_tokens(torch.tensor([[0.1, 3.0, 2.0, 2.0]]), 2).tolist()
        [[1, 2]]
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    if valid is not None:
        order = order.gather(1, valid.gather(1, order).argsort(dim=1, descending=True, stable=True))
    return order[:, :keep].sort(dim=1).values
