"""One difficulty from several: ranks, weighted sums, one after the other."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank(values: ArrayLike) -> NDArray[np.int64]:
    """How many samples are easier than each sample; equal values share a rank. (samples,) int64.

    Ranks put metrics of different units on one scale. In memory: 8 bytes a sample, and as much to sort.

    Examples:
        >>> rank([0.5, 0.1, 0.9, 0.5]).tolist()
        [1, 0, 3, 1]
    """
    values = np.asarray(values)
    return np.searchsorted(np.sort(values), values, side="left").astype(np.int64)


def weighted_sum(values: Sequence[ArrayLike], weights: Sequence[float]) -> NDArray[np.float64]:
    """The sum of difficulties, each times its weight; usually of ranks, since units differ. float64.

    Raises ValueError unless there is one weight for each.

    Examples:
        >>> weighted_sum([rank([1, 2, 3]), rank([0.3, 0.1, 0.2])], [0.5, 0.5]).tolist()
        [1.0, 0.5, 1.5]
    """
    if len(values) != len(weights) or not values:
        raise ValueError(f"got {len(values)} difficulties and {len(weights)} weights; expected one for each")
    total = np.zeros(np.shape(values[0]))
    for own, weight in zip(values, weights, strict=True):
        total += weight * np.asarray(own)
    return total


def lexicographic(*values: ArrayLike) -> NDArray[np.int64]:
    """Ranks by the first difficulty, equal ones by the second, and so on. (samples,) int64.

    Raises ValueError without any.

    Examples:
        >>> lexicographic([2, 1, 2, 1], [0.1, 0.2, 0.0, 0.2]).tolist()
        [3, 0, 2, 0]
    """
    if not values:
        raise ValueError("values is empty; expected at least one difficulty")
    arrays = [np.asarray(own) for own in values]
    order = np.lexsort(arrays[::-1])
    first = np.ones(len(order), bool)  # where a new rank begins
    first[1:] = np.any([own[order][1:] != own[order][:-1] for own in arrays], axis=0)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    return ranks
