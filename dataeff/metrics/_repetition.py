"""Repetition: how much of a sample has been said before in it."""

from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff._check import is_whole
from dataeff.corpus import Shard
from dataeff.metrics._base import Metric
from dataeff.metrics._distinct import distinct


@attrs.frozen
class repetition(Metric):
    """The share of each sample's n-grams that repeat an earlier one of the sample. float64.

    1 - distinct n-grams / n-grams, with n-grams told apart by a 64-bit hash. A sample of fewer than `n`
    tokens has 0.

    Source: the `rep-n` of Welleck et al., Neural text generation with unlikelihood training,
    arXiv 1908.04319.

    Examples:
        >>> repetition(n=2)(["abcde", "ababa", "aaaaa"]).tolist()
        [0.0, 0.5, 0.75]
    """

    n: int = attrs.field(default=3, validator=is_whole(1))

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """n-grams that are not the first of their kind, over n-grams."""
        grams: NDArray[np.int64] = np.maximum(np.diff(shard.offsets) - (self.n - 1), 0)
        return (grams - distinct(shard, self.n)) / np.maximum(grams, 1)
