"""Length, then vocabulary rarity: the two in one number."""

from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff.corpus import Shard
from dataeff.metrics._base import Metric
from dataeff.metrics._vocab_rarity import vocab_rarity


@attrs.frozen
class seqlen_vocab_rarity(Metric):
    """The length of each sample in tokens, those of one length told apart by mean vocabulary rarity. float64.

    L - 1 + (1 + mean rarity) / (1 + ln N), with N the tokens of the corpus: for L tokens above L - 1 and at
    most L. So a pace of 128 by value lets in exactly the samples of up to 128 tokens, and the order is by
    length, then by `vocab_rarity`. An empty sample has 0. Token ids and memory are as for `vocab_rarity`.

    Source: the `seqreo_voc` difficulty of DeepSpeed Data Efficiency, arXiv 2212.03597.

    Examples:
        >>> seqlen_vocab_rarity()(["aaaa", "aaab", "ab"]).round(3).tolist()
        [3.37, 3.475, 1.58]
    """

    def fit(self, shard: Shard) -> NDArray[Any]:
        """How often each token id occurs in the shard. (largest id + 1,) int64."""
        return vocab_rarity().fit(shard)

    def merge(self, first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        """The counts of both."""
        return vocab_rarity().merge(first, second)

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """One less than the length, and a share of 1 for the rarity."""
        assert fitted is not None  # noqa: S101  (fit always gives counts)
        length = np.diff(shard.offsets)
        mean = np.asarray(vocab_rarity(mean=True).score(shard, fitted))
        share = (1 + mean) / (1 + np.log(max(1, fitted.sum())))
        return np.where(length, length - 1 + np.minimum(share, 1), 0.0)  # the mean's rounding can exceed ln N
