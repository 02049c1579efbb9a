"""What a router has chosen: which tokens enter a layer, and what becomes of the others."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from dataeff import ops

Tensor = torch.Tensor


class Chosen(NamedTuple):
    """The tokens that enter a layer; the others bypass it.

    Examples:
        >>> x = torch.tensor([[[1.0], [3.0], [10.0]]])
        >>> pairs = Chosen(torch.tensor([[0, 2]]), owners=torch.tensor([[0, 0, 1]]))
        >>> taken = pairs.take(x)
        >>> taken.flatten().tolist(), pairs.put(x, taken, taken + 1).flatten().tolist()
        ([2.0, 10.0], [2.0, 4.0, 11.0])
    """

    ids: Tensor
    """Whose masks and positions the layer gets, sorted. (B, K), or (1, K) for all rows; int32 or int64."""
    weights: Tensor | None = None
    """What the layer's change of a token is multiplied by, where that is not 1. (B, K)."""
    owners: Tensor | None = None
    """Which of the K stands for each token, as a mean of tokens, if not each for itself. (B, S) int64."""

    def take(self, hidden: Tensor) -> Tensor:
        """What enters the layer. (B, S, C) -> (B, K, C)."""
        if self.owners is None:
            return ops.gather_tokens(hidden, self._rows(hidden))
        owners = self.owners.unsqueeze(-1)
        room = hidden.new_zeros(hidden.shape[0], self.ids.shape[1], hidden.shape[2])
        sizes = room[..., :1].scatter_add(1, owners, torch.ones_like(hidden[..., :1]))
        return room.scatter_add(1, owners.expand_as(hidden), hidden) / sizes

    def put(
        self,
        hidden: Tensor,
        taken: Tensor,
        output: Tensor,
        merge: Callable[[Tensor, Tensor, Tensor], Tensor] = ops.scatter_tokens,
    ) -> Tensor:
        """All tokens after the layer, which made `output` of `taken`. (B, S, C)."""
        if self.weights is not None:
            output = taken + self.weights.unsqueeze(-1).to(output.dtype) * (output - taken)
        if self.owners is None:
            return merge(hidden, output, self._rows(hidden))
        return hidden + (output - taken).gather(1, self.owners.unsqueeze(-1).expand_as(hidden))

    def _rows(self, hidden: Tensor) -> Tensor:
        return self.ids if len(self.ids) == len(hidden) else self.ids[0]
