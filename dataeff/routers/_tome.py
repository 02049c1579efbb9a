"""Similar tokens merged before a layer."""

from typing import ClassVar

import attrs
import torch
from torch.nn import functional

from dataeff._check import is_whole
from dataeff.routers._chosen import Chosen

Tensor = torch.Tensor


@attrs.frozen
class tome:
    """Token merging: the most similar tokens enter a layer as one, and all get what it adds to that one.

    Tokens are parted by turns into those that may be merged and those that they may be merged with. Each of
    the first has a most similar one among the second (cosine of the hidden states); the S - K most similar
    pairs are
    merged: u = mean of the tokens, and x[i] <- x[i] + (f(u) - u)[owner of i]. Nothing is dropped.

    For layers that attend both ways: merging looks ahead, so a causal layer is refused.

    Sources: Token Merging, arXiv 2210.09461 (matching; here by hidden states instead of keys, and without
    attention in proportion to size), and its unmerging, arXiv 2303.17604.

    Args:
        prefix: how many tokens at the beginning are left alone, as a class token.

    Examples:
        >>> tome()(1, 4, 3, hidden=torch.tensor([[[2.0], [-1.0], [-3.0], [1.0]]])).owners.tolist()
        [[0, 1, 1, 2]]
    """

    looks_ahead: ClassVar[bool] = True

    prefix: int = attrs.field(default=0, kw_only=True, validator=is_whole(0))

    def __call__(
        self, batch: int, seq: int, keep: int, *, hidden: Tensor, valid: Tensor | None = None
    ) -> Chosen:
        """The tokens that stand for all, and which of them for each."""
        if keep <= self.prefix:
            raise ValueError(f"keep is {keep}; expected more than the prefix of {self.prefix} tokens")
        owners = match_tokens(hidden.detach(), keep, prefix=self.prefix, valid=valid)
        stands = owners == torch.arange(seq, device=owners.device)
        ids = stands.nonzero()[:, 1].view(batch, keep)
        places = stands.cumsum(1) - 1
        return Chosen(ids, owners=places.gather(1, owners))


def match_tokens(hidden: Tensor, keep: int, *, prefix: int = 0, valid: Tensor | None = None) -> Tensor:
    """The token that stands for each, itself for `keep` of them. (B, S, C) -> (B, S) int64.

    Of the tokens after the prefix every n-th is one that others may be merged with, n the smallest number
    from 2 that leaves enough to merge. Padding (not `valid`, (B, S) bool) is merged with padding, first of
    all.

    Examples:
        >>> match_tokens(torch.tensor([[[2.0], [-1.0], [-3.0], [1.0]]]), 3).tolist()
        [[0, 2, 2, 3]]
    """
    batch, seq = hidden.shape[:2]
    every = max(2, -(-(seq - prefix) // (keep - prefix)))
    places = torch.arange(seq, device=hidden.device)
    into = (places >= prefix) & ((places - prefix) % every == 0)
    merged, kept = places[(places >= prefix) & ~into], places[into]
    unit = functional.normalize(hidden.float(), dim=-1)
    likeness = unit[:, merged] @ unit[:, kept].transpose(1, 2)  # (B, those that may be merged, with these)
    if valid is not None:
        real, other = valid[:, merged].unsqueeze(2), valid[:, kept].unsqueeze(1)
        likeness = likeness.masked_fill(real != other, -2.0).masked_fill(~real & ~other, 2.0)
    best, partner = likeness.max(2)
    first = best.argsort(dim=1, descending=True, stable=True)[:, : seq - keep]
    owners = places.expand(batch, seq).clone()
    return owners.scatter(1, merged[first], kept[partner.gather(1, first)])
