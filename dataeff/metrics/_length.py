"""Length: how many tokens a sample has."""

from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dataeff.corpus import Shard
from dataeff.metrics._base import Metric


@attrs.frozen
class length(Metric):
    """The number of tokens of each sample. int64.

    Examples:
        >>> length()(["to be", "or not"]).tolist()
        [5, 6]
    """

    def score(self, shard: Shard, fitted: NDArray[Any] | None) -> ArrayLike:
        """The distance between a sample's offset and the next one's."""
        return np.diff(shard.offsets)
