"""Documents as BERT takes them: padded rows, and some of their tokens masked."""

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import numpy as np
import torch

import dataeff as de

Batch = dict[str, torch.Tensor]


@attrs.frozen
class Ids:
    """The tokens of a vocabulary, and two more."""

    vocabulary: int

    @property
    def mask(self) -> int:
        """What stands where a token is to be told."""
        return self.vocabulary

    @property
    def padding(self) -> int:
        """What stands behind the last token."""
        return self.vocabulary + 1

    def __len__(self) -> int:
        return self.vocabulary + 2


def padded(rows: Sequence[Any], length: int, ids: Ids, device: str) -> Batch:
    """Rows of tokens to `input_ids` and `attention_mask`, both (B, length); what is longer is cut."""
    found = torch.full((len(rows), length), ids.padding)
    for i, row in enumerate(rows):
        own = torch.from_numpy(np.asarray(row[:length], np.int64))
        found[i, : len(own)] = own
    found = found.to(device)
    return {"input_ids": found, "attention_mask": (found != ids.padding).long()}


def masked(batch: Batch, keys: Iterable[int], ids: Ids, *, share: float = 0.15) -> tuple[Batch, torch.Tensor]:
    """Another batch with `places`, the flat ones (K,) that are to be told, and what was there, (K,).

    `share` of the tokens of each row, and at least one; of these 80% become a mask, 10% a random token, and
    10% stay. All of it depends on the key of the row alone. Source: BERT, arXiv 1810.04805.
    """
    before, real = batch["input_ids"], batch["attention_mask"].bool()
    drawn = np.stack([de.rng.bits(int(key), 3, before.shape[1]) for key in keys]) / 2.0**32  # (B, 3, S)
    order, kind, other = torch.from_numpy(drawn).to(before.device).unbind(1)
    wanted = (share * real.sum(1, keepdim=True)).round().clamp(min=1)
    rank = order.masked_fill(~real, 1).argsort(stable=True, dim=1).argsort(1)
    chosen = rank < wanted
    random = (other * ids.vocabulary).long()
    after = torch.where(kind < 0.8, ids.mask, torch.where(kind < 0.9, random, before))
    places = chosen.flatten().nonzero().flatten()
    hidden = batch | {"input_ids": torch.where(chosen, after, before), "places": places}
    return hidden, before.flatten()[places]
