"""Type-token ratio: how much of a sample is new."""

from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff.corpus import Shard
from dataeff.metrics._base import Metric
from dataeff.metrics._distinct import distinct


@attrs.frozen
class type_token_ratio(Metric):
    """The number of distinct tokens of each sample, as a share of its tokens. float64.

    It falls as a sample grows, so compare samples of about one length, or use `mtld`. An empty sample has 0.

    Source: W. Johnson, Studies in language behavior, Psychological Monographs 56 (1944).

    Examples:
        >>> type_token_ratio()(["abcd", "abab", "aaaa"]).tolist()
        [1.0, 0.5, 0.25]
    """

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """Distinct tokens over tokens."""
        return distinct(shard) / np.maximum(np.diff(shard.offsets), 1)
